"""export.to_nir and export.from_nir, from the command line, and files that are no NIR graphs."""

import os
import re
import sys
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from export import from_nir, to_nir
from export.nir import file as nir_file
from export.nir.graph import to_graph
from nqlava import netx
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import random_layer
from tests.export.nir.test_reader import network_with
from tests.export.nir.test_readers import small_network
from tests.hdf5_changes import Change, replace


@pytest.fixture
def net(tmp_path: Path) -> Path:
    netx.write(small_network(), tmp_path / "net.h5")
    return tmp_path / "net.h5"


@pytest.fixture
def graph(net: Path) -> Path:
    path = net.with_suffix(".nir")
    nir_file.write(to_graph(netx.read(net)), path)
    return path


@pytest.mark.parametrize("options", [[], ["--fold-pooling"], ["--readout", "current"]])
def test_there_and_back(net: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    graph, back = net.with_suffix(".nir"), net.with_name("back.h5")
    assert to_nir.main([str(net), str(graph), *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"wrote {graph}")
    assert err.splitlines() == [f"warning: {to_nir.WARNING}"]
    kinds = {type(node).__name__ for node in nir.read(graph).nodes.values()}
    assert ("SumPool2d" in kinds) == ("--fold-pooling" not in options)
    assert ("I" in kinds) == ("current" not in options)
    assert from_nir.main([str(graph), str(back)]) == 0
    assert capsys.readouterr().err == ""
    assert back.read_bytes() == net.read_bytes()


def test_equal_networks_give_equal_bytes(net: Path) -> None:
    for name in ("a.nir", "b.nir"):
        assert to_nir.main([str(net), str(net.with_name(name))]) == 0
    assert net.with_name("a.nir").read_bytes() == net.with_name("b.nir").read_bytes()


def test_what_readers_stumble_over_is_named(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    wide = random_layer(rng, "wide", (1, 3, 4), outputs=2, kernel=(1, 2), exponent=15)
    readout = random_layer(rng, "readout", (2, 3, 3), source="wide", outputs=2, readout=True)
    netx.write(IntegerNetwork((1, 3, 4), (wide, readout)), net)
    assert to_nir.main([str(net), str(net.with_suffix(".nir"))]) == 0
    err = capsys.readouterr().err
    assert "wide_in0" in err
    assert "type_check=False" in err
    with pytest.raises(ValueError, match="type"):
        nir.read(net.with_suffix(".nir"))
    nir.read(net.with_suffix(".nir"), type_check=False)
    assert "sums of wide; compute them in float64" in err


def test_graphs_from_elsewhere_are_read_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nir.write(tmp_path / "net.nir", network_with())
    command = [str(tmp_path / "net.nir"), str(tmp_path / "net.h5")]
    assert from_nir.main(command) == 0
    assert "fire where v > v_threshold, then set v to 0" in capsys.readouterr().err
    assert netx.read(tmp_path / "net.h5").layers[0].reset == "hard"
    assert from_nir.main([*command, "--reset", "soft", "--spike", ">="]) == 0
    assert "fire where v >= v_threshold, then subtract v_threshold" in capsys.readouterr().err
    assert netx.read(tmp_path / "net.h5").layers[0].reset == "soft"


def test_options_for_graphs_from_elsewhere_are_refused_for_ours(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = graph.with_name("other.h5")
    assert from_nir.main([str(graph), str(target), "--reset", "hard"]) == 2
    assert "allowed: neither" in capsys.readouterr().err
    assert not target.exists()


WEIGHT = "node/nodes/conv1_in0/weight"


def too_large(file: h5py.File) -> None:
    del file[WEIGHT]
    file.create_dataset(WEIGHT, shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024))


CHANGES: dict[str, tuple[Change, str]] = {
    "no graph": (replace("node", None), "node is missing"),
    "no nodes": (replace("node/nodes", None), "nodes is missing"),
    "no edges": (replace("node/edges", None), "not a readable NIR file: AssertionError"),
    "no weight": (replace(WEIGHT, None), "not a readable NIR file: TypeError"),
    "unknown type": (replace("node/nodes/conv1/type", "Brain"), "node conv1: type is Brain"),
    "a single node": (replace("node/type", "IF"), "type is IF; allowed: NIRGraph"),
    "type that is a number": (replace("node/nodes/conv1/type", 3.0), "type is of type float64; allowed: a string"),
    "info that is no JSON": (
        replace("node/metadata/info", "{"),
        "graph: metadata info is '{'; allowed: a JSON object of strings and numbers",
    ),
    "info of lists": (
        replace("node/metadata/info", '{"T": [8]}'),
        "graph: metadata info is .*; allowed: a JSON object",
    ),
    "metadata": (replace("node/nodes/conv1/metadata", "x"), "conv1: metadata is .*x"),
    "text for numbers": (replace(WEIGHT, "text"), "not a readable NIR file: AttributeError"),
    "float weights": (
        lambda file: file[WEIGHT].__setitem__(..., 0.5),
        r"node conv1_in0 .*weight is 0\.5; allowed: integers",
    ),
    "other numbers": (replace(WEIGHT, np.zeros(3, complex)), "numbers or text"),
    "too large": (too_large, "at most"),
    "elsewhere": (replace(WEIGHT, h5py.ExternalLink("other.h5", "/x")), "stored in this file"),
    "soft link": (replace(WEIGHT, h5py.SoftLink("/nowhere")), "stored in this file"),
    "endless": (lambda file: file["node/nodes"].__setitem__("again", file["node"]), "depth of groups"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_broken_files_are_refused_in_one_line(graph: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = CHANGES[name]
    with h5py.File(graph, "r+") as file:
        change(file)
    target = graph.with_name("other.h5")
    assert from_nir.main([str(graph), str(target)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"export.from_nir: {graph}: ")
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert not target.exists()


def test_files_of_many_groups_are_refused(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nir_file, "MAX_NODES", 20)
    assert from_nir.main([str(graph), str(graph.with_name("other.h5"))]) == 2
    expected = f"export.from_nir: {graph}: file: number of groups and arrays is above 20; allowed: at most 20\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", [to_nir, from_nir])
def test_without_the_package_nir(
    net: Path, command: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("file", "graph", "reader"):
        monkeypatch.delitem(sys.modules, f"export.nir.{name}")
    monkeypatch.setitem(sys.modules, "nir", None)
    assert command.main([str(net), str(net.with_name("out"))]) == 2
    err = capsys.readouterr().err
    assert err.endswith("; allowed: with the package nir, pip install -e '.[nir]' -c constraints.txt\n")
    assert err.count("\n") == 1 and "nir" in err.split(";")[0]


@pytest.mark.parametrize("content", [b"", b"no HDF5", os.urandom(2000)], ids=["empty", "text", "noise"])
def test_other_files_are_refused_in_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.nir").write_bytes(content)
    assert from_nir.main([str(tmp_path / "net.nir"), str(tmp_path / "net.h5")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", [to_nir, from_nir])
def test_missing_inputs_and_folders_are_named(
    net: Path, graph: Path, command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    source = net if command is to_nir else graph
    for arguments, message in (
        ([net.with_name("none"), net.with_name("out")], "none: no such file"),
        ([source.parent, net.with_name("out")], "not a file"),
        ([source, source], "is also an input"),
        ([source, net.parent / "none" / "out"], "no such folder"),
    ):
        assert command.main([str(argument) for argument in arguments]) == 2
        assert message in capsys.readouterr().err
