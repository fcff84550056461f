"""deploy.run_lava: what it prints, writes and returns, from real files through real Lava."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import deploy.compare.compare
from deploy import run_lava
from export.to_netx import main as export_main
from nqlava import netx
from nqlava.network import Connection, IntegerNetwork, Layer
from nqlava.trace import Trace
from tests.with_lava_dl import needs_lava_dl

INFO = {"T": 2, "calibration_images": 1000, "share": 0.5}


def small_network(info: dict[str, str | int | float]) -> IntegerNetwork:
    """A strided convolution and a read-out for the images of the sample."""
    random = np.random.default_rng(0)
    convolution = Layer(
        name="first",
        connections=(Connection("input", random.integers(-20, 21, (4, 3, 4, 4)).astype(np.int8), stride=(4, 4)),),
        bias=np.zeros(4, np.int32),
        threshold=np.array([3000, 4000, 5000, 6000], np.int32),
        v0=np.array([1500, 2000, 2500, 3000], np.int32),
    )
    readout = Layer(
        name="readout",
        connections=(Connection("first", random.integers(-127, 128, (10, 4 * 8 * 8)).astype(np.int8)),),
        bias=np.arange(10, dtype=np.int32),
        threshold=None,
        v0=np.zeros(10, np.int32),
    )
    return IntegerNetwork((3, 32, 32), (convolution, readout), info)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.h5"
    netx.write(small_network(INFO), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", pytest.param("netx", marks=needs_lava_dl), "stock"])
def test_exact_run_reports_and_returns_0(net: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = net.with_name("new folder") / "result.json"
    options = ["--T", "2", "--samples", "5", "--batch", "2", "--reference-samples", "3", "--backend", backend]
    assert run_lava.main([str(net), *options, "--json", str(result)]) == 0
    line = "EXACT: Lava = engine in every spike and read-out of 5 images, reference = engine = Lava on 3 of them"
    assert capsys.readouterr().out.splitlines()[-1] == line
    content = json.loads(result.read_text())
    assert content["exact"] and content["mismatches"] == {"first": 0, "readout": 0}
    assert content["reference_samples"] == 3 and content["first_disagreement_with_reference"] is None
    assert content["accuracy_lava"] == content["accuracy_integer"] and len(content["accuracy_lava"]) == 2
    assert 0.01 < content["spikes_per_neuron_and_step"]["first"] < 0.99, "a silent or saturated layer compares nothing"
    assert content["float"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "judged"), [("1", 1), ("4", 4), ("all", 6), ("99", 6)])
def test_the_reference_judges_as_many_images_as_asked_for(
    net: Path, asked: str, judged: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_lava.main([str(net), "--samples", "6", "--batch", "4", "--reference-samples", asked]) == 0
    assert f"reference = engine = Lava on {judged} of them" in capsys.readouterr().out


def test_first_mismatch_is_named(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = deploy.compare.compare.traces

    def with_one_flipped_spike(*arguments: object, **named: object) -> Iterator[Trace]:
        for trace in real(*arguments, **named):  # type: ignore[arg-type]
            spikes = trace.spikes[0].copy()
            spikes[3, 1, 10] ^= 0b00100000  # neuron 82: y = 2, x = 4, channel 2, at step 2
            yield replace(trace, spikes=(spikes,))

    monkeypatch.setattr(deploy.compare.compare, "traces", with_one_flipped_spike)
    assert run_lava.main([str(net), "--samples", "5", "--reference-samples", "2"]) == 1
    printed = capsys.readouterr().out
    assert "NOT EXACT: Lava and the engine differ in 1 value; the first: sample 3, layer first, step 2, " in printed
    assert "neuron (2, 2, 4): " in printed


def test_a_network_without_info_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netx.write(small_network({}), tmp_path / "net.h5")
    assert run_lava.main([str(tmp_path / "net.h5"), "--samples", "3"]) == 0
    printed = capsys.readouterr().out
    assert "T = 4" in printed
    assert "not compared with the float SNN: " in printed and "was not exported from a model file" in printed


def test_an_input_is_not_overwritten(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = net.read_bytes()
    assert_refused(run_lava.main, [str(net), "--json", str(net)], ["is also an input"], capsys)
    assert net.read_bytes() == before


def test_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netx.write(small_network({"classes": json.dumps(list("abcdefghij"))}), tmp_path / "net.h5")
    assert_refused(run_lava.main, [str(tmp_path / "net.h5")], ["classes are airplane, "], capsys)


def truncated(net: Path) -> None:
    net.write_bytes(net.read_bytes()[: net.stat().st_size // 2])


def edited(key: str, value: np.ndarray) -> Callable[[Path], None]:
    """Replaces a dataset of the file."""

    def edit(net: Path) -> None:
        with h5py.File(net, "r+") as file:
            del file[key]
            file[key] = value

    return edit


def swapped(net: Path) -> None:
    with h5py.File(net, "r+") as file:
        file.move("layer/1", "layer/x")
        file.move("layer/3", "layer/1")
        file.move("layer/x", "layer/3")


def not_finite(net: Path) -> None:
    with h5py.File(net, "r+") as file:
        file["info"].attrs["share"] = np.nan


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (Path.unlink, "no such file"),
        (truncated, "not a readable HDF5 file"),
        (swapped, "layer"),
        (edited("layer/1/weight", np.ones((4, 3, 4, 4), np.float32)), "weight"),
        (edited("layer/1/neuron/vThMant", np.array([3000, 0, 5000, 6000], np.int32)), "0"),
        (not_finite, "share"),
    ],
    ids=["missing", "truncated", "layer order", "float weights", "threshold 0", "NaN"],
)
def test_bad_file_gives_one_line_and_2(
    net: Path, spoil: Callable[[Path], None], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(net)
    assert_refused(run_lava.main, [str(net), "--samples", "3"], [str(net), named], capsys)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--T", "0", "T is 0; allowed: 1..4096"),
        ("--samples", "0", "--samples is 0"),
        ("--samples", "1001", "samples is 1001; allowed: 1..1000"),
        ("--batch", "0", "--batch is 0"),
        ("--workers", "0", "--workers is 0; allowed: 1..1024"),
        ("--tolerance", "-1", "--tolerance is -1.0"),
        ("--data", "no/such/folder", "no/such/folder does not exist"),
        ("--json", ".", ". cannot be written"),
        ("--json", "/proc/x.json", "/proc/x.json cannot be written"),
        pytest.param("--backend", "loihi2", "Loihi extension of Lava is not installed", marks=needs_lava_dl),
        ("--model", "no/such/model.pt", "no/such/model.pt: no such file"),
    ],
)
def test_bad_option_gives_one_line_and_2(
    net: Path, option: str, value: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(run_lava.main, [str(net), option, value], [named], capsys)


@pytest.mark.slow
def test_the_verdict_is_out_before_the_page(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("no page")

    monkeypatch.setattr("deploy.report.write.make", fail)
    result = net.parent / "result.json"
    assert run_lava.main([str(net), "--samples", "3", "--report", "page.html", "--json", str(result)]) == 70
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].startswith("EXACT: Lava = engine") and "RuntimeError: no page" in output.err
    assert json.loads(result.read_text())["exact"] is True


@pytest.mark.slow
def test_a_missing_lava_is_named(net: Path) -> None:
    """Also where folders are left of one that was uninstalled."""
    (net.parent / "site" / "lava" / "magma" / "core" / "process").mkdir(parents=True)
    code = f"""
import importlib.machinery, sys
from deploy import run_lava
finder = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, path=None, target=None: finder(
    name, [{str(net.parent / "site")!r}] if name == "lava" else path, target
)
sys.exit(run_lava.main([{str(net)!r}, "--samples", "2"]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"deploy.run_lava: Lava is not installed: pip install .* \(docs/install.md\)\n", done.stderr)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("bomb-went-off",)


def test_pickle_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({"format": "nq-lava model", "state": Bomb()}, "model.pt")
    assert_refused(export_main, ["model.pt", "net.h5"], ["model.pt: not a model file"], capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt"]


def assert_refused(
    main: Callable[[list[str]], int], arguments: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    for text in named:
        assert text in printed.err


def alive(group: int) -> list[str]:
    """Processes of a process group, zombies left out: /proc/PID/stat has state, parent and group behind the name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = path.read_text().rsplit(")", 1)[1].split()[:3]
            if state != "Z" and int(process_group) == group:
                found.append(path.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("after", [2.5, 4.0], ids=["starting", "running"])
def test_interrupt_ends_everything(net: Path, after: float) -> None:
    command = [sys.executable, "-m", "deploy.run_lava", str(net), "--T", "4096", "--samples", "1000", "--batch", "1"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(after)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=15)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "deploy.run_lava: interrupted"
    deadline = time.monotonic() + 5
    while alive(process.pid):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("more", "runs", "steps"),
    [
        ([], "1 Lava network on ", "Lava steps: 6 per network, 2 batches of 4 with T = 2, and 2 to end"),
        (["--workers", "2"], "2 Lava networks on ", "Lava steps: 4 per network, 1 batch of 3 with T = 2, and 2 to end"),
        (
            ["--backend", "netx"],
            "1 Lava network on ",
            "Lava steps: 12 per network, 5 batches of 1 with T = 2, and 2 to end",
        ),
        (["--backend", "stock"], "1 Lava network on ", None),
        (["--scheduler", "tcp://10.0.0.1:8786"], "parts of the images on the Dask cluster tcp://10.0.0.1:8786", None),
    ],
)
def test_dry_run_tells_the_run_and_runs_nothing(
    net: Path, more: list[str], runs: str, steps: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--samples", "5", "--batch", "4", "--dry-run", "--json", str(net.with_name("result.json"))]
    assert run_lava.main([str(net), *options, *more]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].startswith(f"runs: {runs}") and printed[-1] == "dry run: nothing was run"
    assert [line for line in printed if line.startswith("Lava steps")] == ([steps] if steps else [])
    assert list(net.parent.iterdir()) == [net]


def test_dry_run_finds_what_the_backend_cannot_run(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lava.main([str(net), "--backend", "loihi2", "--dry-run"]) == 2
    assert "Loihi 2 is not available" in capsys.readouterr().err


def test_workers_and_a_scheduler_exclude_each_other(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_lava.main([str(net), "--workers", "2", "--scheduler", "tcp://127.0.0.1:8786"])
    assert caught.value.code == 2
    assert "deploy.run_lava: --scheduler: not allowed with argument --workers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_imports_no_signal_processing(net: Path) -> None:
    """Half a second, which Lava's Conv process brings, also where Lava looks through the package for models."""
    code = "import sys\nfrom deploy.run_lava import main\nmain(sys.argv[1:])\nprint('scipy.signal' in sys.modules)"
    command = [sys.executable, "-c", code, str(net), "--T", "2", "--samples", "2"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "False"


@pytest.mark.slow
@pytest.mark.parametrize("sign", [0, -1])
@pytest.mark.parametrize("changed", [0, 1], ids=["convolution", "read-out"])
def test_stock_synapses_take_weights_that_are_all_zero_or_negative(
    tmp_path: Path, changed: int, sign: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lava's own Dense and Conv have trouble with either where they choose the bits of the weights themselves."""
    network = small_network(INFO)
    layers = list(network.layers)
    connection = layers[changed].connections[0]
    weight = (sign * np.abs(connection.weight)).astype(np.int8)
    layers[changed] = replace(layers[changed], connections=(replace(connection, weight=weight),))
    path = tmp_path / "net.h5"
    netx.write(replace(network, layers=tuple(layers)), path)
    assert run_lava.main([str(path), "--samples", "2", "--backend", "netx"]) == 0
    assert "EXACT: Lava = engine" in capsys.readouterr().out
