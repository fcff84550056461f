"""The same file, read by lava-dl into synapse and neuron processes, gives the same trace as the integer engine."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import Loihi2UnavailableError
from deploy.integer import IntegerEngine
from deploy.lava import netx_network
from deploy.trace import concatenate, first_difference
from export.network import MEMBRANE_MAX, IntegerNetwork, Layer
from export.netx import NetxError, write
from tests.strategies import images_for, random_layer


def assert_equal(
    network: IntegerNetwork, path: Path, *, count: int, steps: int, white: bool = False, **options: object
) -> None:
    images = np.full((count, *network.input_shape), 255, np.uint8) if white else images_for(network, count)
    write(network, path / "net.net")
    got = concatenate(list(netx_network.run(path / "net.net", images, steps, **options)))
    expected = IntegerEngine(network).run(images, steps)
    assert all(expected.spike_counts())
    assert first_difference(network, expected, got) is None
    assert got.saturations == expected.saturations


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    """Non-square everywhere, with a bias per neuron, groups, a folded pooling and two dense layers."""
    rng = np.random.default_rng(0)
    conv = random_layer(
        rng, "conv", (2, 6, 8), outputs=4, kernel=(3, 2), padding=(1, 0), stride=(1, 1), gain=128, bias_map=True
    )
    grouped = random_layer(rng, "grouped", (4, 6, 7), outputs=6, kernel=(3, 2), padding=(0, 1), stride=(1, 2), groups=2)
    dense = random_layer(rng, "dense", (6, 4, 4), outputs=7, window=2)
    return IntegerNetwork((2, 6, 8), (conv, grouped, dense, random_layer(rng, "out", (7,), outputs=3, readout=True)))


@pytest.mark.parametrize("gap", [0, 2])
def test_equals_the_integer_engine(network: IntegerNetwork, tmp_path: Path, gap: int) -> None:
    assert_equal(network, tmp_path, count=5, steps=4, gap=gap)


def test_stock_convolution(network: IntegerNetwork, tmp_path: Path) -> None:
    assert_equal(network, tmp_path, count=2, steps=3, stock_convolution=True)


def test_dilation_and_saturation(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    conv = random_layer(rng, "conv", (1, 7, 6), outputs=3, kernel=(2, 3), dilation=(3, 2), gain=128, extreme=True)
    readout = random_layer(rng, "out", conv.output_shape((1, 7, 6)), outputs=4, readout=True, extreme=True)
    network = IntegerNetwork((1, 7, 6), (conv, readout))
    assert sum(IntegerEngine(network).run(images_for(network, 4), 5).saturations)
    assert_equal(network, tmp_path, count=4, steps=5)


def constant(layer: Layer, value: int) -> Layer:
    weight = np.full_like(layer.weight, value)
    return Layer(layer.name, weight, np.abs(layer.bias), layer.threshold, layer.v0)


@pytest.mark.parametrize("value", [-127, -1, 0, 1, 127])
def test_weights_that_upstream_would_change(tmp_path: Path, value: int) -> None:
    """Without positive weights lava-dl's choice of the weight exponent loses values or fails."""
    rng = np.random.default_rng(2)
    first = random_layer(rng, "first", (1, 3, 4), outputs=5, gain=128)
    second = constant(random_layer(rng, "second", (5,), outputs=4), value)
    network = IntegerNetwork((1, 3, 4), (first, second, random_layer(rng, "out", (4,), outputs=3, readout=True)))
    images = images_for(network, 2)
    write(network, tmp_path / "net.net")
    got = concatenate(list(netx_network.run(tmp_path / "net.net", images, 4)))
    assert first_difference(network, IntegerEngine(network).run(images, 4), got) is None


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


def test_sums_beyond_32_bits_do_not_wrap(tmp_path: Path) -> None:
    """67,500 weights of 127 on white pixels sum to more than 2³¹."""
    weight = np.full((1, 3, 150, 150), 127, np.int8)
    one, two = np.zeros(1, np.int32), np.zeros(2, np.int32)
    wide = Layer("wide", weight, one, np.array([MEMBRANE_MAX], np.int32), one)
    out = Layer("out", np.full((2, 1), 127, np.int8), two, None, two)
    assert_equal(IntegerNetwork((3, 150, 150), (wide, out)), tmp_path, count=1, steps=2, white=True)
