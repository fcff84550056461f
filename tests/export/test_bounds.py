"""No simulated membrane potential exceeds the bound, and the bound is reached."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.integer import IntegerEngine
from export.bounds import worst_case
from export.network import MEMBRANE_MAX, IntegerNetwork, Layer
from tests.strategies import images_for, networks


def layer(name: str, weight: list[list[int]], bias: list[int], threshold: list[int] | None, v0: list[int]) -> Layer:
    numbers = (np.array(bias, np.int32), None if threshold is None else np.array(threshold, np.int32))
    return Layer(name, np.array(weight, np.int8), *numbers, np.array(v0, np.int32))


@settings(max_examples=80, deadline=None)
@given(networks(), st.integers(1, 12), st.integers(0, 99))
def test_bound_holds(network: IntegerNetwork, steps: int, seed: int) -> None:
    """The engine sees u behind the clip at 24 bits."""
    ranges = IntegerEngine(network).membrane_ranges(images_for(network, 4, seed), steps)
    for (low, high), bound in zip(ranges, worst_case(network, steps), strict=True):
        assert max(-low, high) <= min(bound, MEMBRANE_MAX)


@settings(max_examples=40, deadline=None)
@given(networks(extreme=True), st.integers(1, 12))
def test_within_the_bound_nothing_saturates(network: IntegerNetwork, steps: int) -> None:
    trace = IntegerEngine(network).run(images_for(network, 3), steps)
    for bound, saturations in zip(worst_case(network, steps), trace.saturations, strict=True):
        assert bound > MEMBRANE_MAX or saturations == 0


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(1, 6))
def test_bound_grows_with_the_steps(network: IntegerNetwork, steps: int) -> None:
    assert all(a <= b for a, b in zip(worst_case(network, steps), worst_case(network, steps + 1), strict=True))


def test_tight_by_hand() -> None:
    """First layer, white image: 50 + 255 = 305 fires, 205 + 255 = 460 fires, 360 + 255 = 615.

    Neuron 1, always silent: 3 − 255 − 1 = −253, then −509, −765. Read-out with a spike of neuron 0 at every step:
    5 + 2 = 7, then 14, 21 (v0 = 0), and −4 per step in the other class.
    """
    network = IntegerNetwork(
        (1, 1, 1),
        (
            layer("first", [[1], [-1]], [0, -1], [100, 100], [50, 3]),
            layer("out", [[2, -3], [-4, 0]], [5, 0], None, [0, 0]),
        ),
    )
    assert [worst_case(network, steps) for steps in (1, 2, 3)] == [(305, 7), (509, 14), (765, 21)]
    white = np.full((1, 1, 1, 1), 255, np.uint8)
    assert IntegerEngine(network).membrane_ranges(white, 3) == ((-765, 615), (-12, 21))


def test_a_spike_may_be_followed_by_a_long_fall() -> None:
    """The reset takes u to 9 although without input it would be at 909, and 29 steps of −90 follow."""
    network = IntegerNetwork(
        (1, 1, 1),
        (
            layer("once", [[0]], [0], [10], [10]),
            layer("falls", [[100]], [-90], [1000], [999]),
            layer("out", [[1]], [0], None, [0]),
        ),
    )
    (_, (low, high), _) = IntegerEngine(network).membrane_ranges(np.zeros((1, 1, 1, 1), np.uint8), 30)
    assert (low, high) == (9 - 29 * 90, 1009)
    assert worst_case(network, 30)[1] == 29 * 90


def test_exhaustive_single_neuron() -> None:
    """Of one neuron with every image and every bias pattern, the bound for one step is exactly the largest |u|."""
    for weight, bias, v0 in [(3, 5, -2), (-3, -5, 2), (7, -900, 0), (-127, 20, 300)]:
        network = IntegerNetwork(
            (1, 1, 1),
            (layer("first", [[weight]], [bias], [40], [v0]), layer("out", [[1]], [0], None, [0])),
        )
        images = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
        low, high = IntegerEngine(network).membrane_ranges(images, 1)[0]
        assert worst_case(network, 1)[0] == max(-low, high)


def test_bias_maps_count_with_their_largest_value() -> None:
    bias = np.array([[[1, -7], [3, 2]]], np.int32)
    first = Layer("first", np.array([[[[1]]]], np.int8), bias, np.array([9000], np.int32), np.zeros(1, np.int32))
    network = IntegerNetwork((1, 2, 2), (first, layer("out", [[1, 1, 1, 1]], [0], None, [0])))
    assert worst_case(network, 2) == (2 * (255 + 3), 8)
