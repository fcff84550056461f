"""One affine map from a source to a map of channels, and how convolutions, selections and matrices compose with it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from export.fold.folded import Floats, Indices
from nqlava.network import Pair

LARGEST = 2**27
"""Values of one matrix that are held in float64: 1 GiB."""


class NotAConvolution(Exception):
    """A map that is no convolution of its source: its positions differ, as at borders."""


class Unsupported(Exception):
    """An operation that spikes and synapses cannot do: what is there, and what works instead."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(found, allowed)
        self.found, self.allowed = found, allowed


def require_small(values: int) -> None:
    """Unsupported where a matrix has more than ``LARGEST`` values."""
    if values > LARGEST:
        raise Unsupported(
            "is no convolution of what came before (two paddings without an activation between, or windows cut at the "
            f"border), and its matrix would have more than {LARGEST:,} values",
            "padding in one of the two, an activation between them, or windows that divide the map",
        )


@dataclass(frozen=True)
class Term:
    """A convolution of the window means of one source, to some channels of a map (C, H, W).

        out[rows[r], y, x] += Σ over s, i, j of kernel[r, s, i, j] · means[columns[s], y · stride + i · dilation − m,
                                                                           x · stride + j · dilation − m]

    m is the padding. Means outside the source are 0. A matrix is a kernel as large as the source, to a map (O, 1, 1).

    Attributes:
        source: name of a layer, or "input".
        source_shape: (C, H, W) or (N,).
        kernel: float64 (R, S/groups, kh, kw).
        rows: int64 (R,), ascending, the channels that it contributes to.
        columns: int64 (S,), the channels of the source that it takes.
        size: (H, W) of the output.
        window: (y, x) of the averaging; it divides the source.
        stride, padding, dilation: (y, x); the padding is that before the first row and column, and may be negative.
        groups: of the kernel, over ``rows`` and ``columns``.
        is_identity: whether it only passes spikes or pooled spikes on, each with a factor.
        parameters: weights of the filters and matrices that were multiplied out.
    """

    source: str
    source_shape: tuple[int, ...]
    kernel: Floats
    rows: Indices
    columns: Indices
    size: Pair
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    is_identity: bool = False
    parameters: int = 0

    @property
    def means(self) -> tuple[int, int, int]:
        """(C, H, W) of the window means."""
        channels, *size = self.source_shape if len(self.source_shape) == 3 else (*self.source_shape, 1, 1)
        return channels, size[0] // self.window[0], size[1] // self.window[1]

    @property
    def is_diagonal(self) -> bool:
        """Whether every row takes one channel."""
        return self.groups == len(self.rows) == len(self.columns)

    @property
    def is_pointwise(self) -> bool:
        """Whether every output takes the means at its own place alone."""
        moved = (self.stride, self.padding) != ((1, 1), (0, 0)) or self.size != self.means[1:]
        return self.kernel.shape[2:] == (1, 1) and not moved

    def full_kernel(self) -> Floats:
        """The kernel with groups = 1, (R, S, kh, kw)."""
        if self.groups == 1:
            return self.kernel
        outputs, inputs = len(self.rows) // self.groups, len(self.columns) // self.groups
        kernel = np.zeros((len(self.rows), len(self.columns), *self.kernel.shape[2:]))
        for g in range(self.groups):
            block = slice(g * outputs, (g + 1) * outputs)
            kernel[block, g * inputs : (g + 1) * inputs] = self.kernel[block]
        return kernel


def source_term(name: str, shape: tuple[int, ...], amplitude: float, rows: Indices | None = None) -> Term:
    """The output of a layer whose spikes stand for ``amplitude``, as the channels ``rows`` of a map."""
    channels, *size = shape if len(shape) == 3 else (*shape, 1, 1)
    every = np.arange(channels)
    kernel = np.full((channels, 1, 1, 1), amplitude)
    rows = every if rows is None else rows
    return Term(name, shape, kernel, rows, every, (size[0], size[1]), groups=channels, is_identity=True)


def scaled(term: Term, gain: Floats) -> Term:
    """With channel c of the map times gain[c]."""
    return replace(term, kernel=term.kernel * gain[term.rows].reshape(-1, 1, 1, 1))


def selected(term: Term, chosen: Indices, rows: Indices) -> Term:
    """Some of the rows, ``chosen`` in ``term.rows``, each perhaps several times, as the channels ``rows``."""
    order = np.argsort(rows, kind="stable")
    chosen, rows = chosen[order], rows[order]
    if len(chosen) == len(term.rows) and np.array_equal(chosen, np.arange(len(chosen))):
        return replace(term, rows=rows)
    if term.is_diagonal:
        return replace(
            term, kernel=term.kernel[chosen], rows=rows, columns=term.columns[chosen], groups=max(1, len(rows))
        )
    outputs, inputs = len(term.rows) // term.groups, len(term.columns) // term.groups
    groups = chosen[::outputs] // outputs
    whole = (groups[:, None] * outputs + np.arange(outputs)).ravel()
    if term.groups > 1 and np.array_equal(whole, chosen):
        columns = term.columns.reshape(term.groups, inputs)[groups].ravel()
        return replace(term, kernel=term.kernel[chosen], rows=rows, columns=columns, groups=len(groups))
    kernel = term.full_kernel()[chosen]
    if term.groups > 1:
        used = np.unique(chosen // outputs)[:, None] * inputs + np.arange(inputs)
        kernel, term = kernel[:, used.ravel()], replace(term, columns=term.columns[used.ravel()])
    return replace(term, kernel=kernel, rows=rows, groups=1)


def moved(term: Term, start: Pair, stride: Pair, size: Pair) -> Term:
    """The map at the places start + i · stride, i < size, and 0 outside of the map."""
    for axis in (0, 1):
        _require_zero_outside(term, axis, start[axis] + stride[axis] * np.arange(size[axis]))
    padding = tuple(p - s * first for p, s, first in zip(term.padding, term.stride, start, strict=True))
    steps = tuple(s * further for s, further in zip(term.stride, stride, strict=True))
    return replace(term, stride=_two(steps), padding=_two(padding), size=size)


def _two(values: tuple[int, ...]) -> Pair:
    return int(values[0]), int(values[1])


def _require_zero_outside(term: Term, axis: int, places: Indices) -> None:
    """NotAConvolution unless the kernel, at those of the places that are outside the map, sees only zeros."""
    outside = places[(places < 0) | (places >= term.size[axis])]
    if not len(outside):
        return
    taps = np.flatnonzero(term.kernel.any(axis=(0, 1, 3 - axis))) * term.dilation[axis]
    seen = outside[:, None] * term.stride[axis] + taps - term.padding[axis]
    if ((seen >= 0) & (seen < term.means[1 + axis])).any():
        raise NotAConvolution


@dataclass(frozen=True)
class Filter:
    """A convolution (O, I/groups, kh, kw) of a map with zeros around it: ``padding`` before, the rest as size asks for.

    Attributes:
        size: (H, W) of the output.
    """

    kernel: Floats
    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def outputs(self) -> int:
        return len(self.kernel)


def convolved(term: Term, chosen: Filter) -> Term:
    """The convolution of the map, without bias; NotAConvolution where zeros around the map matter."""
    for axis in (0, 1):
        taps = np.arange(chosen.kernel.shape[2 + axis]) * chosen.dilation[axis] - chosen.padding[axis]
        places = (np.arange(chosen.size[axis])[:, None] * chosen.stride[axis] + taps).ravel()
        _require_zero_outside(term, axis, np.unique(places))
    kernel, rows, groups = _on_rows(chosen, term.rows)
    if term.is_diagonal and term.kernel.shape[2:] == (1, 1):
        factor = term.kernel.reshape(groups, -1).repeat(len(rows) // groups, axis=0)
        product, dilation = kernel * factor[:, :, None, None], _times(chosen.dilation, term.stride)
    else:
        product, dilation, groups = _product(term, kernel, groups, chosen.dilation)
    padding = tuple(p + s * q for p, s, q in zip(term.padding, term.stride, chosen.padding, strict=True))
    return replace(
        term,
        kernel=product,
        rows=rows,
        size=chosen.size,
        stride=_times(term.stride, chosen.stride),
        padding=_two(padding),
        dilation=dilation,
        groups=groups,
        is_identity=False,
        parameters=term.parameters + kernel.size,
    )


def _times(one: Pair, two: Pair) -> Pair:
    return one[0] * two[0], one[1] * two[1]


def _on_rows(chosen: Filter, rows: Indices) -> tuple[Floats, Indices, int]:
    """The part of the filter that takes these channels, the channels it leads to, and its groups."""
    kernel, groups = chosen.kernel, chosen.groups
    inputs, outputs = kernel.shape[1], len(kernel) // groups
    if groups == 1:
        every = np.arange(len(kernel))
        return (kernel if len(rows) == inputs else kernel[:, rows]), every, 1
    touched = np.unique(rows // inputs)
    led = (touched[:, None] * outputs + np.arange(outputs)).ravel()
    if len(rows) == len(touched) * inputs:
        return (kernel if len(led) == len(kernel) else kernel[led]), led, len(touched)
    full = np.zeros((len(led), len(rows), *kernel.shape[2:]))
    place = np.searchsorted(touched, rows // inputs)
    for column, (row, group) in enumerate(zip(rows, place, strict=True)):
        block = slice(group * outputs, (group + 1) * outputs)
        full[block, column] = kernel[led[block], row % inputs]
    return full, led, 1


def _product(term: Term, kernel: Floats, groups: int, dilation: Pair) -> tuple[Floats, Pair, int]:
    """Kernel, dilation and groups of ``kernel`` behind the term's kernel."""
    first, second = term.kernel, kernel
    common = int(np.gcd(groups, term.groups))
    first = _regrouped(first, term.groups, common)
    second = _regrouped(second, groups, common)
    spacing = _times(dilation, term.stride)
    if second.shape[2:] == (1, 1):
        spacing, both = (1, 1), term.dilation
    elif first.shape[2:] == (1, 1):
        spacing, both = (1, 1), spacing
    else:
        first, both = undilated(first, term.dilation), (1, 1)
    height, width = first.shape[2:]
    taps = second.shape[2:]
    size = (height + (taps[0] - 1) * spacing[0], width + (taps[1] - 1) * spacing[1])
    outputs, inputs = len(second) // common, first.shape[1]
    total = np.zeros((common, outputs, inputs, *size))
    blocks = first.reshape(common, len(first) // common, inputs * height * width)
    for i in range(taps[0]):
        for j in range(taps[1]):
            part = second[:, :, i, j].reshape(common, outputs, -1) @ blocks
            y, x = i * spacing[0], j * spacing[1]
            total[..., y : y + height, x : x + width] += part.reshape(common, outputs, inputs, height, width)
    return total.reshape(len(second), inputs, *size), both, common


def _regrouped(kernel: Floats, groups: int, fewer: int) -> Floats:
    """The same kernel with fewer groups, a divisor of its own."""
    if groups == fewer:
        return kernel
    outputs, inputs = len(kernel) // groups, kernel.shape[1]
    merged = groups // fewer
    full = np.zeros((len(kernel), inputs * merged, *kernel.shape[2:]))
    for g in range(groups):
        block, first = slice(g * outputs, (g + 1) * outputs), g % merged * inputs
        full[block, first : first + inputs] = kernel[block]
    return full


def undilated(kernel: Floats, dilation: Pair) -> Floats:
    """The same kernel with dilation 1: zeros between the taps."""
    if dilation == (1, 1):
        return kernel
    size = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[2:], strict=True))
    full = np.zeros(kernel.shape[:2] + size)
    full[:, :, :: dilation[0], :: dilation[1]] = kernel
    return full


def averaged(term: Term, window: Pair) -> Term | None:
    """Means of windows that divide the map, of a term that then takes means of larger windows; None for other terms.

    Weights that take one place commute with the mean: it is taken of the spikes first.
    """
    if not term.is_pointwise or any(n % p for n, p in zip(term.size, window, strict=True)):
        return None
    size = (term.size[0] // window[0], term.size[1] // window[1])
    return replace(term, window=_times(term.window, window), size=size)


def multiplied(term: Term, matrix: Floats) -> Term:
    """Σ over channels and places of matrix · map, to a map (O, 1, 1); the matrix (O, R, H, W) is for its rows."""
    every = np.arange(len(matrix))
    term = replace(term, parameters=term.parameters + matrix.size)
    if term.is_pointwise and term.is_diagonal:
        return _as_matrix(term, matrix * term.kernel.reshape(1, -1, 1, 1), every)
    _, height, width = term.means
    require_small(len(matrix) * len(term.columns) * height * width)
    if term.is_pointwise:
        kernel = np.einsum("orhw,rs->oshw", matrix, term.full_kernel()[:, :, 0, 0], optimize=True)
        return _as_matrix(term, kernel, every)
    whole = (term.size, term.padding, term.kernel.shape[1:]) == ((1, 1), (0, 0), (len(term.columns), height, width))
    if term.is_identity and whole:  # each row has at most one entry that is not 0
        passed = term.kernel.reshape(len(term.rows), -1)
        taken = np.abs(passed).argmax(axis=1)
        kernel = np.zeros((passed.shape[1], len(matrix)))
        np.add.at(kernel, taken, (matrix[:, :, 0, 0] * passed[np.arange(len(passed)), taken]).T)
        return _as_matrix(term, kernel.T.reshape(-1, *term.kernel.shape[1:]), every)
    spread = F.conv_transpose2d(
        torch.from_numpy(np.ascontiguousarray(matrix)),
        torch.from_numpy(term.kernel),
        stride=term.stride,
        dilation=term.dilation,
        groups=term.groups,
    ).numpy()
    return _as_matrix(term, placed(spread, term.padding, (height, width)), every)


def _as_matrix(term: Term, kernel: Floats, rows: Indices) -> Term:
    ones = (1, 1)
    return replace(
        term, kernel=kernel, rows=rows, size=ones, stride=ones, padding=(0, 0), dilation=ones, groups=1,
        is_identity=False,
    )  # fmt: skip


def placed(values: Floats, padding: Pair, size: Pair) -> Floats:
    """values (..., h, w), which begin at −padding, on a map of the size: cut, and with zeros around."""
    placed = np.zeros(values.shape[:-2] + size)
    cuts = []
    for axis in (0, 1):
        first = -padding[axis]
        low, high = max(first, 0), min(first + values.shape[axis - 2], size[axis])
        cuts.append((slice(low, max(low, high)), slice(low - first, max(low, high) - first)))
    placed[..., cuts[0][0], cuts[1][0]] = values[..., cuts[0][1], cuts[1][1]]
    return placed


def flattened(term: Term) -> Term:
    """The same to a map (C · H · W, 1, 1): one row for every place."""
    height, width = term.size
    _, high, wide = term.means
    require_small(len(term.rows) * height * width * len(term.columns) * high * wide)
    kernel = undilated(term.full_kernel(), term.dilation)
    matrix = np.zeros((len(term.rows), height, width, len(term.columns), high, wide))
    for y in range(height):
        for x in range(width):
            padding = (term.padding[0] - y * term.stride[0], term.padding[1] - x * term.stride[1])
            matrix[:, y, x] = placed(kernel, padding, (high, wide))
    places = term.rows[:, None] * height * width + np.arange(height * width)
    made = _as_matrix(term, matrix.reshape(-1, len(term.columns), high, wide), places.ravel())
    return replace(made, is_identity=term.is_identity)
