"""From the trained network to linear layers with thresholds, in float64: steps 1 to 3 of docs/semantics.md."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from train.activation import NQ
from train.models import Network, Normalize

Pair = tuple[int, int]


class ExportError(ValueError):
    """A network that cannot be exported: the message names the layer, what it is and what is allowed."""


@dataclass(frozen=True)
class FoldedLayer:
    """A linear layer on spikes (0 or 1) or on the normalised image, in the unit of its own threshold.

    Attributes:
        name: position and kind in the trained network, such as "layers.1 Conv2d".
        weight: float64, (O, I, kh, kw) or (O, N); spike amplitude and pooling are folded in.
        bias: float64 (O,).
        threshold: λ; None for the read-out.
        stride, padding, dilation, groups: of a convolution.
    """

    name: str
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    threshold: float | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class FoldedNetwork:
    """Attributes: layers; mean and std of the input normalisation, float64 (C,), in units of x/255."""

    layers: tuple[FoldedLayer, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def fold(network: Network) -> FoldedNetwork:
    """Fold batch norm, spike amplitude and average pooling into the linear layers.

    Requires the sequence Normalize, then any number of [AvgPool2d] [Flatten] [Dropout] Conv2d|Linear [BatchNorm2d] NQ,
    and at the end a Linear without NQ.

    Raises:
        ExportError: another layer or another order.
    """
    modules = list(network.layers)
    if not modules or not isinstance(modules[0], Normalize):
        raise ExportError("layers.0: the network does not start with Normalize; allowed: Normalize first")
    layers: list[FoldedLayer] = []
    current: FoldedLayer | None = None
    amplitude, pool = 1.0, 1
    shape: tuple[int, ...] = network.input_shape
    for index, module in enumerate(modules[1:], 1):
        name = f"layers.{index} {type(module).__name__}"
        if isinstance(module, nn.Dropout):
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            _require(current is None, name, "follows a linear layer", "NQ between two linear layers")
            current, shape = _linear(module, name, amplitude, pool, shape)
            pool = 1
        elif isinstance(module, nn.BatchNorm2d):
            if current is None:
                raise ExportError(f"{name}: follows no convolution; allowed: directly behind Conv2d")
            current = _batch_norm(current, module, name)
        elif isinstance(module, NQ):
            if current is None:
                raise ExportError(f"{name}: follows no linear layer; allowed: behind Conv2d, BatchNorm2d or Linear")
            amplitude = float(module.threshold.detach())
            layers.append(replace(current, threshold=amplitude))
            current = None
        elif isinstance(module, nn.AvgPool2d):
            _require(current is None and bool(layers), name, "is not behind NQ", "pooling of spikes, behind NQ")
            window = _window(module, name)
            _require(
                len(shape) == 3 and shape[1] % window == 0 and shape[2] % window == 0,
                name, f"pools an output of {shape}", f"sizes that {window} divides",
            )  # fmt: skip
            shape = (shape[0], shape[1] // window, shape[2] // window)
            pool *= window
        elif isinstance(module, nn.Flatten):
            _require(current is None, name, "follows a linear layer", "behind NQ or pooling")
        else:
            raise ExportError(
                f"{name}: cannot be exported; allowed: Conv2d, BatchNorm2d, NQ, AvgPool2d, Dropout, Flatten, Linear"
            )
    if current is None or current.weight.ndim != 2:
        raise ExportError("network: does not end with Linear; allowed: a Linear layer without NQ at the end")
    layers.append(current)
    for layer in layers:
        for key in ("weight", "bias"):
            if not np.isfinite(getattr(layer, key)).all():
                raise ExportError(f"{layer.name}: {key} is not finite; allowed: finite numbers")
        if layer.threshold is not None and not (np.isfinite(layer.threshold) and layer.threshold > 0):
            raise ExportError(f"{layer.name}: threshold is {layer.threshold}; allowed: positive numbers")
    return FoldedNetwork(tuple(layers), *_normalization(modules[0]))


def _require(condition: bool, name: str, found: str, allowed: str) -> None:
    if not condition:
        raise ExportError(f"{name}: {found}; allowed: {allowed}")


def _normalization(module: Normalize) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, std = _array(module.mean).ravel(), _array(module.std).ravel()
    _require(bool(np.isfinite(mean).all()), "layers.0 Normalize", "mean is not finite", "finite numbers")
    for value in std:
        _require(bool(0 < value < np.inf), "layers.0 Normalize", f"std is {value}", "positive numbers")
    return mean, std


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def _pair(value: int | Pair | str, name: str, key: str) -> Pair:
    if isinstance(value, str):
        raise ExportError(f"{name}: {key} is {value!r}; allowed: integers")
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _window(module: nn.AvgPool2d, name: str) -> int:
    kernel = _pair(module.kernel_size, name, "kernel_size")
    plain = (
        kernel[0] == kernel[1]
        and _pair(module.stride, name, "stride") == kernel
        and _pair(module.padding, name, "padding") == (0, 0)
        and module.divisor_override is None
    )
    _require(plain, name, f"is {module}", "square windows, stride equal to the window, no padding")
    return kernel[0]


def _linear(
    module: nn.Conv2d | nn.Linear, name: str, amplitude: float, pool: int, shape: tuple[int, ...]
) -> tuple[FoldedLayer, tuple[int, ...]]:
    """The layer behind ``pool`` × ``pool`` average pooling of spikes of the given amplitude, and its output shape."""
    weight = _array(module.weight) * amplitude / pool**2
    bias = np.zeros(len(weight)) if module.bias is None else _array(module.bias)
    if isinstance(module, nn.Linear):
        count = int(np.prod(shape))
        _require(
            weight.shape[1] == count, name, f"takes {weight.shape[1]} inputs", f"{count} behind an output of {shape}"
        )
        if pool > 1:
            weight = (
                weight.reshape(len(weight), *shape).repeat(pool, axis=2).repeat(pool, axis=3).reshape(len(weight), -1)
            )
        return FoldedLayer(name, weight, bias), (len(weight),)
    _require(len(shape) == 3, name, f"follows an output of {shape}", "outputs (C, H, W)")
    _require(module.padding_mode == "zeros", name, f"padding_mode is {module.padding_mode}", "zeros")
    stride, padding, dilation = (_pair(getattr(module, key), name, key) for key in ("stride", "padding", "dilation"))
    _require(pool == 1 or dilation == (1, 1), name, f"dilation is {dilation} behind pooling", "(1, 1) behind pooling")
    size = tuple(
        (shape[1 + axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    layer = FoldedLayer(
        name,
        weight.repeat(pool, axis=2).repeat(pool, axis=3),
        bias,
        stride=(stride[0] * pool, stride[1] * pool),
        padding=(padding[0] * pool, padding[1] * pool),
        dilation=dilation,
        groups=module.groups,
    )
    return layer, (len(weight), *size)


def _batch_norm(layer: FoldedLayer, module: nn.BatchNorm2d, name: str) -> FoldedLayer:
    """w ← w · γ/√(σ² + ε), b ← β + (b − μ) · γ/√(σ² + ε)."""
    _require(module.running_var is not None, layer.name, "has batch norm without running statistics", "with them")
    variance = _array(module.running_var)  # type: ignore[arg-type]
    worst = variance.min()
    _require(bool(worst >= 0), name, f"variance is {worst}", "numbers of at least 0")
    gain = 1 / np.sqrt(variance + module.eps)
    shift = np.zeros(len(gain))
    if module.affine:
        gain, shift = gain * _array(module.weight), _array(module.bias)
    weight = layer.weight * gain.reshape(-1, *[1] * (layer.weight.ndim - 1))
    mean = _array(module.running_mean)  # type: ignore[arg-type]
    return replace(layer, weight=weight, bias=shift + (layer.bias - mean) * gain)
