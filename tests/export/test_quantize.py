"""Quantization rounds as docs/semantics.md says, and the bias absorbs the normalisation exactly up to its rounding."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from export.fold import ExportError, FoldedLayer, FoldedNetwork
from export.network import Layer
from export.quantize import quantize
from tests.oracle import synaptic_sum

STD = 1 / 255  # with mean 0 the network sees the pixels as they are


def plain(*layers: FoldedLayer, channels: int = 1) -> FoldedNetwork:
    return FoldedNetwork(layers, np.zeros(channels), np.full(channels, STD))


def dense(weight: Any, bias: Any = None, threshold: float | None = None, name: str = "dense") -> FoldedLayer:
    weight = np.array(weight, np.float64)
    return FoldedLayer(name, weight, np.zeros(len(weight)) if bias is None else np.array(bias, np.float64), threshold)


def test_by_hand_per_channel() -> None:
    """Weights of 127 and 63.5 at most give Δ = 1 and 0.5; halves go to the even neighbour."""
    folded = plain(
        dense([[127, 0.5, 1.5, -2.5], [-63.5, 0.25, 0.75, 1.3]], [2.5, -1.25], 9.0, name="layers.1 Linear"),
        dense([[12.7, 0.04], [0.16, -3.0]], [1.0, 0.04], name="out"),
    )
    network, scales = quantize(folded, (1, 2, 2), info={"T": 4})
    first, last = network.layers
    assert first.weight.tolist() == [[127, 0, 2, -2], [-127, 0, 2, 3]]
    assert first.bias.tolist() == [2, -2] and first.threshold.tolist() == [9, 18] and first.v0.tolist() == [4, 9]
    np.testing.assert_allclose(scales[0], [1, 0.5])
    assert last.weight.tolist() == [[127, 0], [2, -30]]  # one Δ of 0.1 for the whole read-out
    assert last.bias.tolist() == [10, 0] and last.threshold is None and last.v0.tolist() == [0, 0]
    np.testing.assert_allclose(scales[1], [0.1, 0.1])
    assert (first.name, network.info) == ("layers.1.Linear", {"T": 4})


def test_by_hand_per_layer() -> None:
    folded = plain(dense([[127, 1], [-63.5, 2.5]], [0, 3.5], 9.0), dense([[1, 1]], name="out"))
    network, scales = quantize(folded, (1, 2, 1), granularity="layer")
    assert network.layers[0].weight.tolist() == [[127, 1], [-64, 2]]
    assert network.layers[0].bias.tolist() == [0, 4] and network.layers[0].threshold.tolist() == [9, 9]
    assert scales[0].tolist() == pytest.approx([1, 1])


def test_a_channel_without_weights_keeps_its_bias_and_threshold() -> None:
    """A pruned channel fires from its bias alone: 20 bits for the larger of the two."""
    folded = plain(dense([[0, 0], [127, 0]], [0.2, 0], 0.5), dense([[0, 0]], [0.0], name="out"))
    network, scales = quantize(folded, (1, 2, 1))
    first, last = network.layers
    assert first.weight.tolist() == [[0, 0], [127, 0]]
    assert first.threshold.tolist() == [2**20, 1] and first.bias.tolist() == [round(0.4 * 2**20), 0]
    assert scales[1].tolist() == [1] and last.bias.tolist() == [0], "a layer of zeros has scale 1"


@pytest.mark.parametrize("bias", [-5.0, 5.0])
def test_a_large_bias_or_threshold_enlarges_the_scale(bias: float) -> None:
    folded = plain(dense([[1e-9], [1000.0], [1e-9]], [0, 0, bias], 2.0), dense([[1e-9] * 3], [bias], name="out"))
    first, last = quantize(folded, (1, 1, 1))[0].layers
    assert first.threshold.tolist() == [2**20, 1, round(2 / 5 * 2**20)] and first.weight.tolist() == [[0], [127], [0]]
    assert first.bias.tolist() == [0, 0, np.sign(bias) * 2**20]
    assert first.v0.tolist() == [2**19, 0, round(2 / 5 * 2**20) // 2]
    assert last.bias.tolist() == [np.sign(bias) * 2**20]


def test_a_bias_beyond_24_bits_is_refused() -> None:
    """It can only come from the mean of the image: here 300 inputs of weight 127 and mean 255."""
    weights = dense([[1.0] * 300], None, name="layers.2 Linear")
    with pytest.raises(ExportError, match=r"^layers\.2 Linear: bias is -9715500; allowed: ±8388607$"):
        quantize(FoldedNetwork((weights,), np.ones(1), np.ones(1)), (1, 1, 300))


def convolution(shape: tuple[int, ...], rng: np.random.Generator, **geometry: Any) -> FoldedLayer:
    return FoldedLayer("first", rng.normal(size=shape), rng.normal(size=shape[0]), 1.5, **geometry)


FIRST: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "padded": ((4, 3, 3, 3), {"padding": (1, 1)}),
    "uneven": ((4, 3, 3, 2), {"padding": (2, 0), "stride": (2, 1)}),
    "unpadded": ((4, 3, 2, 3), {}),
    "dilated": ((4, 3, 3, 2), {"padding": (1, 2), "dilation": (2, 3)}),
    "grouped": ((6, 1, 3, 3), {"padding": (1, 1), "groups": 3}),
    "dense": ((5, 3 * 7 * 6), {}),
}


@pytest.mark.parametrize("granularity", ["channel", "layer"])
@pytest.mark.parametrize("case", FIRST)
def test_first_layer_sees_the_normalised_image(case: str, granularity: Any) -> None:
    """I + b = Σ w_int · (x − 255 m), zero outside the image, + b/Δ, up to the rounding of the bias."""
    shape, geometry = FIRST[case]
    rng = np.random.default_rng(0)
    mean, std = np.array([0.3, 0.5, 0.9]), np.array([0.2, 0.5, 0.4])
    layer = convolution(shape, rng, **geometry)
    images = rng.integers(0, 256, (4, 3, 7, 6))
    images[0], images[1] = 0, 255
    x = torch.from_numpy(images - 255 * mean[:, None, None])

    def linear(weight: np.ndarray, inputs: torch.Tensor) -> np.ndarray:
        tensor = torch.from_numpy(weight.astype(np.float64))
        if tensor.dim() == 2:
            return F.linear(inputs.flatten(1), tensor).numpy()
        return F.conv2d(inputs, tensor, None, layer.stride, layer.padding, layer.dilation, groups=layer.groups).numpy()

    outputs = int(np.prod(linear(layer.weight, x).shape[1:]))
    folded = FoldedNetwork((layer, dense(np.ones((2, outputs)), name="out")), mean, std)
    network, scales = quantize(folded, (3, 7, 6), granularity=granularity)
    first = network.layers[0]
    axes = (slice(None), *[None] * (len(network.shapes[0]) - 1))
    bias = (layer.bias / scales[0])[axes]
    padded = geometry.get("padding", (0, 0)) != (0, 0)
    assert first.bias.shape == (network.shapes[0] if padded else (len(layer.weight),))
    current = np.stack([synaptic_sum(first, image) for image in images])
    current = current + (first.bias if padded else first.bias[axes])
    assert np.abs(current - (linear(first.weight, x) + bias)).max() <= 0.5 + 1e-6
    # In the unit of z it is what the float layer computes, up to the rounding of every weight and of the bias.
    exact = linear(layer.weight, x / torch.from_numpy(255 * std)[:, None, None]) + layer.bias[axes]
    bound = 0.5 + 0.5 * linear(np.ones_like(layer.weight), x.abs())
    assert (np.abs(current - exact / scales[0][axes]) <= bound + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["channel", "layer"]), st.floats(1e-4, 1e4))
def test_dequantized_values_are_within_half_a_step(seed: int, granularity: Any, size: float) -> None:
    rng = np.random.default_rng(seed)
    first = FoldedLayer(
        "first", rng.normal(size=(3, 1, 2, 2)) * size, rng.normal(size=3) * size, float(rng.uniform(0.1, 3)) * size
    )
    last = dense(rng.normal(size=(4, 12)) * size, rng.normal(size=4) * size, name="out")
    network, scales = quantize(plain(first, last), (1, 3, 3), granularity=granularity)
    for layer, folded, scale in zip(network.layers, (first, last), scales, strict=True):
        half = scale / 2 * (1 + 1e-9)
        error = np.abs(layer.weight.reshape(len(half), -1) * scale[:, None] - folded.weight.reshape(len(half), -1))
        assert (error <= half[:, None]).all()
        assert (np.abs(layer.bias * scale - folded.bias) <= half).all()
        assert np.abs(layer.weight.astype(int)).max() == 127
        if granularity == "channel" and not layer.is_readout:
            assert (np.abs(layer.weight.astype(int)).reshape(len(half), -1).max(1) == 127).all()
        if layer.is_readout or granularity == "layer":
            assert len(set(scale.tolist())) == 1
        if layer.threshold is not None:
            assert (np.abs(layer.threshold * scale - folded.threshold) <= half).all() or (layer.threshold == 1).any()
            assert (layer.v0 == layer.threshold // 2).all()


def test_geometry_is_kept() -> None:
    rng = np.random.default_rng(0)
    geometry: dict[str, Any] = {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 3), "groups": 3}
    layer: Layer = quantize(
        plain(convolution((6, 1, 3, 2), rng, **geometry), dense(np.ones((2, 6 * 3 * 7)), name="out"), channels=3),
        (3, 7, 6),
    )[0].layers[0]
    assert {key: getattr(layer, key) for key in geometry} == geometry
