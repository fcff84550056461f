"""From affine maps to the connections that an integer network has: the kinds are chosen here."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from export.fold.folded import Floats, FoldedConnection, FoldedLayer, Indices
from export.fold.term import Term, placed, selected, undilated
from export.fold.value import Value, full_bias

_PARTS = 8  # into which the neurons of a concatenation are divided at most
_SMALL = 2**16  # weights of a layer that is not divided
_LARGEST = 2**28  # weights of one connection, as many as a file can hold in one array


def divided(terms: Sequence[Term], channels: int, *, dense: bool) -> Iterator[Indices]:
    """The channels of a layer in the parts that become layers of their own.

    Behind a concatenation different channels have different sources. As one layer, each connection would hold zeros for
    the channels of all other sources; so the channels with the same sources become a layer. A layer whose weights
    exceed what a file can hold in one array is divided too.
    """
    reached = np.zeros((len(terms), channels), bool)
    for number, term in enumerate(terms):
        reached[number, term.rows] = True
    starts = [0, *(1 + np.flatnonzero((reached[:, 1:] != reached[:, :-1]).any(axis=0)))]
    parts = [np.arange(a, b) for a, b in zip(starts, [*starts[1:], channels], strict=True)]
    together = sum(_weights(term, np.arange(channels), channels, dense=dense) for term in terms)
    apart = sum(_weights(term, part, len(part), dense=dense) for term in terms for part in parts)
    if len(parts) > 1 and (together <= _SMALL or 2 * apart > together):
        parts = [np.arange(channels)]
    if len(parts) > _PARTS:
        borders = [i * len(parts) // _PARTS for i in range(_PARTS + 1)]
        parts = [np.concatenate(parts[a:b]) for a, b in itertools.pairwise(borders)]
    for part in parts:
        most = max((_weights(term, part, len(part), dense=dense) for term in terms), default=0)
        yield from np.array_split(part, max(1, -(-most // _LARGEST)))


def _weights(term: Term, part: Indices, outputs: int, *, dense: bool) -> int:
    """Weights of the connection to the channels ``part`` that the term becomes."""
    if not np.isin(term.rows, part).any():
        return 0
    channels, height, width = term.means
    if dense:
        return outputs * channels * height * width * term.window[0] * term.window[1]
    inputs = channels // term.groups if _keeps_groups(term, part) else channels
    return outputs * inputs * term.kernel[0, 0].size * term.window[0] * term.window[1]


def _keeps_groups(term: Term, part: Indices) -> bool:
    """Whether the groups of the kernel are those of a convolution of all channels of the source to ``part``."""
    every = np.arange(term.means[0])
    return np.array_equal(term.rows, part) and np.array_equal(term.columns, every)


def layer(value: Value, name: str, part: Indices, *, dense: bool) -> FoldedLayer:
    """The neurons of the channels ``part`` of the value's base."""
    connections = []
    for term in value.terms:
        chosen = np.flatnonzero(np.isin(term.rows, part))
        if len(chosen):
            restricted = selected(term, chosen, np.searchsorted(part, term.rows[chosen]))
            connections.append(_connection(restricted, len(part), dense=dense))
    bias = value.bias[part] if value.bias.ndim == 1 or not dense else full_bias(value)[part].reshape(-1)
    if not connections:  # no source reaches these channels: their bias alone makes them fire
        connections.append(_silent(value, len(part), dense=dense))
    parameters = sum(term.parameters * np.isin(term.rows, part).sum() // len(term.rows) for term in value.terms)
    return FoldedLayer(name, tuple(connections), bias, parameters=int(parameters))


def _silent(value: Value, outputs: int, *, dense: bool) -> FoldedConnection:
    term = value.terms[0]
    kernel = np.zeros((1, 1, *term.kernel.shape[2:]))
    none = replace(term, kernel=kernel, rows=np.zeros(1, np.int64), columns=np.zeros(1, np.int64), groups=1)
    return _connection(replace(none, is_identity=False), outputs, dense=dense)


def _connection(term: Term, outputs: int, *, dense: bool) -> FoldedConnection:
    """The term as a connection to ``outputs`` channels."""
    if dense:
        return _dense(term, outputs)
    dilation = tuple(1 if k == 1 else d for k, d in zip(term.kernel.shape[2:], term.dilation, strict=True))
    fits = [_fitted(term, axis, dilation[axis]) for axis in (0, 1)]
    if None in fits:
        dilation = (1, 1)
        term = replace(term, kernel=undilated(term.kernel, term.dilation), dilation=dilation)
        fits = [_fitted(term, axis, 1) for axis in (0, 1)]
    (before_y, after_y, padding_y), (before_x, after_x, padding_x) = (fit for fit in fits if fit is not None)
    kernel, groups = _full(term, outputs)
    if before_y or after_y or before_x or after_x:
        kernel = np.pad(kernel, ((0, 0), (0, 0), (before_y, after_y), (before_x, after_x)))
    found = FoldedConnection(
        term.source, term.source_shape, kernel, term.window, term.stride, (padding_y, padding_x),
        (dilation[0], dilation[1]), groups, is_identity=term.is_identity,
    )  # fmt: skip
    assert found.output_shape == (outputs, *term.size)
    return found


def _fitted(term: Term, axis: int, dilation: int) -> tuple[int, int, int] | None:
    """Zero taps before and after the kernel, and the padding on both sides, that give the term's padding and size.

    With a taps before and b after, padding m on both sides must be a · dilation more than the term's, and
    (extent + 2 m − reach) // stride + 1 the size. None where no such taps exist with this dilation.
    """
    extent, size, stride, padding = term.means[1 + axis], term.size[axis], term.stride[axis], term.padding[axis]
    reach = dilation * (term.kernel.shape[2 + axis] - 1) + 1
    before = max(0, -(padding // dilation))
    while True:
        both = padding + before * dilation
        room = extent + 2 * both - reach - before * dilation - stride * (size - 1)  # what no output needs
        if room >= 0:
            after = -(-max(0, room - stride + 1) // dilation)
            return (before, after, both) if room - after * dilation >= 0 else None
        before += 1


def _full(term: Term, outputs: int) -> tuple[Floats, int]:
    """The kernel over all channels of the source and of the output, and its groups."""
    channels = term.means[0]
    if _keeps_groups(term, np.arange(outputs)):
        return term.kernel, term.groups
    kernel = np.zeros((outputs, channels, *term.kernel.shape[2:]))
    if term.is_diagonal:
        kernel[term.rows, term.columns] = term.kernel[:, 0]
    elif len(np.unique(term.columns)) == len(term.columns):
        kernel[np.ix_(term.rows, term.columns)] = term.full_kernel()
    else:
        full = term.full_kernel()
        for number, column in enumerate(term.columns):
            kernel[term.rows, column] += full[:, number]
    return kernel, 1


def _dense(term: Term, outputs: int) -> FoldedConnection:
    """A term to (C, 1, 1) as a matrix."""
    channels, height, width = term.means
    if term.is_identity and (height, width) == term.window == (1, 1) and _keeps_groups(term, np.arange(outputs)):
        return FoldedConnection(
            term.source, term.source_shape, term.kernel, term.window, groups=channels, is_dense=True,
            is_identity=term.is_identity,
        )  # fmt: skip
    kernel, _ = _full(replace(term, kernel=term.full_kernel(), groups=1), outputs)
    if (term.padding, kernel.shape[2:]) != ((0, 0), (height, width)):
        kernel = placed(undilated(kernel, term.dilation), term.padding, (height, width))
    return FoldedConnection(
        term.source, term.source_shape, kernel, term.window, is_dense=True, is_identity=term.is_identity
    )
