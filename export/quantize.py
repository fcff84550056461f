"""From folded float64 layers to integers: steps 4 to 6 of docs/semantics.md."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from export.fold import ExportError, FoldedLayer, FoldedNetwork
from export.network import INPUT_MAX, MEMBRANE_MAX, IntegerNetwork, Layer

Granularity = Literal["channel", "layer"]
WEIGHT_MAX = 127
CONSTANT_MAX = 2**20
"""Largest threshold and bias before Δ is enlarged: 20 bits of precision, and room for v + I + b in 24."""


def quantize(
    folded: FoldedNetwork,
    input_shape: tuple[int, int, int],
    *,
    granularity: Granularity = "channel",
    info: Mapping[str, str | int | float] | None = None,
) -> tuple[IntegerNetwork, tuple[NDArray[np.float64], ...]]:
    """The integer network, and per layer the scale Δ (O,) that one unit of its membrane potential stands for.

    Args:
        folded: from export.fold.
        input_shape: (C, H, W) of the image.
        granularity: one Δ per output channel, or one per layer; the read-out always has one.
        info: stored in the network.

    Raises:
        ExportError: a bias that does not fit into 24 bits.
        NetworkError: layers that do not fit each other.
    """
    layers: list[Layer] = []
    scales: list[NDArray[np.float64]] = []
    for index, layer in enumerate(folded.layers):
        weight = layer.weight
        if index == 0:
            weight = _image_weight(weight, input_shape, 1 / (INPUT_MAX * folded.std))
        per_channel = granularity == "channel" and layer.threshold is not None
        scale = _scale(layer, weight, per_channel=per_channel)
        integer = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        bias = layer.bias / scale
        if index == 0:
            bias = _image_bias(layer, integer, bias, input_shape, INPUT_MAX * folded.mean)
        bias = np.rint(bias)
        if np.abs(bias).max() > MEMBRANE_MAX:
            raise ExportError(f"{layer.name}: bias is {bias.flat[np.abs(bias).argmax()]:.0f}; allowed: ±{MEMBRANE_MAX}")
        threshold = None
        v0 = np.zeros(len(weight), np.int32)
        if layer.threshold is not None:
            threshold = np.maximum(1, np.rint(layer.threshold / scale)).astype(np.int32)
            v0 = threshold // 2
        layers.append(
            Layer(
                name=layer.name.replace(" ", "."),
                weight=integer,
                bias=bias.astype(np.int32),
                threshold=threshold,
                v0=v0,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
            )
        )
        scales.append(scale)
    return IntegerNetwork(input_shape, tuple(layers), info or {}), tuple(scales)


def _scale(layer: FoldedLayer, weight: NDArray[np.float64], *, per_channel: bool) -> NDArray[np.float64]:
    """Δ = max(max|w| / 127, λ / 2²⁰, |b| / 2²⁰) per channel, or the largest of the layer; 1 where all are 0."""
    largest = np.abs(layer.bias) if layer.threshold is None else np.maximum(np.abs(layer.bias), layer.threshold)
    scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1) / WEIGHT_MAX, largest / CONSTANT_MAX)
    if not per_channel:
        scale = np.full_like(scale, scale.max())
    return np.where(scale > 0, scale, 1.0)


def _image_weight(
    weight: NDArray[np.float64], input_shape: tuple[int, int, int], factor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights of the first layer times a factor per image channel, (C,)."""
    if weight.ndim == 4:
        groups = input_shape[0] // weight.shape[1]
        per_output = factor.reshape(groups, -1).repeat(len(weight) // groups, axis=0)
        return weight * per_output[:, :, None, None]
    return weight * np.broadcast_to(factor[:, None, None], input_shape).ravel()


def _image_bias(
    layer: FoldedLayer,
    integer: NDArray[np.int8],
    bias: NDArray[np.float64],
    input_shape: tuple[int, int, int],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """b − Σ w · 255 m over the taps inside the image, in units of Δ: (O, H', W'), or (O,) where it is uniform."""
    image = torch.tensor(mean, dtype=torch.float64).reshape(1, -1, 1, 1).expand(1, *input_shape)
    weight = torch.tensor(integer, dtype=torch.float64)
    if weight.ndim == 2:
        return bias - (weight @ image.flatten()).numpy()
    shift = F.conv2d(image, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)[0].numpy()
    if layer.padding == (0, 0):
        return bias - shift[:, 0, 0]
    return bias[:, None, None] - shift
