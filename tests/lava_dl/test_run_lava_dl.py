"""deploy.run_lava_dl: what it prints, writes and returns, with real files and, where it checks, real Lava."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import run_lava_dl
from deploy.errors import LavaRunError
from deploy.lava_dl.engine import Activity, LifEngine
from deploy.lava_dl.reader import LifLayer, LifNetwork
from tests.lava_dl.networks import write
from tests.with_lava_dl import needs_lava_dl

RNG = np.random.default_rng(3)


def layer(name: str, shape: tuple[int, ...], **synapses: object) -> LifLayer:
    values: dict[str, Any] = {"current_decay": np.array([1024]), "voltage_decay": np.array([128]), "threshold": 40}
    return LifLayer(name, shape, **(values | {"bias": np.zeros(1, np.int64)} | synapses))


NETWORK = LifNetwork(
    (2, 4, 5),
    (
        layer("1 (conv)", (3, 2, 3), weight=2 * RNG.integers(-10, 20, (3, 2, 3, 3))),
        layer("3 (dense)", (4,), weight=2 * RNG.integers(-30, 60, (4, 18)), delay=np.array([[0], [1], [2], [0]])),
    ),
)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    write(NETWORK, tmp_path / "network.net")
    return tmp_path / "network.net"


@pytest.fixture
def spikes(tmp_path: Path) -> Path:
    """(N, C, H, W, T), as SLAYER has them."""
    np.save(tmp_path / "spikes.npy", (RNG.random((3, 2, 4, 5, 6)) < 0.4).astype(np.float32))
    return tmp_path / "spikes.npy"


def run(*arguments: object) -> int:
    return run_lava_dl.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("clock", ["local", "global"])
def test_writes_the_spikes_and_potentials_of_the_last_layer(
    net: Path, spikes: Path, clock: str, tmp_path: Path
) -> None:
    assert run(net, spikes, "--out", tmp_path / "out.npz", "--clock", clock) == 0
    expected = LifEngine(NETWORK).run(np.moveaxis(np.load(spikes), -1, 1).astype(int), clock)  # type: ignore[arg-type]
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["spikes"].shape == (3, 4, 6) and found["spikes"].any()
        np.testing.assert_array_equal(found["spikes"], np.moveaxis(expected.spikes[-1], 1, -1))
        np.testing.assert_array_equal(found["potentials"], np.moveaxis(expected.potentials[-1], 1, -1))


def test_prints_the_layers(net: Path, spikes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(net, spikes) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{net}: 2 layers of lava-dl behind an input (2, 4, 5); 3 samples, T = 6, local clock"
    assert lines[1].split()[:6] == ["layer", "neurons", "iDecay", "vDecay", "threshold", "delay"]
    assert lines[3].split()[:-1] == ["3", "(dense)", "4", "1024", "128", "40", "0..2"]
    assert 0 < float(lines[3].split()[-1]) < 1
    assert lines[4].startswith("engine: ")


def test_an_input_without_time_is_the_same_at_all_steps(net: Path, spikes: Path, tmp_path: Path) -> None:
    still = np.load(spikes)[..., 0]
    np.save(tmp_path / "still.npy", still)
    np.save(tmp_path / "moving.npy", still[..., None].repeat(7, axis=-1))
    assert run(net, tmp_path / "still.npy", "--T", 5, "--out", tmp_path / "a.npz") == 0
    assert run(net, tmp_path / "moving.npy", "--T", 5, "--out", tmp_path / "b.npz") == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_many_samples_are_run_some_at_a_time(
    net: Path, spikes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(net, spikes, "--out", tmp_path / "a.npz") == 0
    monkeypatch.setattr(run_lava_dl, "_VALUES", 300)
    assert run(net, spikes, "--out", tmp_path / "b.npz") == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.slow
@needs_lava_dl
def test_checks_against_lava_dl(net: Path, spikes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(net, spikes, "--check", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        "EXACT: every spike and every membrane potential of all 2 layers of 2 samples equals lava-dl's network in Lava"
    )


@needs_lava_dl
def test_names_the_first_mismatch(
    net: Path, spikes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_path: Path, network: LifNetwork, inputs: np.ndarray, clock: Any, *, graded: bool) -> list[Activity]:
        activity = LifEngine(network, graded=graded).run(inputs, clock)
        activity.potentials[1][2, 4, 3] = 77
        return [activity.samples(slice(0, 1)), activity.samples(slice(1, 3))]

    monkeypatch.setattr("deploy.lava.lava_dl_network.run", wrong)
    assert run(net, spikes, "--check") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "NOT EXACT: 0 spikes and 1 membrane potentials differ; the first (expected: lava-dl in Lava), "
    )
    assert "a membrane potential: sample 2, layer 3 (dense), step 5, neuron (3,): expected 77, got " in last


@needs_lava_dl
def test_says_that_lava_failed(
    net: Path, spikes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> list[Activity]:
        raise LavaRunError("process lif was killed by SIGKILL")

    monkeypatch.setattr("deploy.lava.lava_dl_network.run", fail)
    assert run(net, spikes, "--check") == 3
    assert capsys.readouterr().err == "deploy.run_lava_dl: process lif was killed by SIGKILL\n"


def test_says_what_is_special_about_a_network(tmp_path: Path, spikes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = LifNetwork(
        (3,), (layer("0 (input)", (3,)), layer("1 (dense)", (1,), weight=np.array([[-2, -1, -2]]))), (64.0, 0.0)
    )
    write(network, tmp_path / "special.net")
    np.save(tmp_path / "inputs.npy", np.array([[100, -100, 3]]))
    assert run(tmp_path / "special.net", tmp_path / "inputs.npy", "--T", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(
        "note: inputs are the currents of the input neurons; training scaled images with weight 64"
    )
    assert lines[2].startswith("note: layer 1 (dense): Lava's synapses hold other weights than the file")


@pytest.mark.parametrize(
    ("shape", "values", "options", "message"),
    [
        ((3, 2, 4, 5), 1, [], "inputs are of shape (3, 2, 4, 5), without time; allowed: with --T, or (N, 2, 4, 5, T)"),
        ((3, 2, 4, 6), 1, [], "inputs are of shape (3, 2, 4, 6); allowed: (N, 2, 4, 5, T), or (N, 2, 4, 5) with --T"),
        ((3, 40, 6), 1, [], "inputs are of shape (3, 40, 6); allowed: (N, 2, 4, 5, T), or (N, 2, 4, 5) with --T"),
        ((0, 2, 4, 5, 6), 1, [], "inputs are of shape (0, 2, 4, 5, 6); allowed: (N, 2, 4, 5, T), or"),
        ((3, 2, 4, 5, 6), 1, ["--T", 7], "--T is 7; allowed: 1..6, the steps in the inputs"),
        ((3, 2, 4, 5, 6), 2, [], "inputs are 2..2; allowed: 0..1 (spikes, unless they are graded)"),
        ((3, 2, 4, 5, 6), 2**15, ["--graded"], "inputs are 32768..32768; allowed: -32768..32767 (16 bits)"),
        ((3, 2, 4, 5, 6), 0.5, [], "a value is 0.5; allowed: whole numbers of at most 32 bits"),
    ],
)
def test_refuses_inputs_in_one_line(
    net: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, ...],
    values: float,
    options: list[object],
    message: str,
) -> None:
    np.save(tmp_path / "inputs.npy", np.full(shape, values))
    assert run(net, tmp_path / "inputs.npy", *options, "--out", tmp_path / "out.npz") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deploy.run_lava_dl: {tmp_path / 'inputs.npy'}: {message}")
    assert error.count("\n") == 1 and not (tmp_path / "out.npz").exists()


def test_refuses_options_in_one_line(net: Path, spikes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(net, spikes, "--T", 0) == 2
    assert capsys.readouterr().err == "deploy.run_lava_dl: T is 0; allowed: 1..4096\n"
    assert run(net, spikes, "--out", spikes) == 2
    assert capsys.readouterr().err == f"deploy.run_lava_dl: {spikes} is also an input; choose another output\n"
    assert run(net, spikes, "--out", net.parent) == 2
    assert "cannot be written" in capsys.readouterr().err
    for wrong in (0, net):
        with pytest.raises(SystemExit, match="2"):
            run("--check", wrong, net, spikes)
        assert "allowed: a number of samples, or nothing and then not before a file" in capsys.readouterr().err


def test_says_that_lava_is_missing(
    net: Path, spikes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.compare.backends.importlib.util.find_spec", lambda _name: None)
    assert run(net, spikes, "--check") == 2
    assert capsys.readouterr().err.startswith("deploy.run_lava_dl: Lava is not installed: pip install ")
    assert run(net, spikes) == 0
