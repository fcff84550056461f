"""The reference: small cases by hand, its convolution against PyTorch, and float64 products against int64."""

import hashlib
import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nqlava import reference
from nqlava.network import MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks


def one_neuron(*, reset: str = "soft", w: int = 1, bias: int = 0, threshold: int = 100, v0: int = 0) -> IntegerNetwork:
    """A pixel, a neuron, a read-out that adds 3 for every spike."""
    connection = Connection("input", np.array([[w]], np.int8))
    values = [np.array([n], np.int32) for n in (bias, threshold, v0)]
    zero = np.zeros(1, np.int32)
    read = Layer("out", (Connection("n", np.array([[3]], np.int8)),), zero, None, zero)
    return IntegerNetwork((1, 1, 1), (Layer("n", (connection,), *values, reset=reset), read))


@pytest.mark.parametrize(
    ("reset", "spikes", "left"),
    [("soft", [0, 1, 1, 0, 1], 50), ("hard", [0, 1, 0, 1, 0], 70)],
)
def test_a_pixel_of_70_by_hand(reset: str, spikes: list[int], left: int) -> None:
    """θ = 100. u is 70, 140, 110, 80, 150 with the soft reset and 70, 140, 70, 140, 70 with the hard one."""
    found = reference.run(one_neuron(reset=reset), np.array([[[70]]], np.uint8), 5)
    assert found.spikes[0][:, 0].tolist() == spikes
    assert found.potentials[0].tolist() == [left]
    assert found.readout[:, 0].tolist() == np.cumsum(3 * np.array(spikes)).tolist()
    assert found.saturations == (0, 0)


def test_a_clip_counts_once_where_it_changes_a_value() -> None:
    network = one_neuron(bias=MEMBRANE_MAX, threshold=MEMBRANE_MAX, v0=0)
    found = reference.run(network, np.array([[[0]]], np.uint8), 2)
    assert found.saturations == (0, 0) and found.spikes[0][:, 0].tolist() == [1, 1]
    found = reference.run(network, np.array([[[1]]], np.uint8), 2)
    assert found.saturations == (2, 0) and found.potentials[0].tolist() == [0]


def test_the_lowest_class_wins_of_equal_ones() -> None:
    zero = np.zeros(3, np.int32)
    read = Layer("out", (Connection("input", np.array([[1], [2], [2]], np.int8)),), zero, None, zero)
    assert reference.run(IntegerNetwork((1, 1, 1), (read,)), np.array([[[9]]], np.uint8), 2).classes.tolist() == [1, 1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_convolution_equals_pytorch(data: st.DataObject) -> None:
    draw = data.draw
    groups, each, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kh, kw, sy, sx = (draw(st.integers(1, 3)) for _ in range(4))
    py, px, dy, dx = (draw(st.integers(low, 2)) for low in (0, 0, 1, 1))
    height, width = draw(st.integers(dy * (kh - 1) + 1, 9)), draw(st.integers(dx * (kw - 1) + 1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weight = rng.integers(-127, 128, (groups * each, inputs, kh, kw))
    x = rng.integers(0, 256, (groups * inputs, height, width))
    found = reference.convolve(weight, x, (sy, sx), (py, px), (dy, dx), groups)
    maps = F.conv2d(
        torch.from_numpy(x)[None].double(),
        torch.from_numpy(weight).double(),
        None,
        (sy, sx),
        (py, px),
        (dy, dx),
        groups,
    )
    np.testing.assert_array_equal(found, maps[0].long().numpy())


@settings(max_examples=20, deadline=None)
@given(networks(), st.integers(1, 4))
def test_products_in_float64_equal_those_in_int64(network: IntegerNetwork, steps: int) -> None:
    """So do weights that are kept and weights that are made anew."""
    image = images_for(network, 1)[0]
    fast = reference.run(network, image, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "EXACT_FLOAT64", 0)
        patch.setattr(reference, "KEPT", 0)
        plain = reference.run(network, image, steps)
    for one, two in zip((*fast.spikes, *fast.potentials), (*plain.spikes, *plain.potentials), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(fast.readout, plain.readout)
    assert fast.saturations == plain.saturations


def test_sums_that_float64_cannot_hold_are_formed_in_int64() -> None:
    """255 · 127 · inputs reaches 2⁵³ with 2.8e11 inputs; here the limit is lowered to just above and below."""
    connection = Connection("input", np.ones((2, 3), np.int8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "EXACT_FLOAT64", 255 * 127 * 3)
        assert reference.exact_weights(connection).dtype == np.int64
        patch.setattr(reference, "EXACT_FLOAT64", 255 * 127 * 3 + 1)
        assert reference.exact_weights(connection).dtype == np.float64


def test_bits_by_hand() -> None:
    """Two channels of 2 x 3: in (H, W, C) order, the first in the highest bit, filled up with zeros."""
    spikes = np.zeros((1, 2, 2, 3), np.int64)
    spikes[0, 0, 0, 0] = spikes[0, 1, 0, 1] = spikes[0, 1, 1, 2] = 1  # places 0, 3 and 11
    assert reference.bits(spikes).tolist() == [[0b10010000, 0b00010000]]
    assert reference.bits(np.array([[0, 1, 1]])).tolist() == [[0b01100000]]


def test_digest_by_hand() -> None:
    network = one_neuron()
    found = reference.run(network, np.array([[[70]]], np.uint8), 2)  # spikes 0, 1; read-out 0, 3
    content = bytes.fromhex(network.digest()) + struct.pack("<Q", 5) + bytes([0, 0x80]) + struct.pack("<ii", 0, 3)
    expected = int.from_bytes(hashlib.sha256(content).digest(), "big")
    assert reference.digest(network.digest(), 5, found) == expected
