"""The edges of every range, by hand: one-pixel images of 0 and 255, T = 1 to 3, one neuron per row of the table."""

import numpy as np
import pytest

from deploy.lava import build, netx_network, stock
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.network import MEMBRANE_MAX as MAX
from nqlava.network import Connection, IntegerNetwork, Layer
from nqlava.testing.engines import KINDS, assert_same, judged, kernels
from nqlava.trace import Trace, concatenate
from tests.with_lava_dl import needs_lava_dl

IMAGES = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)

# w, b, θ, v(0); then for the pixels 0 and 255 the spikes of 3 steps and v(3), with soft and with hard reset
TABLE = {
    "all zero": ((0, 0, 1, 0), ("000", 0, "000", 0), ("000", 0, "000", 0)),
    "θ = 1, v exactly at θ": ((0, 1, 1, 0), ("111", 0, "111", 0), ("111", 0, "111", 0)),
    "v one below θ, and at it": ((0, 1, 3, 1), ("010", 1, "010", 1), ("010", 1, "010", 1)),
    "v(0) at θ, and taken below it": ((0, -1, 5, 5), ("000", 2, "000", 2), ("000", 2, "000", 2)),
    "v(0) one above θ": ((0, -1, 5, 6), ("100", -2, "100", -2), ("100", -2, "100", -2)),
    "the brightest pixel": ((1, 0, 255, 0), ("000", 0, "000", 0), ("111", 0, "111", 0)),
    "one more than the brightest": ((1, 0, 256, 0), ("000", 0, "000", 0), ("011", 253, "010", 255)),
    "the largest weight": ((127, 0, 32385, 32384), ("000", 32384, "000", 32384), ("111", 32384, "111", 0)),
    "the lowest weight": ((-127, 0, 1, 0), ("000", 0, "000", 0), ("000", -97155, "000", -97155)),
    "u at the largest": ((0, 1, MAX, MAX - 1), ("100", 2, "100", 2), ("100", 2, "100", 2)),
    "u beyond the largest": ((0, MAX, MAX, MAX), ("111", 0, "111", 0), ("111", 0, "111", 0)),
    "a rest after soft reset": ((0, MAX, 1, MAX), ("111", MAX - 1, "111", 0), ("111", MAX - 1, "111", 0)),
    "u at the lowest": ((0, -1, MAX, 1 - MAX), ("000", -MAX, "000", -MAX), ("000", -MAX, "000", -MAX)),
    "u beyond the lowest": ((-127, -MAX, MAX, -MAX), ("000", -MAX, "000", -MAX), ("000", -MAX, "000", -MAX)),
}
# How many of the 3 steps of both pixels clip, in the soft and in the hard layer.
SATURATIONS = {
    "u beyond the largest": (2, 2),  # step 1: 2 · MAX; afterwards u is MAX itself
    "a rest after soft reset": (6, 2),  # MAX − 1 + MAX at every step; after a hard reset MAX itself
    "u at the lowest": (4, 4),  # step 1 reaches −MAX without a clip
    "u beyond the lowest": (6, 6),
}


def network_of(names: list[str], resets: tuple[str, ...] = ("soft", "hard")) -> IntegerNetwork:
    """A layer of neurons per reset, each neuron a row of the table, and a read-out that adds 1 · s of all but row 0."""
    values = np.array([TABLE[name][0] for name in names])
    weight, bias, threshold, v0 = (column.astype(np.int32) for column in values.T)
    connection = Connection("input", weight[:, None].astype(np.int8))
    layers = [Layer(reset, (connection,), bias, threshold, v0, reset) for reset in resets]
    ones = np.ones((1, len(names)), np.int8)
    zero = np.zeros(1, np.int32)
    return IntegerNetwork(
        (1, 1, 1), (*layers, Layer("out", tuple(Connection(reset, ones) for reset in resets), zero, None, zero))
    )


def assert_by_hand(names: list[str], trace: Trace, resets: int = 2) -> None:
    for layer in range(resets):
        fired = trace.layer_spikes(layer)
        for place, name in enumerate(names):
            for sample, row in enumerate(TABLE[name][1:]):
                found = "".join(map(str, fired[sample, :, place].astype(int)))
                assert found == row[2 * layer], (name, layer, sample)
                if trace.membranes is not None:
                    assert trace.membranes[layer][sample, place] == row[2 * layer + 1], (name, layer, sample)
        assert trace.saturation_counts()[layer] == sum(SATURATIONS.get(name, (0, 0))[layer] for name in names)
    sums = sum(np.cumsum(trace.layer_spikes(layer).sum(axis=2), axis=1) for layer in range(resets))
    np.testing.assert_array_equal(trace.readout[:, :, 0], sums)


@pytest.mark.parametrize("kind", KINDS)
def test_engine(kind: str) -> None:
    network = network_of(list(TABLE))
    with kernels(kind) as engine:
        assert_by_hand(list(TABLE), engine(network).run(IMAGES, 3, membranes=True))
        assert_same(judged(network, IMAGES, 1), engine(network).run(IMAGES, 1, membranes=True))


def test_lava() -> None:
    network = network_of(list(TABLE))
    assert_by_hand(list(TABLE), concatenate(list(build.run(network, IMAGES, 3, batch=1, membranes=2))))
    assert_same(judged(network, IMAGES, 1), concatenate(list(build.run(network, IMAGES, 1, membranes=2))))


@pytest.mark.slow
def test_lava_of_stock_parts() -> None:
    """Where nothing saturates within what they can hold."""
    names = [name for name in TABLE if name not in SATURATIONS and name != "u at the largest"]
    trace = concatenate(list(stock.run(network_of(names), IMAGES, 3)))
    assert_by_hand(names, trace)


@pytest.mark.slow
@needs_lava_dl
def test_lava_behind_the_reader_of_lava_dl(tmp_path) -> None:
    network = network_of(list(TABLE), resets=("soft",))
    netx.write(network, tmp_path / "net.h5")
    trace = concatenate(list(netx_network.run(tmp_path / "net.h5", IMAGES, 3, membranes=2)))
    assert_by_hand(list(TABLE), trace, resets=1)


def test_the_largest_exponent_saturates_at_once_in_both_directions() -> None:
    """±127 · 2¹⁵ · 255 is more than 2³⁰."""
    zero, one = np.zeros(2, np.int32), np.ones(2, np.int32)
    connection = Connection("input", np.array([[127], [-127]], np.int8), 15)
    out = Layer("out", (Connection("if", np.eye(2, dtype=np.int8)),), zero, None, zero)
    network = IntegerNetwork((1, 1, 1), (Layer("if", (connection,), zero, one, zero), out))
    trace = Engine(network).run(IMAGES, 2, membranes=True)
    assert trace.membranes[0].tolist() == [[0, 0], [MAX - 1, -MAX]]
    assert trace.saturation_counts() == (4, 0)
    assert_same(judged(network, IMAGES, 2), trace)
