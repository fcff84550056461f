"""The engine for lava-dl's networks computes what docs/lava_dl.md says."""

import numpy as np
import pytest
from hypothesis import given, settings

from deploy.lava_dl.engine import CLOCKS, Activity, LifEngine, is_changed, local_clock_conflict, synaptic_weight
from deploy.lava_dl.reader import LifLayer, LifNetwork
from tests.lava_dl.networks import generators, random_inputs, random_network
from tests.lava_dl.oracle import dense_weight, simulate


def neuron(**changes: object) -> LifLayer:
    """One input neuron that does not leak."""
    zero = np.zeros(1, np.int64)
    values = {"current_decay": np.array([4096]), "voltage_decay": zero, "threshold": 10, "bias": zero}
    return LifLayer("0 (input)", **({"shape": (1,)} | values | changes))


def potentials_of(layer: LifLayer, *inputs: int) -> list[int]:
    activity = LifEngine(LifNetwork((1,), (layer,))).run(np.array(inputs).reshape(1, -1, 1))
    return [int(v) for v in activity.potentials[0].reshape(-1)]


def dense(weight: list[list[int]], **changes: object) -> LifNetwork:
    """Memoryless neurons behind a matrix: the potential is 64 times the current."""
    still = np.array([4096])
    values = {"current_decay": still, "voltage_decay": still, "threshold": 2**18 - 1, "bias": np.zeros(1, np.int64)}
    layer = LifLayer("0 (dense)", (len(weight),), weight=np.array(weight), **(values | changes))
    return LifNetwork((len(weight[0]),), (layer,))


def currents(network: LifNetwork, inputs: list[list[int]], clock: str = "local") -> list[list[int]]:
    activity = LifEngine(network).run(np.array([inputs]), clock)
    return (activity.potentials[0][0] // 64).tolist()


@pytest.mark.parametrize(
    ("layer", "inputs", "potentials"),
    [
        (neuron(), (4, 6, 1, 0), [256, 640, 0, 0]),  # 64 · 10 is not above 64 · 10
        (neuron(threshold=10**5, voltage_decay=np.array([2048])), (-1, *(0,) * 7), [-64, -32, -16, -8, -4, -2, -1, 0]),
        (neuron(threshold=10**5, current_decay=np.array([2048])), (1, 0, 0), [64, 96, 112]),
        (neuron(threshold=10**5, bias=np.array([3])), (0, 0), [192, 384]),
        (neuron(threshold=2**18 - 1), (32767,) * 5, [2097088, 4194176, 6291264, 8388352, 2**23 - 1]),
        (neuron(threshold=2**18 - 1, current_decay=np.array([0]), voltage_decay=np.array([4096])), (32767,) * 5,
         [2097088, 4194176, 6291264, 8388352, 8388352 + 2097088 - 2**24]),
    ],
    ids=["strict threshold, hard reset", "decay towards zero", "current decays", "bias", "saturation", "wrap"],
)  # fmt: skip
def test_dynamics(layer: LifLayer, inputs: tuple[int, ...], potentials: list[int]) -> None:
    assert potentials_of(layer, *inputs) == potentials


def test_delays_hold_back_synapses_of_dense_layers() -> None:
    network = dense([[2, 4], [6, 8]], delay=np.array([[0, 1], [2, 0]]))
    assert currents(network, [[1, 1], [0, 0], [0, 0], [0, 0]]) == [[2, 8], [4, 0], [0, 6], [0, 0]]
    assert currents(network, [[1, 1], [0, 0], [0, 0], [0, 0]], "global") == [[0, 0], [2, 8], [4, 0], [0, 6]]


@pytest.mark.parametrize(
    ("weight", "single"),
    [
        ([[-256, 254]], [-256, 254]),
        ([[3, -5]], [3, -5]),
        ([[-1, -2]], [-1, -1]),  # the most negative of a matrix without positive weights shrinks
        ([[-256, 0]], [-128, 0]),
        ([[0, 0]], [0, 0]),
    ],
)
def test_dense_weights_are_those_that_lava_holds(weight: list[list[int]], single: list[int]) -> None:
    network = dense(weight)
    assert [c[0] for c in currents(network, [[1, 0], [0, 1]])] == single
    assert is_changed(network.layers[0]) == (single != weight[0])


def test_clocks_differ_where_a_bias_acts_before_spikes_arrive() -> None:
    (behind,) = dense([[2]], voltage_decay=np.array([0]), bias=np.array([1])).layers
    layers = (neuron(threshold=0), behind)
    engine = LifEngine(LifNetwork((1,), layers))
    inputs = np.array([1, 0, 0]).reshape(1, 3, 1)
    assert engine.run(inputs, "local").potentials[1].reshape(-1).tolist() == [192, 256, 320]
    assert engine.run(inputs, "global").potentials[1].reshape(-1).tolist() == [64, 256, 320]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(generators())
def test_engine_equals_brute_force(rng: np.random.Generator) -> None:
    network = random_network(rng)
    graded = not network.has_input_neurons and bool(rng.random() < 0.3)
    inputs = random_inputs(rng, network, 2, int(rng.integers(1, 9)), graded=graded)
    weights = {
        layer.name: synaptic_weight(layer.weight)
        for layer in network.layers
        if layer.weight is not None and layer.weight.ndim == 2
    }
    clock = CLOCKS[rng.integers(0, 2)] if local_clock_conflict(network) is None else "global"
    activity = LifEngine(network, graded=graded).run(inputs, clock)
    spikes, potentials = simulate(network, inputs, clock, weights)
    for got, expected in zip((*activity.spikes, *activity.potentials), (*spikes, *potentials), strict=True):
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(generators())
def test_dense_weights_of_both_signs_are_kept(rng: np.random.Generator) -> None:
    weight = rng.integers(-128, 128, (3, 4)) * rng.choice([1, 2])
    weight[0, :2] = 1 + rng.integers(0, 100), -1
    expected, exponent = dense_weight(weight)
    got, e = synaptic_weight(weight)
    assert e == exponent
    np.testing.assert_array_equal(got, expected)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(generators())
def test_samples_do_not_interact(rng: np.random.Generator) -> None:
    network = random_network(rng)
    engine = LifEngine(network)
    inputs = random_inputs(rng, network, 3, 5, graded=False)
    together = engine.run(inputs, "global")
    for index in range(3):
        alone: Activity = engine.run(inputs[index : index + 1], "global")
        for one, all_ in zip((*alone.spikes, *alone.potentials), (*together.spikes, *together.potentials), strict=True):
            np.testing.assert_array_equal(one[0], all_[index])


@pytest.mark.parametrize("clock", CLOCKS)
def test_steps_may_be_convolved_in_parts(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 4, 3)
    rng = np.random.default_rng(0)
    layer = neuron(shape=shape, weight=rng.integers(-9, 10, (2, 2, 3, 3)), padding=(1, 1), threshold=20)
    network = LifNetwork(shape, (layer,))
    inputs = rng.integers(0, 2, (2, 5, *shape))
    whole = LifEngine(network).run(inputs, clock)
    assert len({spikes.tobytes() for spikes in whole.spikes[0][0]}) > 2
    for values in (1, 48):  # one step, two steps
        monkeypatch.setattr("deploy.lava_dl.engine._CONVOLVED", values)
        parts = LifEngine(network).run(inputs, clock)
        np.testing.assert_array_equal(parts.spikes[0], whole.spikes[0])
        np.testing.assert_array_equal(parts.potentials[0], whole.potentials[0])


def test_convolutions_wrap_into_24_bits() -> None:
    """2 · 255 · 32767 is below 2²⁴, and in 24 bits −66046."""
    still = np.array([4096])
    neurons = {"current_decay": still, "voltage_decay": still, "threshold": 2**18 - 1}
    layer = neuron(shape=(1, 1, 1), weight=np.full((1, 2, 1, 1), 255), **neurons)
    activity = LifEngine(LifNetwork((2, 1, 1), (layer,)), graded=True).run(np.full((1, 1, 2, 1, 1), 32767))
    assert activity.potentials[0].item() == 64 * -66046


@pytest.mark.parametrize("delay", [None, np.array([0])], ids=["matrix product", "delayed"])
def test_dense_currents_wrap_into_32_bits(delay: np.ndarray | None) -> None:
    """33 · 2²⁶ + 1000 is above 2³¹; 64 times that is 64,000 in 32 bits, which is what the potential becomes."""
    network = dense([[255] * 266 + [1]], delay=delay)
    large = np.array([32767] * 265 + [1425, 112])  # 255 · (265 · 32767 + 1425) + 112
    assert network.layers[0].weight @ large == [33 * 2**26 + 1000]
    activity = LifEngine(network, graded=True).run(np.array([[large, -large]]))
    assert activity.potentials[0].reshape(-1).tolist() == [64_000, -64_000]


@pytest.mark.parametrize(
    ("inputs", "graded", "message"),
    [
        (np.zeros((1, 2, 3)), False, "inputs are of shape (1, 2, 3); allowed: (N, T, 2), every size at least 1"),
        (np.zeros((0, 2, 2)), False, "inputs are of shape (0, 2, 2); allowed: (N, T, 2), every size at least 1"),
        (np.full((1, 1, 2), 2), False, "inputs are 2..2; allowed: 0..1 (spikes, unless they are graded)"),
        (np.full((1, 1, 2), 2**15), True, "inputs are 32768..32768; allowed: -32768..32767 (16 bits)"),
    ],
)
def test_refuses_inputs(inputs: np.ndarray, graded: bool, message: str) -> None:
    with pytest.raises(ValueError, match="inputs") as error:
        LifEngine(dense([[2, 4]]), graded=graded).run(inputs)
    assert str(error.value) == message


def test_the_local_clock_has_no_place_for_spikes_that_outlast_the_reset() -> None:
    biased = neuron(bias=np.array([1]))
    (delayed,) = dense([[2]], delay=np.array(1)).layers
    engine = LifEngine(LifNetwork((1,), (biased, delayed)))
    with pytest.raises(ValueError, match=r"biases layer 0 \(input\) may fire .* delays of layer 0 \(dense\) keep"):
        engine.run(np.zeros((1, 1, 1), int), "local")
    engine.run(np.zeros((1, 1, 1), int), "global")
    LifEngine(LifNetwork((1,), (neuron(bias=np.array([-1])), delayed))).run(np.zeros((1, 1, 1), int), "local")


def test_refuses_another_clock() -> None:
    with pytest.raises(ValueError, match="clock is 'wall'; allowed: local, global"):
        LifEngine(dense([[2]])).run(np.ones((1, 1, 1), int), "wall")  # type: ignore[arg-type]
