"""A layer gives the same however its samples, steps and rows are cut, and adds identity shortcuts while it fires."""

import numpy as np
import pytest

from nqlava.engine.cpu.layer import CpuLayer
from nqlava.engine.integer import Engine
from nqlava.network import Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for, random_connection, random_layer, random_neurons
from tests.nqlava.engine.test_integer import assert_equals_reference

SHAPE = (6, 4, 12)


def residual_network(hard: bool, factors: list[int]) -> IntegerNetwork:
    """input → first → second, with identity shortcuts from the first to the second, one per factor."""
    rng = np.random.default_rng(3)
    first = random_layer(rng, "first", (2, 4, 12), outputs=6, kernel=(3, 3), padding=(1, 1))
    eye = np.eye(6, dtype=np.int8).reshape(6, 6, 1, 1)
    connections = (
        random_connection(rng, "first", SHAPE, outputs=6, kernel=(3, 3), padding=(1, 1)),
        *(Connection("first", eye * np.int8(factor), exponent) for exponent, factor in enumerate(factors)),
    )
    second = random_neurons(rng, "second", connections, SHAPE, reset="hard" if hard else "soft")
    return IntegerNetwork(
        (2, 4, 12), (first, second, random_layer(rng, "out", SHAPE, source="second", readout=True, outputs=3))
    )


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("factors", [[], [100], [100, -77]])
def test_identity_shortcut(hard: bool, factors: list[int]) -> None:
    network = residual_network(hard, factors)
    prepared = CpuLayer(network.layers[1], network.shape_of)
    assert len(prepared.kernels) == 1  # the shortcut takes no kernel
    assert_equals_reference(network, images_for(network, 5), 4)


@pytest.mark.parametrize("count", [1, 257, 300])
def test_shortcuts_larger_than_a_clip_leaves_room_for(count: int) -> None:
    """1.59 · 10⁹ arrive from a bright image, and every shortcut takes 127 · 2¹⁵ away: the potential still saturates."""
    zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)

    def connection(source: str, weight: int, exponent: int = 0) -> Connection:
        return Connection(source, np.full((1, 1, 1, 1), weight, np.int8), exponent)

    image = (connection("input", 127, 15), connection("input", 127, 14))
    layers = (
        Layer("first", (connection("input", 127),), zero, one, zero),
        Layer("second", (*image, *[connection("first", -127, 15)] * count), zero, one, zero),
        Layer("out", (Connection("second", np.ones((1, 1), np.int8)),), zero, None, zero),
    )
    network = IntegerNetwork((1, 1, 1), layers)
    images = np.full((2, 1, 1, 1), 255, np.uint8)
    images.flags.writeable = False
    assert_equals_reference(network, images, 3)
    assert Engine(network).run(images, 3).saturation_counts()[1] > 0


def test_a_shortcut_alone_is_a_kernel() -> None:
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (2, 4, 4), outputs=3, kernel=(1, 1))
    eye = Connection("first", np.full((3, 1, 1, 1), 5, np.int8), groups=3)
    second = random_neurons(rng, "second", (eye,), (3, 4, 4))
    last = random_layer(rng, "out", (3, 4, 4), source="second", readout=True, outputs=2)
    network = IntegerNetwork((2, 4, 4), (first, second, last))
    assert len(CpuLayer(second, network.shape_of).kernels) == 1
    assert_equals_reference(network, images_for(network, 3), 3)


@pytest.mark.parametrize("segment", [1, 12, 13, 24, 10_000])
def test_segments_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, segment: int) -> None:
    monkeypatch.setattr("nqlava.engine.cpu.layer.SEGMENT", segment)
    network = residual_network(False, [90])
    prepared = CpuLayer(network.layers[1], network.shape_of)
    assert prepared._segments * prepared._length == 72
    assert_equals_reference(network, images_for(network, 2), 3)
