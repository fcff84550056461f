"""Energies by hand, every product visible."""

import numpy as np
import pytest
from hypothesis import given, settings

from deploy.fit import energy
from deploy.fit.activity import measure
from deploy.fit.chips import LOIHI1
from deploy.fit.partition import partition
from deploy.fit.wiring import wire
from export.network import IMAGE, Connection, IntegerNetwork, Layer
from tests.fit.test_activity import one_channel_network
from tests.strategies import networks


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


@settings(max_examples=60, deadline=None)
@given(networks())
def test_ann_needs_at_most_one_mac_per_synapse(network: IntegerNetwork) -> None:
    found = energy.ann_operations(network)
    synapses = sum(one.synapses for several in wire(network).values() for one in several)
    assert found.macs <= synapses
    if not found.additions:
        assert found.macs == synapses
