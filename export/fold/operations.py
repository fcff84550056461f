"""PyTorch's linear operations on affine maps: each function takes what PyTorch's takes, with values for tensors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from export.fold import value as values
from export.fold.folded import Floats, Pool
from export.fold.term import Filter, Unsupported
from export.fold.value import Value, as_base, as_map, entries, index_of
from nqlava.network import Pair

Number = int | float


def array(tensor: Any) -> Floats:
    """A constant as float64."""
    if isinstance(tensor, Tensor):
        return tensor.detach().cpu().double().numpy()
    if isinstance(tensor, bool | int | float | np.ndarray):
        return np.asarray(tensor, np.float64)
    kind = "an output of the network" if isinstance(tensor, Value) else type(tensor).__name__
    raise Unsupported(f"takes {kind} as a constant", "constant numbers and tensors")


def _pair(number: Any) -> Pair:
    if isinstance(number, int):
        return number, number
    first, last = number[0], number[-1]
    return int(first), int(last)


def convolution(name: str, x: Value, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
                dilation: Any = 1, groups: int = 1) -> Value:  # fmt: skip
    """conv1d and conv2d."""
    kernel = array(weight)
    line = kernel.ndim == 3
    if line:
        kernel = kernel[:, :, None]
    _, height, width = as_base(x.shape)
    stride, dilation = _pair(stride), _pair(dilation)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[2:], strict=True)]
    before = [0, 0]
    after = [0, 0]
    if padding == "same":
        before = [(r - 1) // 2 for r in reach]
        after = [r - 1 - b for r, b in zip(reach, before, strict=True)]
    elif padding != "valid":
        before = after = list(_pair(padding))
    if line:
        stride, dilation, before, after = (1, stride[1]), (1, dilation[1]), [0, before[1]], [0, after[1]]
    size = [
        (n + a + b - r) // s + 1 for n, a, b, r, s in zip((height, width), before, after, reach, stride, strict=True)
    ]
    chosen = Filter(kernel, (size[0], size[1]), stride, (before[0], before[1]), dilation, groups)
    made = values.convolve(x, name, chosen, None if bias is None else array(bias))
    return reshaped(made, (len(kernel), size[1])) if line else made


def linear(name: str, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    """x Wᵀ + b along the last dimension."""
    matrix, offset = array(weight), None if bias is None else array(bias)
    if len(x.shape) == 1:
        return values.multiply(x, name, matrix, offset)
    turned = entries(x, np.moveaxis(index_of(x), -1, 0))
    _, height, width = as_base(turned.shape)
    made = values.convolve(turned, name, Filter(matrix[:, :, None, None], (height, width)), offset)
    return entries(made, np.moveaxis(index_of(reshaped(made, (len(matrix), *turned.shape[1:]))), 0, -1))


def matmul(name: str, x: Any, weight: Any) -> Value:
    """x W of a constant matrix."""
    if not isinstance(x, Value) or isinstance(weight, Value) or weight.dim() != 2:
        raise Unsupported("multiplies by a tensor that is not a constant matrix", "x @ W with a parameter W")
    return linear(name, x, weight.T)


def reshaped(x: Value, shape: Sequence[int]) -> Value:
    return entries(x, index_of(x).reshape(tuple(shape)))


def batch_norm(name: str, x: Value, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Value:  # fmt: skip
    """γ · (z − μ)/√(σ² + ε) + β."""
    del name, momentum
    if training or running_mean is None or running_var is None:
        raise Unsupported("has no running statistics", "batch norm with them")
    variance = array(running_var)
    if not (variance >= 0).all():
        raise Unsupported(f"variance is {variance.min()}", "numbers of at least 0")
    gain, shift = 1 / np.sqrt(variance + eps), np.zeros(len(variance))
    if weight is not None:
        gain = gain * array(weight)
    if bias is not None:
        shift = array(bias)
    return scaled_channels(x, gain, shift - array(running_mean) * gain)


def scaled_channels(x: Value, gain: Floats, shift: Floats) -> Value:
    """gain · x + shift; behind a maximum that is still to be taken, the factors must be positive."""
    if x.pools and not (gain > 0).all():
        raise Unsupported(
            f"multiplies a maximum by {gain.min():.3g}: a negative factor makes a minimum of it",
            "batch norm before max pooling, or average pooling",
        )
    made = values.scale(replace(x, shape=x.base, pools=()) if x.pools else x, gain, shift)
    return replace(made, shape=x.shape, pools=x.pools)


def times(x: Value, factor: Any) -> Value:
    """factor · x, for a number or a constant tensor."""
    full = array(factor)
    if full.size == 1:
        return scaled_channels(x, np.full(x.shape[0], full.item()), np.zeros(x.shape[0]))
    full = np.broadcast_to(full, (1, *x.shape))[0]
    first = full.reshape(len(full), -1)
    if (first == first[:, :1]).all():
        return scaled_channels(x, first[:, 0], np.zeros(len(first)))
    if x.pools:
        raise Unsupported("multiplies the places of a maximum differently", "one factor per channel")
    return values.scale_entries(x, full)


def plus(x: Value, shift: Any) -> Value:
    """x + shift, for a number or a constant tensor."""
    full = array(shift)
    if not full.any():
        return x
    full = np.broadcast_to(full, (1, *x.shape))[0]
    first = full.reshape(len(full), -1)
    if (first == first[:, :1]).all():
        return scaled_channels(x, np.ones(len(first)), first[:, 0])
    if x.pools:
        raise Unsupported("adds different numbers to the places of a maximum", "one number per channel")
    return values.add(x, values.constant_value(np.ascontiguousarray(full)))


def add(name: str, one: Any, two: Any, *, alpha: Number = 1) -> Value:
    """one + alpha · two."""
    del name
    if not isinstance(one, Value):
        return plus(times(two, alpha), one)
    if not isinstance(two, Value):
        return plus(one, array(two) * alpha)
    two = times(two, alpha) if alpha != 1 else two
    shape = np.broadcast_shapes(one.shape, two.shape)
    one, two = (v if v.shape == shape else entries(v, np.broadcast_to(index_of(v), shape)) for v in (one, two))
    # The side with weights names the layer, whichever side of the + it stands on.
    return values.add(two, one) if one.is_plain and not two.is_plain else values.add(one, two)


def subtract(name: str, one: Any, two: Any, *, alpha: Number = 1) -> Value:
    """one − alpha · two."""
    return add(name, one, two, alpha=-alpha) if isinstance(two, Value) else add(name, one, -array(two) * alpha)


def multiply(name: str, one: Any, two: Any) -> Value:
    """A product with a constant."""
    del name
    if isinstance(one, Value) and isinstance(two, Value):
        raise Unsupported(
            "multiplies two outputs of the network, as gates, squeeze-and-excitation and attention do",
            "sums and constant factors, or the network without its gates",
        )
    return times(one, two) if isinstance(one, Value) else times(two, one)


def divide(name: str, one: Any, two: Any, *, rounding_mode: str | None = None) -> Value:
    """A quotient by a constant."""
    del name
    if isinstance(two, Value) or rounding_mode is not None:
        raise Unsupported("divides by an output of the network, or rounds", "constant divisors")
    return times(one, 1 / array(two))


def negative(name: str, x: Value) -> Value:
    del name
    return times(x, -1.0)


def window_means(size: int, kernel: int, stride: int, padding: int, count: int, *, padded: bool) -> Floats:
    """What average pooling takes along one axis: weights (count, size).

    Args:
        padded: whether zeros of the padding count among the values of a window.
    """
    weights = np.zeros((count, size))
    for i in range(count):
        first = i * stride - padding
        last = min(first + kernel, size + padding)
        low, high = max(first, 0), min(last, size)
        weights[i, low:high] = 1 / ((last - first) if padded else (high - low))
    return weights


def average_pool(name: str, x: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None, *,
                 shape: tuple[int, ...]) -> Value:  # fmt: skip
    """avg_pool1d and avg_pool2d; ``shape`` is that of the result."""
    del name, ceil_mode
    line = len(x.shape) == 2
    kernel, padding = _pair(kernel_size), _pair(padding)
    stride = kernel if stride in (None, [], ()) else _pair(stride)
    if line:
        kernel, stride, padding = (1, kernel[1]), (1, stride[1]), (0, padding[1])
    _, height, width = as_base(x.shape)
    _, *counts = as_base(shape)
    sizes = zip((height, width), kernel, stride, padding, counts, strict=True)
    rows, columns = (window_means(*numbers, padded=count_include_pad) for numbers in sizes)
    if divisor_override is None:
        return reshaped(values.average(x, rows, columns), shape)
    rows, columns = (rows != 0) / kernel[0], (columns != 0) / kernel[1]  # it divides cut windows too
    return times(reshaped(values.average(x, rows, columns), shape), kernel[0] * kernel[1] / divisor_override)


def adaptive_average(name: str, x: Value, output_size: Any, *, shape: tuple[int, ...]) -> Value:
    """adaptive_avg_pool1d and adaptive_avg_pool2d."""
    del name, output_size
    _, height, width = as_base(x.shape)
    _, *counts = as_base(shape)
    rows, columns = (_adaptive_means(size, count) for size, count in zip((height, width), counts, strict=True))
    return reshaped(values.average(x, rows, columns), shape)


def _adaptive_means(size: int, count: int) -> Floats:
    weights = np.zeros((count, size))
    for i in range(count):
        first, last = i * size // count, -(-(i + 1) * size // count)
        weights[i, first:last] = 1 / (last - first)
    return weights


def mean(name: str, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None, *,
         axis: Any = None, shape: tuple[int, ...]) -> Value:  # fmt: skip
    """The mean over dimensions."""
    del keepdim, dtype
    return _reduced(name, x, dim if axis is None else axis, shape)[0]


def total(name: str, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None, *,
          axis: Any = None, shape: tuple[int, ...]) -> Value:  # fmt: skip
    """The sum over dimensions."""
    del keepdim, dtype
    made, count = _reduced(name, x, dim if axis is None else axis, shape)
    return times(made, count)


def dimensions(x: Value, dim: Any) -> list[int]:
    """Dimensions of the tensor as those of the value, which has no batch."""
    if dim is None:
        raise Unsupported("goes over all dimensions, the batch too", "dimensions from 1 on")
    found = [d % (len(x.shape) + 1) for d in (dim if isinstance(dim, list | tuple) else [dim])]
    if 0 in found:
        raise Unsupported("goes over the batch", "dimensions from 1 on")
    return [d - 1 for d in found]


def _reduced(name: str, x: Value, dim: Any, shape: tuple[int, ...]) -> tuple[Value, int]:
    over = dimensions(x, dim)
    count = math.prod(x.shape[d] for d in over)
    channels, height, width = as_base(x.shape)
    if len(x.shape) == 2:
        over = [2 if d == 1 else d for d in over]
    rows = np.full((1, height), 1 / height) if 1 in over else np.eye(height)
    columns = np.full((1, width), 1 / width) if 2 in over else np.eye(width)
    made = values.average(x, rows, columns) if {1, 2} & set(over) else x
    if 0 in over:
        kernel = np.full((1, channels, 1, 1), 1 / channels)
        made = reshaped(made, (channels, len(rows), len(columns)))
        made = values.convolve(made, name, Filter(kernel, (len(rows), len(columns))), None)
    return reshaped(made, shape), count


def pool_of(kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
            return_indices: bool = False, *, line: bool = False) -> Pool:  # fmt: skip
    """The arguments of max_pool1d and max_pool2d; with the places of the maxima they have other names."""
    del return_indices
    kernel = _pair(kernel_size)
    stride = kernel if stride in (None, [], ()) else _pair(stride)
    padding, dilation = _pair(padding), _pair(dilation)
    if line:
        return Pool((1, kernel[1]), (1, stride[1]), (0, padding[1]), (1, dilation[1]), ceil_mode)
    return Pool(kernel, stride, padding, dilation, ceil_mode)


def pool_to(x: Value, shape: tuple[int, ...]) -> Pool:
    """adaptive_max_pool2d and amax to a shape, whose sizes must divide those of the map."""
    sizes, counts = as_base(x.shape)[1:], as_base(shape)[1:]
    if any(n % m for n, m in zip(sizes, counts, strict=True)):
        raise Unsupported(f"pools {sizes} to {counts}", "sizes that divide the map")
    window = (sizes[0] // counts[0], sizes[1] // counts[1])
    return Pool(window, window)


def maximum(x: Value, name: str, pool: Pool, size: Pair) -> tuple[Value, Floats, Floats]:
    """What the neurons of a maximum receive, in units of a spike, and what a spike and no spike of them stand for.

    max over windows of a · s + b = a · (whether a spike is in the window) + b, with a > 0.
    """
    x = as_map(x)
    factor = np.zeros(x.base[0])
    covered = np.zeros(x.base[0], np.int64)
    for term in x.terms:
        if not (term.is_diagonal and term.is_pointwise and term.window == (1, 1)):
            raise Unsupported("takes the maximum of sums", _SPIKES)
        factor[term.rows] = term.kernel.ravel()
        covered[term.rows] += 1
    if x.base != as_base(x.shape) or x.bias.ndim > 1 or not (covered == 1).all():
        raise Unsupported("takes the maximum of sums", _SPIKES)
    if not (factor > 0).all():
        raise Unsupported(f"takes the maximum of spikes times {factor.min():.3g}", "positive factors")
    terms = tuple(replace(term, kernel=np.ones_like(term.kernel)) for term in x.terms)
    spikes = replace(x, terms=terms, bias=np.zeros_like(factor))
    ones = np.ones((x.base[0], 1, *pool.kernel))
    chosen = Filter(ones, size, pool.stride, pool.padding, pool.dilation, groups=x.base[0])
    made = values.convolve(spikes, name, chosen, None)
    return made, factor, x.bias


_SPIKES = "max pooling directly before or behind an activation, or average pooling"

LINEAR: dict[str, Callable[..., Value]] = {
    "conv1d": convolution,
    "conv2d": convolution,
    "linear": linear,
    "matmul": matmul,
    "mm": matmul,
    "batch_norm": batch_norm,
    "add": add,
    "iadd": add,
    "sub": subtract,
    "isub": subtract,
    "subtract": subtract,
    "mul": multiply,
    "imul": multiply,
    "multiply": multiply,
    "truediv": divide,
    "itruediv": divide,
    "div": divide,
    "divide": divide,
    "neg": negative,
    "negative": negative,
}
"""Functions, methods and operators by name; the first argument of each is the path of the module."""

SHAPED: dict[str, Callable[..., Value]] = {
    "avg_pool1d": average_pool,
    "avg_pool2d": average_pool,
    "adaptive_avg_pool1d": adaptive_average,
    "adaptive_avg_pool2d": adaptive_average,
    "mean": mean,
    "sum": total,
}
"""Those that are also told the shape of their result."""

MOVES = (
    "flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes", "swapdims", "movedim",
    "moveaxis", "getitem", "chunk", "split", "tensor_split", "unbind", "cat", "concat", "concatenate", "stack",
    "narrow", "select", "index_select", "flip", "roll", "pad", "_pad_circular", "pixel_unshuffle", "pixel_shuffle",
    "channel_shuffle", "unflatten", "expand", "expand_as", "view_as", "reshape_as", "repeat", "tile",
)  # fmt: skip
"""Those that only move entries, or put zeros between them."""

NOTHING = (
    "contiguous", "clone", "detach", "float", "double", "half", "bfloat16", "to", "type", "type_as", "cpu", "cuda",
    "alias", "requires_grad_",
)  # fmt: skip
"""Those that change no value."""

DROPOUT = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "stochastic_depth", "drop_block2d",
)  # fmt: skip
"""Those that do nothing in evaluation."""
