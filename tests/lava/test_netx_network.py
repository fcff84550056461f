"""The same file, read by lava-dl into synapse and neuron processes, gives the same trace as the integer engine."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from platform import python_version
from types import SimpleNamespace

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import pytest
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.graded.process import GradedVec
from lava.proc.io.sink import RingBuffer as SpikeSink
from lava.proc.io.source import RingBuffer as SpikeSource

from deploy.errors import LavaMissingError, Loihi2UnavailableError
from deploy.lava import netx_network
from deploy.lava.convolution import PyExactConv
from deploy.lava.hardware import to_chip
from deploy.lava.processes import IFNeuron
from nqlava.engine.integer import Engine
from nqlava.network import MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.netx import NetxError, write
from nqlava.testing.networks import images_for, random_layer
from nqlava.trace import concatenate, first_difference
from tests.with_lava_dl import needs_lava_dl


def assert_equal(
    network: IntegerNetwork, path: Path, *, count: int, steps: int, white: bool = False, **options: object
) -> None:
    images = np.full((count, *network.input_shape), 255, np.uint8) if white else images_for(network, count)
    write(network, path / "net.net")
    got = concatenate(list(netx_network.run(path / "net.net", images, steps, **options)))
    expected = Engine(network).run(images, steps)
    assert all(expected.spike_counts())
    assert first_difference(network, expected, got) is None
    assert got.saturation_counts() == expected.saturation_counts()


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    """Non-square everywhere, with a bias per neuron, groups, a folded pooling and two dense layers."""
    rng = np.random.default_rng(0)
    conv = random_layer(rng, "conv", (2, 6, 8), outputs=4, kernel=(3, 2), padding=(1, 0), stride=(1, 1), bias_map=True)
    grouped = random_layer(
        rng, "grouped", (4, 6, 7), source="conv", outputs=6, kernel=(3, 2), padding=(0, 1), stride=(1, 2), groups=2
    )
    dense = random_layer(rng, "dense", (6, 4, 4), source="grouped", outputs=7, window=2)
    out = random_layer(rng, "out", (7,), source="dense", outputs=3, readout=True)
    return IntegerNetwork((2, 6, 8), (conv, grouped, dense, out))


@pytest.mark.slow
@needs_lava_dl
@pytest.mark.parametrize("gap", [0, 2])
def test_equals_the_integer_engine(network: IntegerNetwork, tmp_path: Path, gap: int) -> None:
    assert_equal(network, tmp_path, count=5, steps=4, gap=gap)


@pytest.mark.slow
@needs_lava_dl
def test_stock_convolution(network: IntegerNetwork, tmp_path: Path) -> None:
    assert_equal(network, tmp_path, count=2, steps=3, stock_convolution=True)


@pytest.mark.slow
@needs_lava_dl
def test_dilation_and_saturation(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    conv = random_layer(rng, "conv", (1, 7, 6), outputs=3, kernel=(2, 3), dilation=(3, 2), extreme=True)
    shape = conv.output_shape({"input": (1, 7, 6)})
    readout = random_layer(rng, "out", shape, source="conv", outputs=4, readout=True, extreme=True)
    network = IntegerNetwork((1, 7, 6), (conv, readout))
    assert Engine(network).run(images_for(network, 4), 5).saturations.any()
    assert_equal(network, tmp_path, count=4, steps=5)


def constant(layer: Layer, value: int) -> Layer:
    (connection,) = layer.connections
    same = replace(connection, weight=np.full_like(connection.weight, value))
    return replace(layer, connections=(same,), bias=np.abs(layer.bias))


@pytest.mark.slow
@needs_lava_dl
@pytest.mark.parametrize("value", [-127, -1, 0, 1, 127])
def test_weights_that_upstream_would_change(tmp_path: Path, value: int) -> None:
    """Without positive weights lava-dl's choice of the weight exponent loses values or fails."""
    rng = np.random.default_rng(2)
    first = random_layer(rng, "first", (1, 3, 4), outputs=5)
    second = constant(random_layer(rng, "second", (5,), source="first", outputs=4), value)
    out = random_layer(rng, "out", (4,), source="second", outputs=3, readout=True)
    network = IntegerNetwork((1, 3, 4), (first, second, out))
    images = images_for(network, 2)
    write(network, tmp_path / "net.net")
    got = concatenate(list(netx_network.run(tmp_path / "net.net", images, 4)))
    assert first_difference(network, Engine(network).run(images, 4), got) is None


@needs_lava_dl
def test_refusals(network: IntegerNetwork, tmp_path: Path) -> None:
    images = images_for(network, 1)
    write(network, tmp_path / "net.net")
    with pytest.raises(Loihi2UnavailableError, match="not installed"):
        netx_network.run(tmp_path / "net.net", images, 1, backend="loihi2")
    with pytest.raises(ValueError, match="steps is 0"):
        netx_network.run(tmp_path / "net.net", images, 0)
    (tmp_path / "net.net").write_bytes(b"no HDF5")
    with pytest.raises(NetxError, match="not a readable HDF5 file"):
        netx_network.run(tmp_path / "net.net", images, 1)


@pytest.mark.parametrize("missing", ["lava.lib", "lava.lib.dl"])
@pytest.mark.parametrize(("backend", "named"), [("cpu", "netx"), ("loihi2", "loihi2")])
def test_without_lava_dl(
    network: IntegerNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, named: str, missing: str
) -> None:
    """On newer Pythons this is how it is; here, wherever the test runs."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
    message = (
        f"--backend {named} needs lava-dl, which is not installed; it needs Python 3.10, and this is {python_version()}"
    )
    with pytest.raises(LavaMissingError, match="^" + re.escape(message)):
        netx_network.run(tmp_path / "net.net", images_for(network, 1), 1, backend=backend)


@pytest.mark.slow
@needs_lava_dl
def test_wiring_for_a_chip(network: IntegerNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for Intel's adapters that pass everything on, the network for a chip runs exactly on a CPU."""
    made = []

    def adapter(direction: str) -> Callable[..., SimpleNamespace]:
        def make(*, shape: tuple[int, ...], num_message_bits: int) -> SimpleNamespace:
            made.append((direction, shape, num_message_bits))
            relay = GradedVec(shape=shape, vth=0)
            return SimpleNamespace(inp=relay.a_in, out=relay.s_out)

        return make

    spike = SimpleNamespace(PyToNxAdapter=adapter("in"), NxToPyAdapter=adapter("out"))
    monkeypatch.setitem(sys.modules, "lava.proc.embedded_io", SimpleNamespace(spike=spike))
    monkeypatch.setattr(
        netx_network,
        "run_configuration",
        lambda _backend, models, callbacks: Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models),
    )
    models = {Conv: PyExactConv}
    assert_equal(network, tmp_path, count=1, steps=2, backend="loihi2", process_models=models, callbacks=["profiler"])
    assert made[0] == ("in", (8, 6, 2), 8)
    assert made[1:] == [("out", shape[::-1], bits) for shape, bits in zip(network.shapes, (0, 0, 0, 24), strict=True)]


def test_without_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Loihi2UnavailableError, match=r"^Loihi 2 needs the adapters of lava\.proc\.embedded_io, a part"):
        to_chip(OutPort(shape=(2,)), 8)


@needs_lava_dl
def test_what_the_reader_cannot_build_is_refused(
    network: IntegerNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, grouped, dense, out = network.layers
    (to_grouped,), (to_dense,), (to_out,) = grouped.connections, dense.connections, out.connections
    shortcut = random_layer(np.random.default_rng(1), "out", (6, 4, 4), source="grouped", outputs=3).connections
    for layers, found in (
        ((conv, replace(grouped, reset="hard"), dense, out), "grouped has a hard reset"),
        ((conv, grouped, replace(dense, connections=(replace(to_dense, exponent=3),)), out), "dense has exponent 3"),
        (
            (conv, replace(grouped, connections=(to_grouped, to_grouped)), dense, out),
            "grouped has 2 connections from conv",
        ),
        ((conv, grouped, dense, replace(out, connections=(to_out, *shortcut))), "out is fed by dense, grouped"),
    ):
        other = IntegerNetwork(network.input_shape, layers)
        monkeypatch.setattr(netx_network, "read", lambda _path, other=other: other)
        with pytest.raises(ValueError, match=f"^--backend netx: layer {found}; allowed: one connection per layer"):
            netx_network.run(tmp_path / "net.net", images_for(network, 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_neurons_behind_stock_synapses(reset: str) -> None:
    """IFNeuron behind Lava's Dense: v(0), bias, threshold, reset, and the restart every 5 steps."""
    rng = np.random.default_rng(72)
    spikes = rng.integers(0, 2, (20, 6))
    weight = rng.integers(-127, 128, (4, 6))
    neurons = {
        "threshold": np.array([90, 200, 1, 300]),
        "v0": np.array([5, -7, 300, 0]),
        "bias": np.array([20, 60, -3, 40]),
    }
    source = SpikeSource(data=spikes.T)
    dense = Dense(weights=2 * weight, weight_exp=-1)
    neuron = IFNeuron(shape=(4,), reset=reset, period=5, phase=2, **neurons)
    sink = SpikeSink(shape=(4,), buffer=20)
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(neuron.a_in)
    neuron.s_out.connect(sink.a_in)
    try:
        source.run(RunSteps(20), Loihi2SimCfg(select_tag="fixed_pt"))
        got = sink.data.get().T
    finally:
        source.stop()
    v = neurons["v0"].copy()
    expected = np.zeros((20, 4), int)
    for t in range(1, 21):
        if t >= 2 and (t - 2) % 5 == 0:
            v = neurons["v0"].copy()
        v = v + neurons["bias"] + (weight @ spikes[t - 2] if t > 1 else 0)
        expected[t - 1] = v >= neurons["threshold"]
        v = v - neurons["threshold"] * expected[t - 1] if reset == "soft" else v * (1 - expected[t - 1])
    assert np.array_equal(got, expected)
    assert (expected.sum(axis=0) > 0).all() and (expected.sum(axis=0) < 20).all()


@pytest.mark.slow
@needs_lava_dl
def test_sums_beyond_32_bits_do_not_wrap(tmp_path: Path) -> None:
    """67,500 weights of 127 on white pixels sum to more than 2³¹."""
    weight = np.full((1, 3, 150, 150), 127, np.int8)
    one, two = np.zeros(1, np.int32), np.zeros(2, np.int32)
    wide = Layer("wide", (Connection("input", weight),), one, np.array([MEMBRANE_MAX], np.int32), one)
    out = Layer("out", (Connection("wide", np.full((2, 1), 127, np.int8)),), two, None, two)
    assert_equal(IntegerNetwork((3, 150, 150), (wide, out)), tmp_path, count=1, steps=2, white=True)
