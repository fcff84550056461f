"""Compiled loops: integrate-and-fire, sums of spikes over windows, and numbers of spikes.

All arrays are flat. Neurons lie in (H, W, C) order, and are handled in segments: runs of neighbouring neurons within
one row (y) of the map, so short that the parameters and potentials of a segment stay in the first-level cache while
the time steps pass over it. Several plain passes over a segment compile to vector instructions; one pass with every
case in it does not.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from nqlava.network import MEMBRANE_MAX

SEGMENT = 1024
"""Most neurons in a segment, if a single position has no more channels."""

_LOW, _HIGH = np.int32(-MEMBRANE_MAX), np.int32(MEMBRANE_MAX)
_WIDE = np.int64(2**30)
_compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")


class Extent(NamedTuple):
    """How the neurons of some samples are walked through.

    Attributes:
        samples, steps: n, T.
        rows: H.
        segments: per row.
        length: neurons in a segment.
    """

    samples: int
    steps: int
    rows: int
    segments: int
    length: int


class Neurons(NamedTuple):
    """Parameters of a layer, int32.

    Attributes:
        bias: of one segment, or of all neurons.
        threshold, v0, factor: of one segment; ``factor`` multiplies the spikes of an identity shortcut.
        hard: whether the reset is hard.
    """

    bias: NDArray[np.int32]
    threshold: NDArray[np.int32]
    v0: NDArray[np.int32]
    factor: NDArray[np.int32]
    hard: bool


class Currents(NamedTuple):
    """Σ w · in of some samples: exact integers in floating point.

    Attributes:
        values: float32 or float64, flat.
        image: distance between the values of two consecutive steps, and, times ``steps``, samples.
        row: distance between the values of two rows.
        steps: T, or 1 where the current is the same at all steps.
    """

    values: NDArray[np.floating[Any]]
    image: int
    row: int
    steps: int


class Watch(NamedTuple):
    """What is recorded about the membrane potential.

    Attributes:
        saturations: int64 (n,), how many clips changed a value; added to.
        range: int64 (2,), smallest and largest u; updated.
    """

    saturations: NDArray[np.int64]
    range: NDArray[np.int64]


@_compiled
def _copy(values, to):
    """Faster than a slice assignment, which allows for overlaps."""
    for i in range(len(to)):
        to[i] = values[i]


@_compiled
def _add32(v, current, bias):
    for i in range(len(v)):
        v[i] += np.int32(current[i]) + bias[i]


@_compiled
def _add64(v, current, bias):
    """Add sums beyond 32 bits, clipped to ±2³⁰: with a shortcut below 2²⁴ they saturate in ``_observe``."""
    for i in range(len(v)):
        u = np.int64(v[i]) + np.int64(current[i]) + np.int64(bias[i])
        v[i] = np.int32(min(max(u, -_WIDE), _WIDE))


@_compiled
def _add_shortcut(v, spikes, factor):
    for i in range(len(v)):
        v[i] += factor[i] * np.int32(spikes[i])


@_compiled
def _observe(v, extremes):
    """Updates the range and clips; how many values the clip changed."""
    low = high = v[0]
    for i in range(len(v)):
        low, high = min(low, v[i]), max(high, v[i])
    extremes[0] = min(extremes[0], np.int64(max(low, _LOW)))
    extremes[1] = max(extremes[1], np.int64(min(high, _HIGH)))
    if low >= _LOW and high <= _HIGH:
        return 0
    count = 0
    for i in range(len(v)):
        if v[i] < _LOW or v[i] > _HIGH:
            count += 1
            v[i] = min(max(v[i], _LOW), _HIGH)
    return count


@_compiled
def _fire_soft(v, threshold, spikes):
    for i in range(len(v)):
        u = v[i]
        fires = u >= threshold[i]
        spikes[i] = fires
        v[i] = u - (threshold[i] if fires else np.int32(0))


@_compiled
def _fire_hard(v, threshold, spikes):
    for i in range(len(v)):
        u = v[i]
        fires = u >= threshold[i]
        spikes[i] = fires
        v[i] = np.int32(0) if fires else u


@_compiled
def integrate_fire(extent, neurons, current, shortcut, first, v, watch, spikes):
    """u = clip(v + I + b, ±(2²³ − 1)), s = [u ≥ θ], then the reset, over the steps of one block.

    Args:
        extent: Extent of the block.
        neurons: Neurons of the layer.
        current: Currents; with one step the same current serves all of them.
        shortcut: uint8, spikes like ``spikes`` that arrive one to one, times ``factor``; empty for none.
        first: whether samples start here, with v(0); otherwise ``v`` holds their potentials.
        v: int32 (n · neurons), receives the potentials after the block; empty where they are not needed.
        watch: Watch.
        spikes: uint8 (n · T · neurons) in (n, T, H, W, C) order, written.
    """
    samples, steps, rows, segments, length = extent
    neurons_of_sample = rows * segments * length
    whole_bias = len(neurons.bias) > length
    local = np.empty(length, np.int32)
    for n in range(samples):
        saturated = 0
        for y in range(rows):
            for x in range(segments):
                place = (y * segments + x) * length
                stored = n * neurons_of_sample + place
                bias = neurons.bias[place : place + length] if whole_bias else neurons.bias
                _copy(neurons.v0 if first else v[stored : stored + length], local)
                for t in range(steps):
                    image = n * current.steps + (t if current.steps > 1 else 0)
                    source = image * current.image + y * current.row + x * length
                    if current.values.itemsize == 8:
                        _add64(local, current.values[source : source + length], bias)
                    else:
                        _add32(local, current.values[source : source + length], bias)
                    target = (n * steps + t) * neurons_of_sample + place
                    if len(shortcut):
                        _add_shortcut(local, shortcut[target : target + length], neurons.factor)
                    saturated += _observe(local, watch.range)
                    if neurons.hard:
                        _fire_hard(local, neurons.threshold, spikes[target : target + length])
                    else:
                        _fire_soft(local, neurons.threshold, spikes[target : target + length])
                if len(v):
                    _copy(local, v[stored : stored + length])
        watch.saturations[n] += saturated


@_compiled
def integrate(steps, neurons, current, first, v, watch, potentials):
    """The read-out: u = clip(v + I + b, ±(2²³ − 1)), v = u.

    Arguments as in ``integrate_fire``, with ``v`` int32 (n, K) always given; ``potentials`` int32 (n, T, K), written.
    """
    for n in range(len(v)):
        if first:
            v[n] = neurons.v0
        for t in range(steps):
            image = n * current.steps + (t if current.steps > 1 else 0)
            _add64(v[n], current.values[image * current.image : (image + 1) * current.image], neurons.bias)
            watch.saturations[n] += _observe(v[n], watch.range)
            potentials[n, t] = v[n]


@_compiled
def window_sums(maps, height, width, channels, window, sums):
    """Sums over windows that do not overlap.

    Args:
        maps: uint8 (n · H · W · C), flat.
        height, width, channels: H, W, C.
        window: (y, x) size of the windows; what fills no window is left out.
        sums: uint8 (n · ⌊H/y⌋ · ⌊W/x⌋ · C), flat, written; the caller knows that no sum exceeds 255.
    """
    rows, columns = height // window[0], width // window[1]
    for n in range(len(maps) // (height * width * channels)):
        for row in range(rows):
            for column in range(columns):
                total = sums[((n * rows + row) * columns + column) * channels :][:channels]
                total[:] = 0
                for y in range(row * window[0], (row + 1) * window[0]):
                    for x in range(column * window[1], (column + 1) * window[1]):
                        total += maps[((n * height + y) * width + x) * channels :][:channels]


def load() -> None:
    """Compiles the kernels, or loads what was compiled before, so that processes forked later need not."""
    one, sample = np.zeros(1, np.int32), np.zeros(1, np.int64)
    neurons = Neurons(one, one + 1, one, one, False)
    spikes, watch = np.zeros(1, np.uint8), Watch(sample, np.zeros(2, np.int64))
    for dtype in (np.float32, np.float64):
        current = Currents(np.zeros(1, dtype), 1, 1, 1)
        integrate_fire(Extent(1, 1, 1, 1, 1), neurons, current, spikes, True, one.copy(), watch, spikes.copy())
        integrate(1, neurons, current, True, one.reshape(1, 1).copy(), watch, one.reshape(1, 1, 1).copy())
    window_sums(spikes, 1, 1, 1, (1, 1), spikes.copy())


@_compiled
def count_ones(words):
    """Number of bits set in uint64 words: in each, sums over 2, 4, 8 bits side by side, then over the bytes."""
    pairs, fours = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    eights, ones = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
    total = np.uint64(0)
    for i in range(len(words)):
        x = words[i]
        x = x - ((x >> np.uint64(1)) & pairs)
        x = (x & fours) + ((x >> np.uint64(2)) & fours)
        x = (x + (x >> np.uint64(4))) & eights
        total += (x * ones) >> np.uint64(56)
    return total
