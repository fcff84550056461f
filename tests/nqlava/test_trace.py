"""Traces keep every spike, and differences are found and described."""

import dataclasses

import numpy as np
import pytest

from nqlava.network import IntegerNetwork
from nqlava.testing.networks import random_layer
from nqlava.trace import Mismatch, Trace, concatenate, count_differences, first_difference, pack

SHAPES = ((2, 3, 5), (7,))


@pytest.fixture
def network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    conv = random_layer(rng, "conv", (1, 5, 7), outputs=2, kernel=(3, 3))
    dense = random_layer(rng, "dense", SHAPES[0], source="conv", outputs=7)
    readout = random_layer(rng, "readout", (7,), source="dense", outputs=3, readout=True)
    return IntegerNetwork((1, 5, 7), (conv, dense, readout))


def make_trace(spikes: list[np.ndarray], readout: np.ndarray) -> Trace:
    """A trace of spikes (samples, T, C, H, W) or (samples, T, N)."""
    in_order = [np.moveaxis(layer, 2, -1) for layer in spikes]
    packed = tuple(pack(layer.reshape(*layer.shape[:2], -1)) for layer in in_order)
    return Trace(SHAPES, packed, readout, np.outer((1, 0, 2), np.ones(len(readout), np.int64)))


@pytest.fixture
def values() -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.random((4, 6, *shape)) < 0.4 for shape in SHAPES], rng.integers(-9, 9, (4, 6, 3)).astype(np.int32)


def test_packed_spikes_come_back(values: tuple[list[np.ndarray], np.ndarray]) -> None:
    trace = make_trace(*values)
    for index, expected in enumerate(values[0]):
        np.testing.assert_array_equal(trace.layer_spikes(index), expected)
    assert trace.spike_counts() == tuple(int(s.sum()) for s in values[0])
    assert (trace.samples, trace.steps) == (4, 6)


def test_equal_traces(network: IntegerNetwork, values: tuple[list[np.ndarray], np.ndarray]) -> None:
    assert first_difference(network, make_trace(*values), make_trace(*values)) is None
    assert count_differences(make_trace(*values), make_trace(*values)) == (0, 0, 0)


def test_first_difference_prefers_sample_then_layer_then_step(
    network: IntegerNetwork, values: tuple[list[np.ndarray], np.ndarray]
) -> None:
    spikes, readout = [s.copy() for s in values[0]], values[1].copy()
    reference = make_trace(*values)
    readout[1, 0, 2] += 5
    was = int(values[1][1, 0, 2])
    assert first_difference(network, reference, make_trace(spikes, readout)) == Mismatch(
        1, "readout", 1, (2,), was, was + 5
    )
    spikes[1][1, 4, 6] ^= True
    assert first_difference(network, reference, make_trace(spikes, readout)).layer == "dense"
    spikes[0][1, 5, 1, 2, 3] ^= True
    spikes[0][1, 5, 1, 2, 4] ^= True
    spikes[0][0, 3, 0, 1, 2] ^= True
    found = first_difference(network, reference, make_trace(spikes, readout))
    was = int(values[0][0][0, 3, 0, 1, 2])
    assert found == Mismatch(0, "conv", 4, (0, 1, 2), was, 1 - was)
    assert str(found) == f"sample 0, layer conv, step 4, neuron (0, 1, 2): expected {was}, got {1 - was}"
    assert count_differences(reference, make_trace(spikes, readout)) == (3, 1, 1)


def test_concatenation(values: tuple[list[np.ndarray], np.ndarray]) -> None:
    trace = make_trace(*values)
    whole = concatenate([trace.part(slice(index, index + 1)) for index in range(4)])
    np.testing.assert_array_equal(whole.readout, trace.readout)
    np.testing.assert_array_equal(whole.spikes[1], trace.spikes[1])
    assert whole.saturation_counts() == (4, 0, 8)
    with pytest.raises(ValueError, match="traces is empty"):
        concatenate([])


def test_traces_of_different_length_are_not_compared(values: tuple[list[np.ndarray], np.ndarray]) -> None:
    trace = make_trace(*values)
    short = dataclasses.replace(trace, readout=trace.readout[:, :5])
    with pytest.raises(
        ValueError, match=r"different \(samples, T, classes\) cannot be compared: \(4, 6, 3\) and \(4, 5, 3\)"
    ):
        count_differences(trace, short)
