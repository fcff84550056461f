"""Spikes and synaptic operations: by hand, and equal to following every spike along every synapse."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.fit import activity
from deploy.fit.activity import measure
from deploy.fit.wiring import wire
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks
from tests.fit.enumeration import synapses


def one_channel_network() -> IntegerNetwork:
    """A neuron per pixel of a 1x3x3 image that fires at every step where the pixel is not 0; 3x3 sums; 2 classes."""

    def values(count: int, value: int) -> np.ndarray:
        return np.full(count, value, np.int32)

    pixel = Connection(IMAGE, np.ones((1, 1, 1, 1), np.int8))
    sums = Connection("pixels", np.ones((1, 1, 3, 3), np.int8), padding=(1, 1))
    classes = Connection("sums", np.arange(1, 19, dtype=np.int8).reshape(2, 9))
    return IntegerNetwork(
        (1, 3, 3),
        (
            Layer("pixels", (pixel,), bias=values(1, 0), threshold=values(1, 1), v0=values(1, 0)),
            Layer("sums", (sums,), bias=values(1, 0), threshold=values(1, 4), v0=values(1, 0)),
            Layer("readout", (classes,), bias=values(2, 0), threshold=None, v0=values(2, 0)),
        ),
    )


def test_by_hand() -> None:
    """Pixels at the middle and at one corner are 1, T = 2.

    'pixels': 2 neurons fire at both steps: 4 spikes. The middle reaches 9 neurons and the corner 2 · 2 = 4, so 2 · 13 =
    26 synaptic operations onto 'sums'. There the 4 neurons around the corner get 2 per step and the other 5 get 1: with
    threshold 4 the first four fire once, at step 2. So 4 spikes, each reaching 2 classes: 8 operations. The image: 2
    pixels that are not 0 reach one neuron each, of 9 pixels. Updates: 9 · 2, 9 · 2 and 2 · 2.
    """
    network = one_channel_network()
    image = np.zeros((1, 1, 3, 3), np.uint8)
    image[0, 0, 1, 1] = image[0, 0, 0, 0] = 1
    seen = measure(network, wire(network), image, 2)
    assert [layer.spikes for layer in seen.layers] == [4, 4, 0]
    assert [layer.operations for layer in seen.layers] == [(0,), (26,), (8,)]
    assert [(layer.image_operations, layer.image_synapses) for layer in seen.layers] == [(2, 9), (0, 0), (0, 0)]
    assert [layer.updates for layer in seen.layers] == [18, 18, 4]
    assert (seen.spikes, seen.operations, seen.image_operations, seen.updates) == (8, 34, 2, 40)


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 5), st.integers(1, 4))
def test_operations_equal_following_every_spike(network: IntegerNetwork, steps: int, samples: int) -> None:
    images = images_for(network, samples)
    seen = measure(network, wire(network), images, steps)
    trace = Engine(network).run(images, steps)
    spikes = {IMAGE: (images != 0).sum(axis=0).ravel()}
    for index, layer in enumerate(network.layers[:-1]):
        spikes[layer.name] = trace.layer_spikes(index).sum(axis=(0, 1)).ravel()
    for layer, found in zip(network.layers, seen.layers, strict=True):
        expected = [
            sum(int(spikes[c.source][source]) for source, *_ in synapses(c, network.shape_of[c.source]))
            for c in layer.connections
        ]
        image = [c.source == IMAGE for c in layer.connections]
        assert found.operations == tuple(0 if i else n for n, i in zip(expected, image, strict=True))
        assert found.image_operations == sum(n for n, i in zip(expected, image, strict=True) if i)
    assert tuple(layer.spikes for layer in seen.layers[:-1]) == trace.spike_counts()


def test_batches_do_not_change_the_counts(monkeypatch) -> None:
    network = one_channel_network()
    images = images_for(network, 5)
    whole, done = measure(network, wire(network), images, 3), []
    monkeypatch.setattr(activity, "BATCH", 2)
    parts = measure(network, wire(network), images, 3, done.append)
    assert parts.layers == whole.layers
    assert done == [2, 2, 1]
