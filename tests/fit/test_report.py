"""python -m deploy.fit: what it prints, writes and returns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from deploy.fit import text
from deploy.fit.__main__ import main
from deploy.fit.activity import measure
from deploy.fit.chips import LOIHI2
from deploy.fit.examine import examine
from deploy.fit.partition import partition
from deploy.fit.report import ChipFit, Report
from deploy.fit.wiring import wire
from nqlava import netx
from nqlava.network import Connection, IntegerNetwork
from nqlava.testing.networks import random_layer, random_neurons
from nqlava.testing.strategies import networks


def small_network() -> IntegerNetwork:
    """Two convolutions and a read-out for the images of the sample."""
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (3, 32, 32), outputs=4, kernel=(3, 3), padding=(1, 1))
    second = random_layer(rng, "second", (4, 32, 32), source="first", outputs=6, kernel=(3, 3), window=2)
    readout = random_layer(rng, "readout", (6, 14, 14), source="second", outputs=10, readout=True)
    return IntegerNetwork((3, 32, 32), (first, second, readout), {"T": 2})


def too_large() -> IntegerNetwork:
    """1,100 · 32 · 32 = 1,126,400 neurons, and one Loihi 2 has 128 · 8,192 = 1,048,576."""
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (3, 32, 32), outputs=1100, kernel=(1, 1))
    second = random_layer(rng, "second", (1100, 32, 32), source="first", outputs=1, kernel=(1, 1), stride=(32, 32))
    readout = random_layer(rng, "readout", (1, 1, 1), source="second", outputs=2, readout=True)
    return IntegerNetwork((3, 32, 32), (first, second, readout))


def examined(network: IntegerNetwork, samples: int = 0, **choices: Any) -> Report:
    """The report of a network, with its activity on so many random images."""
    wired = wire(network)
    images = np.random.default_rng(0).integers(0, 256, (samples, *network.input_shape), np.uint8)
    activity = measure(network, wired, images, steps=2) if samples else None
    return examine("net.h5", network, wired, activity, ["random"], **choices)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.h5"
    netx.write(small_network(), path)
    return path


def test_report_of_a_file(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = net.with_name("report.json")
    assert main([str(net), "--samples", "3", "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(written.read_text())
    assert content["verdicts"] == [chip["verdict"] for chip in content["chips"].values()]
    assert [line.split(":")[0] for line in printed.splitlines()[:2]] == ["Loihi 1", "Loihi 2"]
    assert printed.startswith(content["verdicts"][0])
    assert content["network_sha256"] == small_network().digest()
    assert content["activity"]["T"] == 2 and content["activity"]["samples"] == 3
    assert content["energy_microjoules_per_image"]["loihi2"] is None
    assert "Loihi 2: there is no public figure of the energy per operation" in printed
    for source in content["sources"]:
        assert source.split(",")[0] in printed


def test_without_samples_nothing_is_measured(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(net), "--samples", "0", "--chip", "loihi2"]) == 0
    printed = capsys.readouterr().out
    assert "Activity and energy: not measured" in printed and "Loihi 1" not in printed


@pytest.mark.slow
def test_required_chip_decides_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = tmp_path / "small.h5", tmp_path / "large.h5"
    netx.write(small_network(), small)
    netx.write(too_large(), large)
    assert main([str(small), "--samples", "0", "--require", "loihi2"]) == 0
    assert main([str(large), "--samples", "0"]) == 0
    assert main([str(large), "--samples", "0", "--require", "loihi2"]) == 1
    assert "Loihi 2: does not fit one chip: 2 chips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "-1"], "--samples is -1; allowed: 0..10000000"),
        (["--T", "0"], "T is 0; allowed: 1..4096"),
        (["--chip", "loihi1", "--require", "loihi2"], "--require is loihi2; allowed: loihi1, as --chip"),
        (["--samples", "1001"], "samples is 1001; allowed: 1..1000"),
        (["--data", "nowhere"], "data: nowhere does not exist"),
        (["--json", "."], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(
    net: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(net), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and message in printed.err and printed.out == ""


def test_missing_and_damaged_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(b"no HDF5")
    for path in (tmp_path / "missing.h5", damaged):
        assert main([str(path)]) == 2
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1 and path.name in printed.err
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"deploy.fit: {tmp_path}: not a file\n"


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(networks())
def test_text_is_narrow_and_json_is_plain(network: IntegerNetwork) -> None:
    for storage in ("shared", "expanded"):
        report = examined(network, storage=storage)
        lines = list(text.lines(report))
        assert max(map(len, lines)) <= text.WIDTH
        content = json.loads(json.dumps(report.content(), allow_nan=False))
        for fit in report.fits:
            chip = content["chips"][fit.chip.key]
            assert chip["fits"] is fit.fits
            for one in chip["storage"].values():
                for layer in one["layers"]:
                    if layer["per_core"] is not None:
                        assert all(len(values) == layer["cores"] for values in layer["per_core"].values())


def test_real_networks_stay_narrow() -> None:
    report = examined(too_large(), samples=2)
    assert max(map(len, text.lines(report))) <= text.WIDTH
    report = examined(small_network(), samples=2)
    assert max(map(len, text.lines(report))) <= text.WIDTH


def test_verdict_that_fits() -> None:
    """first: 4,096 neurons; second: 6 channels of 14x14 = 1,176; 10 classes: a core of Loihi 2 each.

    Stored per synapse, second has 1,176 neurons · 4 channels · 6 · 6 taps = 169,344 bytes and takes two cores.
    """
    fit = examined(small_network(), chips=["loihi2"]).fits[0]
    assert fit.fits
    assert fit.verdict() == (
        "Loihi 2: fits: 3 of 128 cores (shared); binding limit: neurons in first (1 core); expanded: 4 cores, 1 chip"
    )


def test_verdict_on_parts_that_expose_fewer_cores() -> None:
    network = small_network()
    chip = replace(LOIHI2, cores=3, cores_exposed=2)
    fit = ChipFit(
        chip, "shared", {s: partition(network, wire(network), chip, s) for s in ("shared", "expanded")}, (), {}
    )
    assert fit.fits
    assert fit.verdict().endswith("; too many for parts that expose 2; expanded: 4 cores, 2 chips")


def test_layer_that_fits_on_no_core_is_in_the_verdict() -> None:
    network = small_network()
    chip = replace(LOIHI2, input_axons=1000)
    fit = ChipFit(
        chip, "shared", {s: partition(network, wire(network), chip, s) for s in ("shared", "expanded")}, (), {}
    )
    assert not fit.fits
    assert fit.verdict().startswith(
        "Loihi 2: does not fit: one neuron of readout needs 1,176 input axons, a core has 1,000; the others: "
    )


def test_one_above_the_limit_is_not_100_per_cent() -> None:
    """A neuron of the read-out has 6 · 14 · 14 = 1,176 sources."""
    network = small_network()
    for limit, used in ((1175, ">100%"), (1176, "100%"), (1000, "118%")):
        chip = replace(LOIHI2, input_axons=limit, output_axons=10**6)
        partitions = {s: partition(network, wire(network), chip, s) for s in ("shared", "expanded")}
        printed = list(text._chip_lines(ChipFit(chip, "shared", partitions, (), {})))
        (line,) = (line for line in printed if line.startswith("  readout "))
        assert line.split()[-1] == used
        assert ("none fit" in line) is (limit < 1176)


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(0.5, "50%"), (1, "100%"), (4097 / 4096, ">100%"), (1.00499, ">100%"), (1.005, ">100%"), (1.0051, "101%")],
)
def test_per_cent_of_a_limit(fraction: float, shown: str) -> None:
    assert text.percent(fraction) == shown


def test_bits_of_several_connections_are_explained() -> None:
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (3, 32, 32), outputs=4, kernel=(3, 3), padding=(1, 1))
    weights = [np.full((4, 4, 1, 1), value, np.int8) for value in (127, 3, 100)]
    add = random_neurons(rng, "add", tuple(Connection("first", weight) for weight in weights), (4, 32, 32))
    readout = random_layer(rng, "readout", (4, 32, 32), source="add", outputs=10, readout=True)
    printed = "\n".join(text.lines(examined(IntegerNetwork((3, 32, 32), (first, add, readout)))))
    assert (
        " 8/3 " in printed and "bits: of the weights, every width among the connections onto the layer once" in printed
    )
    assert "bits: of the weights" not in "\n".join(text.lines(examined(small_network())))


def test_long_names_lose_their_middle() -> None:
    assert text._shorten("a" * 20 + "b" * 20) == "a" * 12 + "…" + "b" * 11
