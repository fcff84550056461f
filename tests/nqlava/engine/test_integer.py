"""The integer engine equals the brute-force simulation, on random networks and at the edges of every range."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nqlava.engine.integer import Engine
from nqlava.engine.layer import PreparedLayer, exact_arithmetic
from nqlava.network import MEMBRANE_MAX, Connection, IntegerNetwork, Layer, Reset
from nqlava.reference import synaptic_sum
from nqlava.testing.engines import KINDS, assert_same, judged, kernels
from nqlava.testing.networks import images_for, random_layer
from nqlava.testing.strategies import networks


def assert_equals_reference(network: IntegerNetwork, images: np.ndarray, steps: int, kind: str = "fastest") -> None:
    with kernels(kind) as engine:
        trace = engine(network).run(images, steps, membranes=True)
    assert_same(judged(network, images, steps), trace)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=int(os.environ.get("EXAMPLES", "25")), deadline=None)
@given(networks(), st.integers(1, 10), st.integers(0, 4))
def test_engine_equals_brute_force(kind: str, network: IntegerNetwork, steps: int, count: int) -> None:
    assert_equals_reference(network, images_for(network, count), steps, kind)


@pytest.mark.parametrize("kind", ["fastest", "pytorch"])
@settings(max_examples=int(os.environ.get("EXAMPLES", "20")), deadline=None)
@given(networks(extreme=True), st.integers(1, 10))
def test_saturating_networks_equal_brute_force(kind: str, network: IntegerNetwork, steps: int) -> None:
    assert_equals_reference(network, images_for(network, 2), steps, kind)


def test_threads_are_as_many_as_before() -> None:
    network = IntegerNetwork((1, 1, 1), (dense([[1]], 0, None, 0, "readout"),))
    with kernels("three threads") as engine:
        engine(network).scores(np.zeros((9, 1, 1, 1), np.uint8), 1)
        assert torch.get_num_threads() == 3


def test_engines_say_what_they_run_on() -> None:
    network = IntegerNetwork((1, 1, 1), (dense([[1]], 0, None, 0, "readout"),))
    assert Engine(network).description.startswith("cpu, ")


def test_random_networks_spike_and_saturate() -> None:
    """The property above would say little about silent networks."""
    seen: list[tuple[int, int]] = []

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(networks(extreme=True))
    def collect(network: IntegerNetwork) -> None:
        trace = Engine(network).run(images_for(network, 3), 4)
        seen.append((sum(trace.spike_counts()), trace.saturations.sum()))

    collect()
    assert sum(spikes > 0 for spikes, _ in seen) > 10
    assert sum(saturations > 0 for _, saturations in seen) > 10


def dense(
    weight: list[list[int]],
    bias: int,
    threshold: int | None,
    v0: int,
    name: str,
    source: str = "input",
    reset: Reset = "soft",
) -> Layer:
    outputs = len(weight)

    def fill(value: int) -> np.ndarray:
        return np.full(outputs, value, np.int32)

    connection = Connection(source, np.array(weight, np.int8))
    return Layer(name, (connection,), fill(bias), None if threshold is None else fill(threshold), fill(v0), reset)


def test_one_neuron_by_hand() -> None:
    """θ = 5, v(0) = 2, I = 3 per step: 5→fire→0, 3, 6→fire→1, 4, 7→fire→2; the read-out adds 2·s − 1."""
    network = IntegerNetwork((1, 1, 1), (dense([[3]], 0, 5, 2, "if"), dense([[2]], -1, None, 0, "readout", "if")))
    trace = Engine(network).run(np.ones((1, 1, 1, 1), np.uint8), 5)
    assert trace.layer_spikes(0).ravel().tolist() == [True, False, True, False, True]
    assert trace.readout.ravel().tolist() == [1, 0, 1, 0, 1]
    assert trace.saturation_counts() == (0, 0)
    assert trace.spike_counts() == (3,)


@pytest.mark.parametrize(
    ("v0", "bias", "expected", "saturations"),
    [
        (MEMBRANE_MAX - 1, 1, MEMBRANE_MAX, 0),
        (MEMBRANE_MAX, 1, MEMBRANE_MAX, 1),
        (1 - MEMBRANE_MAX, -1, -MEMBRANE_MAX, 0),
        (-MEMBRANE_MAX, -1, -MEMBRANE_MAX, 1),
    ],
)
def test_clip_counts_only_changes(v0: int, bias: int, expected: int, saturations: int) -> None:
    network = IntegerNetwork((1, 1, 1), (dense([[0]], bias, None, v0, "readout"),))
    trace = Engine(network).run(np.zeros((1, 1, 1, 1), np.uint8), 1)
    assert trace.readout.item() == expected
    assert trace.saturations == (saturations,)


def test_equal_scores_give_the_lowest_class() -> None:
    network = IntegerNetwork((1, 1, 1), (dense([[1], [2], [2]], 0, None, 0, "readout"),))
    assert Engine(network).classify(np.ones((2, 1, 1, 1), np.uint8), 3).tolist() == [[1] * 3] * 2


@pytest.mark.parametrize(("inputs", "float_type"), [(517, torch.float32), (519, torch.float64)])
def test_sums_around_the_float32_limit_are_exact(inputs: int, float_type: torch.dtype) -> None:
    """517 · 127 · 255 < 2²⁴ < 519 · 127 · 255; every weight extreme, one input odd, so that rounding would show."""
    layer = dense([[127] * inputs, [-127] * inputs], 0, None, 0, "readout")
    prepared = PreparedLayer(layer, {"input": (inputs,)}, torch.device("cpu"))
    x = np.full((1, inputs), 255, np.uint8)
    x[0, -1] = 254
    with exact_arithmetic():
        current = prepared.current({"input": torch.as_tensor(x)})
    np.testing.assert_array_equal(current[0].numpy(), synaptic_sum(layer.connections[0], x[0].astype(np.int64)))
    assert prepared._synapses[0]._weight.dtype is float_type


@pytest.mark.parametrize("kind", ["fastest", "float32", "pytorch"])
def test_large_sums_use_64_bits(kind: str) -> None:
    inputs = 70_000
    layer = dense([[127] * inputs], MEMBRANE_MAX, None, MEMBRANE_MAX, "readout")
    network = IntegerNetwork((1, 70, 1000), (layer,))
    with kernels(kind) as engine:
        trace = engine(network).run(np.full((1, 1, 70, 1000), 255, np.uint8), 2)
    assert trace.readout.ravel().tolist() == [MEMBRANE_MAX] * 2
    assert trace.saturations == (2,)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("last", "dtype"), [(1, torch.int32), (2, torch.int64)])
def test_32_bits_serve_up_to_their_largest_number(last: int, dtype: torch.dtype, sign: int) -> None:
    """512 · 127 · 2¹⁵ + 1 from the spikes, and v and b of 2²³ − 1 each: 2³¹ − 1."""
    weight = np.zeros((2, 1, 512), np.int8)
    weight[0], weight[1, 0, 0] = sign * 127, sign * last
    numbers = np.full(1, sign * MEMBRANE_MAX, np.int32)
    connections = (Connection("a", weight[0], 15), Connection("a", weight[1]))
    prepared = PreparedLayer(Layer("b", connections, numbers, None, numbers), {"a": (512,)}, torch.device("cpu"))
    assert prepared.dtype is dtype
    with exact_arithmetic():
        v = prepared.initial(1) + prepared.current({"a": torch.ones(1, 512, dtype=torch.bool)})
    assert v.item() == sign * (2**31 - 2 + last)


def test_batches_and_blocks_of_steps_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    conv = random_layer(rng, "conv", (2, 6, 5), outputs=3, kernel=(3, 3), padding=(1, 1))
    network = IntegerNetwork(
        (2, 6, 5), (conv, random_layer(rng, "readout", (3, 6, 5), source="conv", outputs=4, readout=True))
    )
    images = images_for(network, 7)
    whole = Engine(network).run(images, 9)
    monkeypatch.setattr("nqlava.engine.cpu.network._SAMPLES", 3)
    monkeypatch.setattr("nqlava.engine.cpu.network._STEPS", 2)
    monkeypatch.setattr("nqlava.engine.cpu.layer._CACHED_BYTES", 500)
    parts = Engine(network).run(images, 9)
    np.testing.assert_array_equal(whole.spikes[0], parts.spikes[0])
    np.testing.assert_array_equal(whole.readout, parts.readout)
    np.testing.assert_array_equal(Engine(network).scores(images, 9), whole.readout)


def test_runs_do_not_influence_each_other() -> None:
    """A single sample is where v(0) might be handed out instead of copied."""
    network = IntegerNetwork(
        (1, 1, 1), (dense([[3], [2]], 0, 5, 2, "if"), dense([[1, 2]], 4, None, 7, "readout", "if"))
    )
    engine = Engine(network)
    first, second = (engine.run(np.ones((1, 1, 1, 1), np.uint8), 3) for _ in range(2))
    np.testing.assert_array_equal(first.readout, second.readout)
    np.testing.assert_array_equal(first.spikes[0], second.spikes[0])


@pytest.mark.parametrize(
    ("images", "steps", "message"),
    [
        (
            np.zeros((1, 1, 1, 1), np.int32),
            1,
            r"images are int32 .* allowed: uint8 of shape \(N, 1, 1, 1\)",
        ),
        (np.zeros((1, 1, 2, 1), np.uint8), 1, r"of shape \(1, 1, 2, 1\)"),
        (np.zeros((1, 1, 1, 1), np.uint8), 0, "steps is 0; allowed: at least 1"),
    ],
)
def test_bad_arguments(images: np.ndarray, steps: int, message: str) -> None:
    engine = Engine(IntegerNetwork((1, 1, 1), (dense([[1]], 0, None, 0, "readout"),)))
    with pytest.raises(ValueError, match=message):
        engine.run(images, steps)
