"""Where the engine differs from lava-dl's network, the difference that explains the others is named."""

import numpy as np
import pytest

from deploy.lava_dl.check import Comparison
from deploy.lava_dl.engine import Activity, LifEngine
from deploy.lava_dl.reader import LifNetwork
from tests.lava_dl.networks import random_inputs, random_network


@pytest.fixture(scope="module")
def network() -> LifNetwork:
    rng = np.random.default_rng(0)
    network = random_network(rng)
    while len(network.layers) < 3 or len(network.layers[1].shape) < 3:
        network = random_network(rng)
    return network


def activity(network: LifNetwork) -> Activity:
    return LifEngine(network).run(random_inputs(np.random.default_rng(1), network, 3, 4, graded=False), "global")


def test_equal_runs_are_exact(network: LifNetwork) -> None:
    comparison = Comparison(network)
    comparison.add(activity(network), activity(network))
    assert comparison.exact and comparison.first is None and comparison.samples == 3


def test_the_first_difference_is_of_the_lowest_sample_and_in_it_the_earliest_layer(network: LifNetwork) -> None:
    comparison = Comparison(network)
    comparison.add(activity(network), activity(network))
    changed = activity(network)
    changed.spikes[0][2, 0] ^= 1  # a later sample
    changed.spikes[2][1, 0] ^= 1  # a later layer
    changed.potentials[1][1, 3, 0, 1, 0] += 5
    comparison.add(activity(network), changed)
    first = comparison.first
    assert first is not None and comparison.first_is == "membrane potential"
    expected = int(activity(network).potentials[1][1, 3, 0, 1, 0])
    assert str(first) == (
        f"sample 4, layer {network.layers[1].name}, step 4, neuron (0, 1, 0): expected {expected}, got {expected + 5}"
    )
    neurons = [int(np.prod(layer.shape)) for layer in network.layers]
    assert comparison.spikes[:3] == [neurons[0], 0, neurons[2]]
    assert comparison.potentials[:3] == [0, 1, 0]
    comparison.add(activity(network), changed)
    assert comparison.first is first and comparison.samples == 9


def test_a_spike_is_named_before_the_potential_that_follows_from_it(network: LifNetwork) -> None:
    changed = activity(network)
    changed.spikes[0][0, 0, ...] ^= 1
    changed.potentials[0][0, 0, ...] += 1
    comparison = Comparison(network)
    comparison.add(activity(network), changed)
    assert comparison.first_is == "spike"
