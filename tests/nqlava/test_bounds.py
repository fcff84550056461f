"""No simulated membrane potential exceeds the bound, and the bound is reached."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nqlava.bounds import float32_exact, worst_case
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks


def layer(
    name: str,
    source: str,
    weight: list[list[int]],
    bias: list[int],
    threshold: list[int] | None,
    v0: list[int],
    *,
    reset: str = "soft",
) -> Layer:
    """Dense, with one connection."""
    return neurons(name, [Connection(source, np.array(weight, np.int8))], bias, threshold, v0, reset=reset)


def neurons(
    name: str,
    connections: list[Connection],
    bias: list[int],
    threshold: list[int] | None,
    v0: list[int],
    *,
    reset: str = "soft",
) -> Layer:
    numbers = (np.array(bias, np.int32), None if threshold is None else np.array(threshold, np.int32))
    return Layer(name, tuple(connections), *numbers, np.array(v0, np.int32), reset)


@settings(max_examples=80, deadline=None)
@given(networks(), st.integers(1, 12), st.integers(0, 99))
def test_bound_holds(network: IntegerNetwork, steps: int, seed: int) -> None:
    """The engine sees u behind the clip at 24 bits."""
    ranges = Engine(network).membrane_ranges(images_for(network, 4, seed), steps)
    for (low, high), bound in zip(ranges, worst_case(network, steps), strict=True):
        assert max(-low, high) <= min(bound, MEMBRANE_MAX)


@settings(max_examples=40, deadline=None)
@given(networks(extreme=True), st.integers(1, 12))
def test_within_the_bound_nothing_saturates(network: IntegerNetwork, steps: int) -> None:
    trace = Engine(network).run(images_for(network, 3), steps)
    for bound, saturations in zip(worst_case(network, steps), trace.saturation_counts(), strict=True):
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
            layer("first", IMAGE, [[1], [-1]], [0, -1], [100, 100], [50, 3]),
            layer("out", "first", [[2, -3], [-4, 0]], [5, 0], None, [0, 0]),
        ),
    )
    assert [worst_case(network, steps) for steps in (1, 2, 3)] == [(305, 7), (509, 14), (765, 21)]
    white = np.full((1, 1, 1, 1), 255, np.uint8)
    assert Engine(network).membrane_ranges(white, 3) == ((-765, 615), (-12, 21))


def test_a_spike_may_be_followed_by_a_long_fall() -> None:
    """The reset takes u to 9 although without input it would be at 909, and 29 steps of −90 follow."""
    network = IntegerNetwork(
        (1, 1, 1),
        (
            layer("once", IMAGE, [[0]], [0], [10], [10]),
            layer("falls", "once", [[100]], [-90], [1000], [999]),
            layer("out", "falls", [[1]], [0], None, [0]),
        ),
    )
    (_, (low, high), _) = Engine(network).membrane_ranges(np.zeros((1, 1, 1, 1), np.uint8), 30)
    assert (low, high) == (9 - 29 * 90, 1009)
    assert worst_case(network, 30)[1] == 29 * 90


def test_exhaustive_single_neuron() -> None:
    """Of one neuron with every image and every bias pattern, the bound for one step is exactly the largest |u|."""
    for weight, bias, v0 in [(3, 5, -2), (-3, -5, 2), (7, -900, 0), (-127, 20, 300)]:
        network = IntegerNetwork(
            (1, 1, 1),
            (layer("first", IMAGE, [[weight]], [bias], [40], [v0]), layer("out", "first", [[1]], [0], None, [0])),
        )
        images = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
        low, high = Engine(network).membrane_ranges(images, 1)[0]
        assert worst_case(network, 1)[0] == max(-low, high)


def test_bias_maps_count_with_their_largest_value() -> None:
    bias = np.array([[[1, -7], [3, 2]]], np.int32)
    connection = Connection(IMAGE, np.array([[[[1]]]], np.int8))
    first = Layer("first", (connection,), bias, np.array([9000], np.int32), np.zeros(1, np.int32))
    network = IntegerNetwork((1, 2, 2), (first, layer("out", "first", [[1, 1, 1, 1]], [0], None, [0])))
    assert worst_case(network, 2) == (2 * (255 + 3), 8)


def test_hard_reset_by_hand() -> None:
    """White, up by 255: 305 → 0, 255 → 0, … The other neuron never fires and falls by 256 per step."""
    network = IntegerNetwork(
        (1, 1, 1),
        (
            layer("first", IMAGE, [[1], [-1]], [0, -1], [100, 100], [50, 3], reset="hard"),
            layer("out", "first", [[2, -3]], [5], None, [0]),
        ),
    )
    ranges = Engine(network).membrane_ranges(np.full((1, 1, 1, 1), 255, np.uint8), 3)
    assert ranges[0] == (3 - 3 * 256, 305)
    assert [worst_case(network, steps)[0] for steps in (1, 2, 3)] == [305, 509, 765]


def reachable(
    gains: list[int], bias: int, threshold: int, v0: int, *, reset: str, steps: int, pixel_gain: int = 0
) -> int:
    """Largest |u| of one neuron over all spike trains from its sources, for black and white images, by enumeration."""
    sums = [sum(chosen) for chosen in product(*((0, gain) for gain in gains))]
    largest = 0
    for image in (0, 255):
        membranes = {v0}
        for _ in range(steps):
            potentials = {v + pixel_gain * image + drive + bias for v in membranes for drive in sums}
            largest = max(largest, *(abs(u) for u in potentials))
            membranes = {u if u < threshold else 0 if reset == "hard" else u - threshold for u in potentials}
    return largest


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 3)), min_size=1, max_size=3),
    st.integers(-2, 2),
    st.integers(-20, 20),
    st.integers(1, 40),
    st.integers(-40, 40),
    st.sampled_from(("soft", "hard")),
    st.integers(1, 5),
)
def test_several_connections_against_brute_force(
    synapses: list[tuple[int, int]], pixel_gain: int, bias: int, threshold: int, v0: int, reset: str, steps: int
) -> None:
    """One neuron behind several connections with exponents: the bound holds for every spike train, and the first step
    reaches it. The sources are neurons of one layer, which could fire in any pattern."""
    source = layer(
        "source", IMAGE, [[1]] * len(synapses), [0] * len(synapses), [1] * len(synapses), [0] * len(synapses)
    )
    connections = [Connection(IMAGE, np.array([[pixel_gain]], np.int8))]
    for index, (weight, exponent) in enumerate(synapses):
        row = np.zeros((1, len(synapses)), np.int8)
        row[0, index] = weight
        connections.append(Connection("source", row, exponent))
    target = neurons("target", connections, [bias], [threshold], [v0], reset=reset)
    network = IntegerNetwork((1, 1, 1), (source, target, layer("out", "target", [[1]], [0], None, [0])))
    gains = [weight << exponent for weight, exponent in synapses]
    arguments = {"reset": reset, "pixel_gain": pixel_gain}
    assert worst_case(network, 1)[1] == reachable(gains, bias, threshold, v0, steps=1, **arguments)
    assert worst_case(network, steps)[1] >= reachable(gains, bias, threshold, v0, steps=steps, **arguments)


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_tight_against_brute_force(reset: str) -> None:
    """Of neurons that never fire or always do, the bound is the largest |u| for every number of steps."""
    source = layer("source", IMAGE, [[1], [1]], [0, 0], [1, 1], [0, 0])
    for gains, bias, threshold, v0 in [([3, 2], 1, 40, 5), ([-3, -8], -1, 4, 2), ([7, 16], 1, 1, 0)]:
        rows = [np.array([[gains[0], 0]], np.int8), np.array([[0, gains[1]]], np.int8)]
        target = neurons("target", [Connection("source", row) for row in rows], [bias], [threshold], [v0], reset=reset)
        network = IntegerNetwork((1, 1, 1), (source, target, layer("out", "target", [[1]], [0], None, [0])))
        for steps in range(1, 7):
            expected = reachable(gains, bias, threshold, v0, reset=reset, steps=steps)
            assert worst_case(network, steps)[1] == expected


@pytest.mark.parametrize("source", ["a", IMAGE])
@pytest.mark.parametrize("sign", [-1, 1])
def test_float32_holds_sums_up_to_two_to_the_24(source: str, sign: int) -> None:
    """Per channel: |w| · 2^exponent · the largest input, of all connections, + |b| + 2²³ − 1."""
    connections = [
        Connection(source, np.array([[sign, 0], [2, -3]], np.int8), 1),
        Connection("b", np.array([[1, 0], [-4 * sign, 5]], np.int8), 3),
    ]
    largest = 255 if source == IMAGE else 1
    room = np.array([2**23 + 1 - 2 * largest - 8, 2**23 + 1 - 10 * largest - 72])
    for channel in (0, 1):
        for bias, exact in ((room, True), (room + np.eye(2, dtype=int)[channel], False)):
            found = neurons("c", connections, (sign * bias).tolist(), [1, 1], [0, 0])
            assert float32_exact(found) is exact


@pytest.mark.parametrize(("weight", "exact"), [(2, True), (3, False)])
def test_float32_takes_the_largest_bias_of_a_map(weight: int, exact: bool) -> None:
    connection = Connection("b", np.full((1, 1, 1, 1), weight, np.int8))
    numbers = np.array([[[0, -MEMBRANE_MAX]]], np.int32), np.ones(1, np.int32), np.zeros(1, np.int32)
    assert float32_exact(Layer("a", (connection,), *numbers)) is exact
