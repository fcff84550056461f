"""Synapses, fan-in and fan-out: by hand, and equal to what enumerating every synapse gives."""

from collections import Counter

import numpy as np
from hypothesis import given, settings

from deploy.fit.wiring import Wiring, largest_fan_in, largest_fan_out, volume, wire
from nqlava.network import IMAGE, Connection, IntegerNetwork
from nqlava.testing.strategies import networks
from tests.fit.enumeration import synapses


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int8)


def test_padded_convolution_by_hand() -> None:
    """3x3 with padding 1 over 2 channels of 3x3: an axis has 2 + 3 + 2 = 7 taps inside, at positions 0, 1 and 2.

    A corner neuron sees 2 · 2 · 2 = 8 source neurons, the one in the middle 2 · 3 · 3 = 18. Synapses: 4 outputs · 2
    inputs · 7 · 7 = 392, not 4 · 9 neurons · 18 = 648, which would count the padding. The middle source neuron reaches
    all 9 positions in 4 channels, a corner one 2 · 2 positions.
    """
    wiring = Wiring.of(Connection(IMAGE, ones(4, 2, 3, 3), padding=(1, 1)), (2, 3, 3))
    assert wiring.synapses == 392
    np.testing.assert_array_equal(wiring.fan_in(), [[8, 12, 8], [12, 18, 12], [8, 12, 8]])
    np.testing.assert_array_equal(wiring.fan_out(), [[16, 24, 16], [24, 36, 24], [16, 24, 16]])
    assert wiring.weights == 4 * 2 * 9


def test_strided_convolution_by_hand() -> None:
    """Kernel 2, stride 2 over 1x5x5: 2x2 positions of 4 taps, 16 synapses; the last row and column reach nothing."""
    wiring = Wiring.of(Connection(IMAGE, ones(1, 1, 2, 2), stride=(2, 2)), (1, 5, 5))
    assert wiring.synapses == 16
    assert wiring.fan_in().tolist() == [[4, 4], [4, 4]]
    np.testing.assert_array_equal(wiring.fan_out(), np.pad(np.ones((4, 4)), ((0, 1), (0, 1))))


def test_groups_by_hand() -> None:
    """4 channels in 2 groups: each of the 6 outputs sees 2 of them, each input reaches 3: 6 · 2 · 3 · 2 = 72."""
    wiring = Wiring.of(Connection(IMAGE, ones(6, 2, 1, 1), groups=2), (4, 3, 2))
    assert wiring.synapses == 72
    assert set(wiring.fan_in().ravel()) == {2}
    assert set(wiring.fan_out().ravel()) == {3}
    first, end = wiring.channels
    assert list(zip(first.tolist(), end.tolist(), strict=True)) == [(0, 2)] * 3 + [(2, 4)] * 3


def test_folded_pooling_shows_as_a_larger_kernel() -> None:
    """2x2 pooling folded into 3x3 with padding 1 over 1x4x4: kernel 6, stride 2, padding 2, on 2x2 positions.

    Along an axis both positions reach all 4 inputs, so there are 2 · 4 = 8 taps and 8 · 8 = 64 synapses. The same
    convolution behind a real pooling would have 4 · 4 = 16 synapses.
    """
    wiring = Wiring.of(Connection(IMAGE, ones(1, 1, 6, 6), stride=(2, 2), padding=(2, 2)), (1, 4, 4))
    assert wiring.synapses == 64
    assert Wiring.of(Connection(IMAGE, ones(1, 1, 3, 3), padding=(1, 1)), (1, 2, 2)).synapses == 16


def test_a_kernel_row_that_only_ever_meets_padding_uses_no_weight() -> None:
    """Kernel 3 with padding 1 over a single row: only the middle row of the kernel is used."""
    assert Wiring.of(Connection(IMAGE, ones(1, 1, 3, 1), padding=(1, 0)), (1, 1, 1)).weights == 1


@settings(max_examples=80, deadline=None)
@given(networks())
def test_counts_equal_enumeration(network: IntegerNetwork) -> None:
    wired = wire(network)
    out_of: dict[str, Counter[int]] = {name: Counter() for name in network.shape_of}
    for layer in network.layers:
        shape = volume(network.shape_of[layer.name])
        into: Counter[int] = Counter()
        for connection, wiring in zip(layer.connections, wired[layer.name], strict=True):
            found = synapses(connection, network.shape_of[connection.source])
            assert wiring.synapses == len(found)
            assert wiring.weights == len({weight for *_, weight in found})
            targets, sources = Counter(t for _, t, _ in found), Counter(s for s, *_ in found)
            counted = np.broadcast_to(wiring.fan_in(), shape).ravel()
            assert {n: int(k) for n, k in enumerate(counted) if k} == targets
            counted = np.broadcast_to(wiring.fan_out(), volume(network.shape_of[connection.source])).ravel()
            assert {n: int(k) for n, k in enumerate(counted) if k} == sources
            into += targets
            out_of[connection.source] += sources
        assert largest_fan_in(wired[layer.name]) == max(into.values(), default=0)
    for name, shape in network.shape_of.items():
        assert largest_fan_out(name, shape, wired) == max(out_of[name].values(), default=0)


@settings(max_examples=80, deadline=None)
@given(networks(graph=True))
def test_within_means_that_every_pair_is_joined_by_the_other(network: IntegerNetwork) -> None:
    for layer, wired in zip(network.layers, wire(network).values(), strict=True):
        pairs = [{pair[:2] for pair in synapses(c, network.shape_of[c.source])} for c in layer.connections]
        for one, its_pairs, its_source in zip(wired, pairs, layer.connections, strict=True):
            for other, other_pairs, other_source in zip(wired, pairs, layer.connections, strict=True):
                if its_source.source == other_source.source and one.within(other):
                    assert its_pairs <= other_pairs
