"""Energies by hand, every product visible."""

import numpy as np
import pytest
from hypothesis import given, settings

from deploy.fit import energy
from deploy.fit.activity import measure
from deploy.fit.chips import LOIHI1
from deploy.fit.partition import partition
from deploy.fit.wiring import wire
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from tests.fit.test_activity import one_channel_network


def test_loihi1_by_hand() -> None:
    """Network and image of test_activity.py: 34 operations by 8 spikes, 40 updates, 36 of them with soft reset.

    Each spike also subtracts a threshold by a synapse: 34 + 8 = 42 operations of 23.6 pJ = 991.2 pJ. Updates: 40 of
    52 pJ = 2,080 pJ at least; at most both compartments of the 36: 76 of 81 pJ = 6,156 pJ. Every layer is on one core,
    so a spike is one message to the next layer and one back to its own: 16 of 1.7 pJ = 27.2 pJ; a hop: 48 or 64 pJ.
    """
    network = one_channel_network()
    image = np.zeros((1, 1, 3, 3), np.uint8)
    image[0, 0, 1, 1] = image[0, 0, 0, 0] = 1
    wired = wire(network)
    seen = measure(network, wired, image, 2)
    found = energy.loihi1(network, seen, partition(network, wired, LOIHI1, "shared"))
    assert [(one.low * 1e6, one.high * 1e6) for one in found] == [
        pytest.approx(pair) for pair in ((991.2, 991.2), (2080, 6156), (3071.2, 7147.2), (27.2, 27.2), (48, 64))
    ]


def test_cmos_by_hand() -> None:
    """The same image twice: 34 additions, 2 image MACs, 40 updates, 8 spikes per image.

    Fixed: 2 · 0.3 + (3 · 40 + 8) · 0.1 = 13.4 pJ; with 34 additions of 0.03 or 0.1 pJ: 14.42 or 16.8 pJ.
    ANN: 9 + 49 + 18 = 76 MACs (49 = 7 · 7 taps of the padded 3x3), 20 neurons with 2 additions each: 76 · 0.3 + 40 ·
    0.1 = 26.8 pJ; in FP32 76 · 4.6 + 40 · 0.9 = 385.6 pJ.
    """
    network = one_channel_network()
    images = np.zeros((2, 1, 3, 3), np.uint8)
    images[:, 0, 1, 1] = images[:, 0, 0, 0] = 1
    found = energy.cmos(network, measure(network, wire(network), images, 2))
    assert [(one.low * 1e6, one.high * 1e6) for one in found] == [
        pytest.approx(pair) for pair in ((14.42, 16.8), (26.8, 26.8), (385.6, 385.6))
    ]


def test_ann_keeps_its_pooling_by_hand() -> None:
    """2x2 pooling of 1x4x4 folded into a 2x2 convolution (kernel 4, stride 2), then into a dense layer of 3.

    Chip: the folded kernel of 4 has one position per axis, (4 − 4) / 2 + 1 = 1, so 16 synapses. ANN: pooling to 2x2
    takes 4 windows · 3 additions = 12, then 4 MACs; the dense layer 3 MACs. 1 + 3 neurons.
    """
    small = np.array([[[[1, 2], [3, 4]]]], np.int8)
    folded = Connection(IMAGE, small.repeat(2, 2).repeat(2, 3), stride=(2, 2))

    def values(count: int) -> np.ndarray:
        return np.ones(count, np.int32)

    network = IntegerNetwork(
        (1, 4, 4),
        (
            Layer("conv", (folded,), bias=values(1), threshold=values(1), v0=values(1)),
            Layer(
                "readout",
                (Connection("conv", np.ones((3, 1), np.int8)),),
                bias=values(3),
                threshold=None,
                v0=values(3),
            ),
        ),
    )
    assert sum(one.synapses for several in wire(network).values() for one in several) == 16 + 3
    assert energy.ann_operations(network) == energy.AnnOperations(macs=4 + 3, additions=12, neurons=4)


def test_ann_adds_shortcuts_of_resnet20_by_hand() -> None:
    """ResNet-20 for 32x32 images, identities in two digits with a factor per channel, 1x1 projections where it strides.

    Taps of a 3x3 with padding 1 along an axis: 94 of 32 positions, 46 of 16, 22 of 8; with stride 2: 47 of 32 to 16
    positions, 23 of 16 to 8.
      first        3 · 16 · 94²         =    424,128
      stage 1  6 · 16 · 16 · 94²        = 13,572,096
      stage 2      16 · 32 · 47²        =  1,131,008
               5 · 32 · 32 · 46²        = 10,833,920
                   16 · 32 · 16²        =    131,072
      stage 3      32 · 64 · 23²        =  1,083,392
               5 · 64 · 64 · 22²        =  9,912,320
                   32 · 64 · 8²         =    131,072
      read-out     64 · 10              =        640     sum: 37,219,648
    Additions: identities 3 · 16 · 32² + 2 · 32 · 16² + 2 · 64 · 8² = 73,728; pooling of 64 maps: 64 · 63 = 4,032.
    """
    rng = np.random.default_rng(0)
    three = {"kernel": (3, 3), "padding": (1, 1)}
    layers = [random_layer(rng, "first", (3, 32, 32), outputs=16, **three)]
    source, shape = "first", (16, 32, 32)
    for channels, stride in ((16, 1), (16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)):
        common = {"outputs": channels, "stride": (stride, stride)}
        name = f"block{len(layers)}"
        layers.append(random_layer(rng, f"{name}.a", shape, source=source, **common, **three))
        inner = (channels, shape[1] // stride, shape[2] // stride)
        branch = random_connection(rng, f"{name}.a", inner, outputs=channels, **three)
        if stride == 1:
            digits = rng.integers(-64, 65, (2, channels, 1, 1, 1)).astype(np.int8)
            shortcut = tuple(Connection(source, digits[n], 7 * n, groups=channels) for n in (0, 1))
        else:
            shortcut = (random_connection(rng, source, shape, kernel=(1, 1), **common),)
        source, shape = f"{name}.b", inner
        layers.append(random_neurons(rng, source, (branch, *shortcut), shape))
    layers.append(random_layer(rng, "readout", shape, source=source, outputs=10, readout=True, window=8))
    found = energy.ann_operations(IntegerNetwork((3, 32, 32), tuple(layers)))
    assert (found.macs, found.additions) == (37_219_648, 73_728 + 4_032)


def test_ann_adds_a_pooled_shortcut_and_one_between_vectors_by_hand() -> None:
    """Layer 'pooled' adds its 2x2 means of 'first' (2x4x4), in two digits, to a strided 1x1 of them.

    Pooling: 2 · 4 windows · 3 additions = 24; the shortcut: 8; the 1x1: 2 · 2 · 4 = 16 MACs. 'vector': dense 8 to 3;
    'sum' adds it to a dense layer of 3 to 3: 9 MACs, 3 additions. 'first', alone: a depthwise 1x1, so 2 · 16 MACs.
    """
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (2, 4, 4), outputs=2, kernel=(1, 1), groups=2)
    wide = np.array([3, 5], np.int8).reshape(2, 1, 1, 1).repeat(2, 2).repeat(2, 3)
    digits = tuple(Connection("first", wide, exponent, stride=(2, 2), groups=2) for exponent in (0, 7))
    strided = Connection("first", np.array([[1, 2], [3, 4]], np.int8).reshape(2, 2, 1, 1), stride=(2, 2))
    pooled = random_neurons(rng, "pooled", (*digits, strided), (2, 2, 2))
    vector = random_layer(rng, "vector", (2, 2, 2), source="pooled", outputs=3)
    diagonal = tuple(Connection("vector", np.diag([1, 2, 3]).astype(np.int8), exponent) for exponent in (0, 7))
    dense = random_connection(rng, "vector", (3,), outputs=3)
    total = random_neurons(rng, "sum", (dense, *diagonal), (3,))
    readout = random_layer(rng, "readout", (3,), source="sum", outputs=2, readout=True)
    found = energy.ann_operations(IntegerNetwork((2, 4, 4), (first, pooled, vector, total, readout)))
    assert (found.macs, found.additions) == (2 * 16 + 16 + 8 * 3 + 9 + 3 * 2, 24 + 8 + 3)


@settings(max_examples=60, deadline=None)
@given(networks())
def test_ann_needs_at_most_one_mac_per_synapse(network: IntegerNetwork) -> None:
    found = energy.ann_operations(network)
    synapses = sum(one.synapses for several in wire(network).values() for one in several)
    assert found.macs <= synapses
    if not found.additions:
        assert found.macs == synapses
