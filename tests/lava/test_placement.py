"""Layers are spread over processes evenly, and how they are spread changes nothing."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.lava import build
from deploy.lava.placement import _cost, place
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from nqlava.trace import concatenate


@given(networks(), st.integers(1, 8), st.integers(1, 64))
def test_no_other_grouping_has_less_work_in_its_largest_group(
    network: IntegerNetwork, processes: int, batch: int
) -> None:
    parts = place(network, processes, batch)
    costs = [_cost(layer, network, batch) for layer in network.layers]
    assert [layer for part in parts for layer in range(*part.indices(len(costs)))] == list(range(len(costs)))
    assert len(parts) <= processes
    cuts = itertools.combinations(range(1, len(costs)), min(processes, len(costs)) - 1)
    best = min(max(sum(costs[a:b]) for a, b in itertools.pairwise([0, *cut, len(costs)])) for cut in cuts)
    assert max(sum(costs[part]) for part in parts) == best


def test_work_is_counted_before_pooling_was_folded() -> None:
    rng = np.random.default_rng(0)
    folded = random_layer(rng, "a", (3, 8, 8), outputs=4, kernel=(3, 3), window=2)
    network = IntegerNetwork(
        (3, 8, 8), (folded, random_layer(rng, "out", (4, 2, 2), source="a", outputs=2, readout=True))
    )
    assert _cost(folded, network, 5) == 5 * (4 * 3 * 9 * 4 + 1750 * 16) + 120 * 4 * 3 * 9


def long_network() -> IntegerNetwork:
    """Six layers, with connections that skip places inside and between groups."""
    rng = np.random.default_rng(0)
    shape, names = (3, 4, 4), ["input"]
    layers = []
    for index in range(5):
        sources = {names[-1], names[max(0, len(names) - 3)]}
        connections = tuple(
            random_connection(rng, s, (2, 4, 4) if s == "input" else shape, outputs=3, kernel=(3, 3), padding=(1, 1))
            for s in sorted(sources)
        )
        layers.append(random_neurons(rng, f"layer{index}", connections, shape))
        names.append(f"layer{index}")
    return IntegerNetwork(
        (2, 4, 4), (*layers, random_layer(rng, "out", shape, source="layer4", outputs=4, readout=True))
    )


@pytest.mark.parametrize("processes", [1, 2, 3, 6, 99])
def test_results_are_the_same_over_any_number_of_processes(processes: int) -> None:
    network = long_network()
    images = images_for(network, 7)
    expected = Engine(network).run(images, 3)
    got = concatenate(list(build.run(network, images, 3, batch=2, gap=1, processes=processes)))
    for one, two in zip(expected.spikes, got.spikes, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(expected.readout, got.readout)
    assert sum(expected.spike_counts()) > 100


def test_at_least_one_process() -> None:
    network = long_network()
    with pytest.raises(ValueError, match=r"processes is 0; allowed: at least 1"):
        build.run(network, images_for(network, 1), 1, processes=0)
