"""What a node of the trained network carries: an affine map of sources, and where its entries lie in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F

from export.fold.folded import Floats, Indices, Pool
from export.fold.term import (
    Filter,
    NotAConvolution,
    Term,
    Unsupported,
    averaged,
    convolved,
    flattened,
    moved,
    multiplied,
    require_small,
    scaled,
    selected,
    source_term,
)

Shape3 = tuple[int, int, int]
_SHIFTS = 16  # by which the channels of one tensor may be moved differently: 16 for each 4x4 block as a channel


@dataclass(frozen=True)
class Value:
    """An affine map of sources, seen as a tensor.

    Attributes:
        name: path of the module that it comes from.
        base: (C, H, W) of the map that the terms and the bias make.
        terms: they add up.
        bias: float64 (C,), or (C, H, W) where it differs between positions.
        shape: of the tensor, without the batch.
        index: int64 of this shape, which entry of the flattened ``extent`` each entry is, −1 for 0; None where the
            tensor is the extent in another shape.
        resample: weights (H', H) and (W', W) of sums along the two axes that are still to be taken of the base.
        pools: maxima over windows that are still to be taken of the base.
        softmax: name of a function of the classes' scores that ends the network.
        storage: the same object for tensors that share memory.
    """

    name: str
    base: Shape3
    terms: tuple[Term, ...]
    bias: Floats
    shape: tuple[int, ...]
    index: Indices | None = None
    resample: tuple[Floats, Floats] | None = None
    pools: tuple[Pool, ...] = ()
    softmax: str = ""
    storage: object = field(default_factory=object, compare=False)

    @property
    def is_plain(self) -> bool:
        """Whether it is spikes or pooled spikes, possibly several added up."""
        return all(term.is_identity for term in self.terms) and not self.bias.any()

    @property
    def extent(self) -> Shape3:
        """(C, H', W') of the base when it is resampled."""
        if self.resample is None:
            return self.base
        rows, columns = self.resample
        return self.base[0], len(rows), len(columns)

    @property
    def is_vector(self) -> bool:
        """Whether every entry is a channel of its own, so that any linear map of it is a matrix."""
        return self.base[1:] == (1, 1) and self.resample is None


def source_value(name: str, shape: tuple[int, ...], amplitude: float) -> Value:
    """The output of a layer whose spikes stand for ``amplitude``."""
    base = as_base(shape)
    return Value(name, base, (source_term(name, shape, amplitude),), np.zeros(base[0]), shape)


def constant_value(values: Floats) -> Value:
    """A tensor of numbers."""
    base = as_base(values.shape if 1 <= values.ndim <= 3 else (values.size,))
    return Value("constant", base, (), np.ascontiguousarray(values.reshape(base)), values.shape)


def as_base(shape: Sequence[int]) -> Shape3:
    """(C, H, W) of a shape of one to three dimensions."""
    if not 1 <= len(shape) <= 3:
        raise Unsupported(f"takes a tensor of {len(shape) + 1} dimensions", "(N, C, H, W), (N, C, L) or (N, C)")
    sizes = {1: (*shape, 1, 1), 2: (shape[0], 1, shape[-1]), 3: tuple(shape)}[len(shape)]
    return sizes[0], sizes[1], sizes[2]


def index_of(value: Value) -> Indices:
    """Which entry of the flattened extent each entry is."""
    return np.arange(int(np.prod(value.shape))).reshape(value.shape) if value.index is None else value.index


def entries(value: Value, index: Indices) -> Value:
    """The tensor of these entries of the flattened extent, −1 for 0."""
    flat = index.ravel()
    same = flat.size == np.prod(value.extent) and np.array_equal(flat, np.arange(flat.size))
    return replace(value, shape=index.shape, index=None if same else np.ascontiguousarray(index))


def as_map(value: Value) -> Value:
    """The value with a base of its own shape (C, H, W), or (C, 1, L), or (N, 1, 1); or, where it is not a convolution
    of its sources, with the base (C · H · W, 1, 1) and any shape."""
    assert not value.pools
    if value.resample is not None:
        value = _resampled(value)
    target = as_base(value.shape)
    if value.index is None and (value.base == target or value.is_vector):
        return value
    index = np.arange(int(np.prod(target))) if value.index is None else value.index
    if value.is_vector:
        return _gathered(value, index.reshape(-1, 1, 1), value.shape)
    try:
        return replace(_gathered(value, index.reshape(target)), shape=value.shape)
    except NotAConvolution:
        flat = as_vector(replace(value, index=None))
        return _gathered(flat, index.reshape(-1, 1, 1), value.shape)


def _resampled(value: Value) -> Value:
    """With one channel for every entry of its extent, instead of sums that are still to be taken."""
    assert value.resample is not None
    rows, columns = value.resample
    count = int(np.prod(value.extent))
    whole = as_vector(replace(value, resample=None))
    require_small(whole.base[0] * count)
    matrix = np.kron(np.eye(value.base[0]), np.kron(rows, columns))
    made = multiply(replace(whole, shape=whole.base[:1], index=None), value.name, matrix, None)
    return replace(made, shape=value.shape, index=value.index)


def _as_spatial(value: Value) -> Value:
    """``as_map`` of the value as a tensor (C, H, W)."""
    value = as_map(value)
    return replace(value, shape=as_base(value.shape))


def as_vector(value: Value) -> Value:
    """The value with one channel for every entry of its base."""
    if value.is_vector:
        return value
    count = int(np.prod(value.base))
    terms = tuple(flattened(term) for term in value.terms)
    return replace(value, base=(count, 1, 1), terms=terms, bias=full_bias(value).reshape(-1))


def full_bias(value: Value) -> Floats:
    """The bias as (C, H, W)."""
    return np.broadcast_to(value.bias.reshape(len(value.bias), *value.bias.shape[1:] or (1, 1)), value.base)


def _uniform(bias: Floats) -> Floats:
    """A bias (C, H, W) as (C,) where it is the same everywhere."""
    first = bias[:, 0, 0]
    return first if np.array_equal(np.broadcast_to(first[:, None, None], bias.shape), bias) else bias


def _gathered(value: Value, index: Indices, shape: tuple[int, ...] | None = None) -> Value:
    """The value with the base of ``index`` (C, H, W), entries of the base; NotAConvolution where it is none."""
    channels, height, width = index.shape
    parts: list[Term] = []
    for chosen, rows, start, stride in _regular(index, value.base):
        for term in value.terms:
            place = np.full(value.base[0], -1)
            place[term.rows] = np.arange(len(term.rows))
            found = place[chosen]
            if (found >= 0).any():
                part = selected(term, found[found >= 0], rows[found >= 0])
                parts.append(moved(part, start, stride, (height, width)))
    bias = np.append(full_bias(value).ravel(), 0.0)[index]
    return replace(
        value, base=(channels, height, width), terms=tuple(parts), bias=_uniform(bias), index=None,
        shape=index.shape if shape is None else shape,
    )  # fmt: skip


def _regular(index: Indices, base: Shape3) -> list[tuple[Indices, Indices, tuple[int, int], tuple[int, int]]]:
    """``index`` as selections of channels that move alike: channels, rows that they become, first place and stride."""
    _, height, width = base
    valid = index >= 0
    rows = np.flatnonzero(valid.any(axis=(1, 2)))
    if not len(rows):
        return []
    index, valid = index[rows], valid[rows]
    places = (index // (height * width), index // width % height, index % width)
    channel = np.where(valid, places[0], -1).max(axis=(1, 2))
    starts, strides = np.empty((len(rows), 2), np.int64), [1, 1]
    for axis in (0, 1):
        seen = valid.any(axis=2 - axis)  # (rows, size): positions along the axis that show anything
        size = seen.shape[1]
        values = np.where(valid, places[1 + axis], -1).max(axis=2 - axis)
        first = seen.argmax(axis=1)
        last = size - 1 - seen[:, ::-1].argmax(axis=1)
        several = np.flatnonzero(last > first)
        if len(several):
            r = several[0]
            strides[axis] = max(1, int((values[r, last[r]] - values[r, first[r]]) // (last[r] - first[r])))
        elif size > 1:
            strides[axis] = base[1 + axis]  # the single place that is shown; the next ones are outside
        starts[:, axis] = values[np.arange(len(rows)), first] - first * strides[axis]
    y = starts[:, :1] + strides[0] * np.arange(index.shape[1])
    x = starts[:, 1:] + strides[1] * np.arange(index.shape[2])
    expected = (channel[:, None] * height + y)[:, :, None] * width + x[:, None, :]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    if not np.array_equal(np.where(inside, expected, -1), np.where(valid, index, -1)):
        raise NotAConvolution
    found = []
    different = np.unique(starts, axis=0)
    if len(different) > _SHIFTS:
        raise NotAConvolution
    for start in different:
        same = (starts == start).all(axis=1)
        found.append((channel[same], rows[same], (int(start[0]), int(start[1])), (strides[0], strides[1])))
    return found


def scale(value: Value, gain: Floats, shift: Floats) -> Value:
    """gain · value + shift for each index of the first dimension, as batch norm in evaluation mode."""
    value = as_map(value)
    repeats = value.base[0] // len(gain)
    gain, shift = gain.repeat(repeats), shift.repeat(repeats)
    bias = value.bias * gain.reshape(-1, *[1] * (value.bias.ndim - 1)) + shift.reshape(-1, *[1] * (value.bias.ndim - 1))
    return replace(value, terms=tuple(scaled(term, gain) for term in value.terms), bias=bias, storage=object())


def scale_entries(value: Value, gain: Floats) -> Value:
    """gain · value, with a factor for every entry, of the value's shape."""
    value = as_vector(as_map(value))
    return scale(value, gain.ravel(), np.zeros(gain.size))


def add(one: Value, two: Value) -> Value:
    """one + two, of the same shape."""
    one, two = as_map(one), as_map(two)
    if one.base != two.base:
        one, two = as_vector(one), as_vector(two)
    bias = one.bias + two.bias if one.bias.ndim == two.bias.ndim else _uniform(full_bias(one) + full_bias(two))
    return replace(one, terms=merged(one.terms + two.terms), bias=bias, storage=object())


def merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms, of those that are convolutions of the same form and source one with the sum of the kernels."""
    kept: dict[object, Term] = {}
    for number, term in enumerate(terms):
        form = (
            term.source, term.window, term.kernel.shape, term.rows.tobytes(), term.columns.tobytes(), term.size,
            term.stride, term.padding, term.dilation, term.groups,
        )  # fmt: skip
        key: object = number if term.is_identity else form
        kept[key] = replace(kept[key], kernel=kept[key].kernel + term.kernel) if key in kept else term
    return tuple(kept.values())


def joined(values: Sequence[Value]) -> tuple[Value, list[Indices]]:
    """One value that holds the entries of all, and where the entries of each are in it."""
    values = [as_map(value) for value in values]
    if len({value.base[1:] for value in values}) > 1:
        values = [as_vector(value) for value in values]
    terms: list[Term] = []
    indices: list[Indices] = []
    channels = 0
    plane = values[0].base[1] * values[0].base[2]
    for value in values:
        count = int(np.prod(value.base))
        terms += [replace(term, rows=term.rows + channels) for term in value.terms]
        indices.append(channels * plane + np.arange(count).reshape(value.shape))
        channels += value.base[0]
    bias = _uniform(np.concatenate([full_bias(value) for value in values]))
    base = (channels, *values[0].base[1:])
    return Value(values[0].name, base, tuple(terms), bias, (channels * plane,)), indices


def convolve(value: Value, name: str, chosen: Filter, bias: Floats | None) -> Value:
    """A convolution of a map (C, H, W)."""
    value = _as_spatial(value)
    shape = (chosen.outputs, *chosen.size)
    bias = np.zeros(chosen.outputs) if bias is None else bias
    if value.base == value.shape:
        try:
            terms = tuple(convolved(term, chosen) for term in value.terms)
        except NotAConvolution:
            pass
        else:
            return Value(name, shape, merged(terms), _filtered_bias(value, chosen, bias), shape)
    whole = as_vector(value)
    count = whole.base[0]
    require_small(count * int(np.prod(shape)))
    if chosen.kernel.shape[2:] == (1, 1) and (chosen.stride, chosen.padding, chosen.groups) == ((1, 1), (0, 0), 1):
        matrix = np.kron(chosen.kernel[:, :, 0, 0], np.eye(value.shape[1] * value.shape[2]))
    else:
        matrix = _apply(chosen, np.eye(count).reshape(count, *value.shape)).reshape(count, -1).T
    return replace(
        multiply(replace(whole, shape=(count,)), name, matrix, bias.repeat(chosen.size[0] * chosen.size[1])),
        shape=shape,
    )


def _filtered_bias(value: Value, chosen: Filter, bias: Floats) -> Floats:
    if not value.bias.any():
        return bias
    ends = [
        (n - 1) * s + d * (k - 1) - p
        for n, s, d, k, p in zip(
            chosen.size, chosen.stride, chosen.dilation, chosen.kernel.shape[2:], chosen.padding, strict=True
        )
    ]
    if value.bias.ndim == 1 and max(chosen.padding) <= 0 and ends[0] < value.base[1] and ends[1] < value.base[2]:
        inputs = value.bias.reshape(chosen.groups, -1).repeat(chosen.outputs // chosen.groups, axis=0)
        return bias + (chosen.kernel.sum(axis=(2, 3)) * inputs).sum(axis=1)
    return _uniform(_apply(chosen, full_bias(value).copy()[None])[0] + bias.reshape(-1, 1, 1))


def _apply(chosen: Filter, maps: Floats) -> Floats:
    """The convolution of maps (n, C, H, W)."""
    around = []
    for axis in (1, 0):
        reach = chosen.dilation[axis] * (chosen.kernel.shape[2 + axis] - 1) + 1
        end = (chosen.size[axis] - 1) * chosen.stride[axis] + reach - chosen.padding[axis]
        around += [chosen.padding[axis], end - maps.shape[2 + axis]]
    padded = F.pad(torch.from_numpy(np.ascontiguousarray(maps)), around)
    found = F.conv2d(padded, torch.from_numpy(chosen.kernel), None, chosen.stride, 0, chosen.dilation, chosen.groups)
    return found.numpy()


def multiply(value: Value, name: str, matrix: Floats, bias: Floats | None) -> Value:
    """A matrix (O, N) of the flattened value; the result has the shape (O,)."""
    count = len(matrix)
    bias = np.zeros(count) if bias is None else bias
    if value.index is not None:
        inside = value.index.ravel() >= 0
        spread = np.zeros((int(np.prod(value.extent)), count))
        np.add.at(spread, value.index.ravel()[inside], matrix.T[inside])
        matrix = spread.T
    maps = matrix.reshape(count, *value.extent)
    if value.resample is not None:
        maps = np.einsum("ochw,hy,wx->ocyx", maps, *value.resample, optimize=True)
    every = np.arange(value.base[0])
    terms = tuple(
        multiplied(term, maps if np.array_equal(term.rows, every) else maps[:, term.rows]) for term in value.terms
    )
    if value.bias.any():
        bias = bias + maps.reshape(count, -1) @ full_bias(value).ravel()
    return Value(name, (count, 1, 1), merged(terms), bias, (count,))


def average(value: Value, rows: Floats, columns: Floats) -> Value:
    """Weighted means (H', H) and (W', W) along the two axes of a map (C, H, W)."""
    value = _as_spatial(value)
    channels = value.shape[0]
    windows = [_window(matrix) for matrix in (rows, columns)]
    shape = (channels, len(rows), len(columns))
    if value.base == value.shape:
        if all(windows):
            window = (windows[0], windows[1])
            terms = [averaged(term, window) for term in value.terms]
            if all(term is not None for term in terms):
                bias = value.bias if value.bias.ndim == 1 else _uniform(rows @ full_bias(value) @ columns.T)
                return replace(value, base=shape, terms=tuple(t for t in terms if t), bias=bias, shape=shape)
        kernels = [_kernel(matrix) for matrix in (rows, columns)]
        if kernels[0] is not None and kernels[1] is not None:
            (one, padding_y, stride_y), (two, padding_x, stride_x) = kernels[0], kernels[1]
            kernel = np.tile(np.outer(one, two), (channels, 1, 1, 1))
            chosen = Filter(kernel, shape[1:], (stride_y, stride_x), (padding_y, padding_x), groups=channels)
            return convolve(value, value.name, chosen, None)
        return replace(value, shape=shape, resample=(rows, columns), storage=object())
    matrix = np.kron(np.eye(channels), np.kron(rows, columns))
    return replace(multiply(replace(value, shape=value.base[:1]), value.name, matrix, None), shape=shape)


def _window(matrix: Floats) -> int:
    """p where the matrix takes the mean of every p entries, else 0."""
    p = matrix.shape[1] // len(matrix)
    return p if p and np.array_equal(matrix, np.kron(np.eye(len(matrix)), np.full((1, p), 1 / p))) else 0


def _kernel(matrix: Floats) -> tuple[Floats, int, int] | None:
    """Kernel, padding and stride of the convolution that the matrix is; None where its rows differ."""
    outputs, size = matrix.shape
    firsts = (matrix != 0).argmax(axis=1)
    counts = (matrix != 0).sum(axis=1)
    widest = int(counts.argmax())
    whole = np.flatnonzero(counts == counts[widest])
    stride = int(firsts[whole[1]] - firsts[whole[0]]) // int(whole[1] - whole[0]) if len(whole) > 1 else size
    kernel = matrix[widest, firsts[widest] : firsts[widest] + counts[widest]]
    padding = int(widest * stride - firsts[widest])
    if stride < 1:
        return None
    made = np.zeros_like(matrix)
    for i in range(outputs):
        for k, weight in enumerate(kernel):
            if 0 <= (place := i * stride + k - padding) < size:
                made[i, place] = weight
    return (kernel, padding, stride) if np.array_equal(made, matrix) else None
