"""The peers that the engine is timed against compute the same read-outs, without work that they would not need."""

import importlib.util
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks import engine_speed
from benchmarks.engine_speed import fastest_setting, peers
from benchmarks.networks import exported, sample_images, uniform
from benchmarks.peers import ChannelFactor, PlainPyTorch, WindowSum
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.testing.strategies import networks

HAS_SPIKINGJELLY = importlib.util.find_spec("spikingjelly") is not None
needs_spikingjelly = pytest.mark.skipif(not HAS_SPIKINGJELLY, reason="SpikingJelly is not installed")


def one_threshold_per_layer(network: IntegerNetwork) -> IntegerNetwork:
    """The network with the first channel's threshold and initial potential in all channels."""
    layers = [
        replace(
            layer,
            threshold=np.full_like(layer.threshold, layer.threshold[0]),
            v0=np.full_like(layer.v0, layer.v0[0]),
        )
        for layer in network.layers[:-1]
    ]
    return IntegerNetwork(network.input_shape, (*layers, network.layers[-1]))


def is_common(network: IntegerNetwork) -> bool:
    """Whether the peers' float32 convolutions can be trusted with all of its geometries."""
    return all(
        c.convolution(network.shape_of[c.source]).is_common(*network.shape_of[c.source][1:])
        for layer in network.layers
        for c in layer.connections
        if c.is_convolution
    )


@pytest.mark.slow
@needs_spikingjelly
@settings(deadline=None)
@given(networks(extreme=False).filter(is_common).map(one_threshold_per_layer), st.data())
def test_peers_equal_the_engine_on_random_networks(network: IntegerNetwork, data: st.DataObject) -> None:
    steps, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = rng.integers(0, 256, (3, *network.input_shape), dtype=np.uint8)
    trace = Engine(network).run(images, steps)
    assume(not trace.saturations.any())  # peers have no 24-bit registers
    found = peers(network)
    assert len(found) == 3
    formats = [torch.contiguous_format]
    if all(len(shape) == 1 or shape[0] > 1 for shape in network.shape_of.values()):
        formats.append(torch.channels_last)  # PyTorch 2.3 convolves maps of one channel wrongly in it
    for peer in found.values():
        for memory_format in formats:
            peer.use(memory_format)
            np.testing.assert_array_equal(peer.scores(images, steps, batch), trace.readout)


@needs_spikingjelly
@pytest.mark.parametrize(("model", "identities"), [("resnet20", 7), ("vgg_small", 0)])
def test_peers_equal_the_engine_on_exported_networks(model: str, identities: int) -> None:
    network, images = exported(model, {}), sample_images(5)
    expected = Engine(network).scores(images, 4)
    assert expected.std() > 0
    for peer in peers(network).values():
        np.testing.assert_array_equal(peer.scores(images, 4, batch=3), expected)
        kinds = Counter(type(module) for module in peer.modules())
        assert kinds[ChannelFactor] == identities, "no convolution for an identity shortcut"
        assert kinds[WindowSum] == (1 if identities else 3), "no kernels with folded pooling"
        assert all(max(m.kernel_size) <= 3 for m in peer.modules() if isinstance(m, nn.Conv2d))


def test_without_spikingjelly_the_other_rows_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert list(peers(uniform(2, 1))) == ["PyTorch"]
    result = engine_speed.measure([], [], [], {}, engine_speed.Effort(1, 0.01))
    assert engine_speed.table(result).endswith(
        "\nSpikingJelly is not installed, so its rows are missing: pip install -e '.[benchmark]'\n"
    )


@pytest.mark.parametrize("key", ["threshold", "v0"])
def test_values_that_differ_within_a_layer_are_refused(key: str) -> None:
    network = uniform(2, 1)
    layer = replace(network.layers[0], **{key: np.array([5, 6], np.int32)})
    with pytest.raises(ValueError, match=f"^layer layer0: {key} differs between channels; allowed: one number per"):
        PlainPyTorch(IntegerNetwork(network.input_shape, (layer, network.layers[1])))


def test_wrong_results_are_not_timed() -> None:
    network = uniform(4, 1)
    images = sample_images(4)
    expected = Engine(network).scores(images, 2)
    batch, seconds = fastest_setting("peer", PlainPyTorch(network), images, expected, [2, 4])
    assert batch in (2, 4) and seconds > 0
    expected[3, 1, 7] += 1
    with pytest.raises(RuntimeError, match=r"^peer, batch 4: 1 of 80 read-outs are wrong$"):
        fastest_setting("peer", PlainPyTorch(network), images, expected, [4])
