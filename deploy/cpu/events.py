"""Σ w · s from the spikes alone: every spike adds one row of weights, and neurons that are silent cost nothing."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray
from torch import Tensor

from export.network import Pair

_compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")

_WIDTHS = (32, 64, 128, 256)
"""Outputs whose sums stay in registers while rows are added to them. More are computed in several rounds, so that the
weights of one round stay in the second-level cache."""

_OFFSET = 128
"""Added to the weights, so that they are above 0."""

_ROWS = 256
"""Rows that are added in 16 bits: 256 · 255 still fits."""

_WORTHWHILE = 2**18
"""Synapses of a sample below which nothing is gained: calls take longer than their work."""

_TRIED = (1 / 32, 1 / 8)  # shares of neurons that spike in a trial
_TRIAL_SUMS = 2**17  # outputs in a trial, about; more where it takes many to pay for fetching the weights
_TRIAL_WEIGHTS = 32  # per output
_TRIAL_SAMPLES = 128

_ONES = np.array([[bit for bit in range(8) if byte >> bit & 1] + [0] * (8 - byte.bit_count()) for byte in range(256)])
_PLACES, _NUMBER = _ONES.astype(np.int32), np.array([byte.bit_count() for byte in range(256)])


class Geometry(NamedTuple):
    """Of a convolution over window sums.

    Attributes:
        height, width, channels: H, W, C of the map before the sums.
        window: (y, x) size of the windows; what fills no window is unused.
        kernel, stride, padding: (y, x), over the window sums.
        rows, columns, outputs: H', W', O of the result.
    """

    height: int
    width: int
    channels: int
    window: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    rows: int
    columns: int
    outputs: int


class Runs(NamedTuple):
    """Runs of neighbouring events that reach the same output position, one for each row of the kernel.

    Attributes:
        first, last: int64, the run's events, ``last`` excluded.
        start: int64, what is added to width · event to find the row of weights.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    start: NDArray[np.int64]


def _add_rows(weights, events, runs, count, held, width, scale, more, sums, at):
    """sums[at + o] = scale · Σ weights[start + width · event][o], o < width, over the events of the first runs.

    A row holds 128 + weight as uint8, those of output o and of o + width/2 side by side. Two of them are summed as one
    number of 16 bits, and the upper one alone a second time, which the first sum is then freed from: three operations
    for 64 outputs instead of the four that it takes to widen all of them and add.

    This is what it means. Compiled is a loop over vectors as long as all sums: they stay in registers, which compilers
    of plain loops do not achieve, since weights and sums might overlap.

    Args:
        weights, events: uint8, int32.
        runs, count: Runs, how many of them.
        held: events in all, 256 at most.
        width: a literal of _WIDTHS.
        scale: float32.
        more: whether to add to what is in ``sums``.
        sums, at: float32, and where in it.
    """
    total = np.zeros(width, np.uint16)
    for first, last, start in zip(runs.first[:count], runs.last[:count], runs.start[:count], strict=True):
        for event in events[first:last]:
            pairs = weights[start + width * event :][:width].reshape(-1, 2)
            total += pairs.T.reshape(-1)
    found = (total.astype(np.float32) - np.float32(_OFFSET * held)) * scale
    sums[at : at + width] = found + (sums[at : at + width] if more else 0)


@overload(_add_rows, prefer_literal=True)
def _compiled_add_rows(weights, events, runs, count, held, width, scale, more, sums, at):
    if not isinstance(width, types.IntegerLiteral):
        return None
    return lambda weights, events, runs, count, held, width, scale, more, sums, at: _vector_add_rows(
        weights, events, runs, count, held, width, scale, more, sums, at
    )


@intrinsic(prefer_literal=True)
def _vector_add_rows(_context, weights, events, runs, count, held, width, scale, more, sums, at):
    signature = types.void(weights, events, runs, count, held, width, scale, more, sums, at)
    return signature, _generate_rows


def _generate_rows(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    """``_add_rows`` as two nested loops whose sums are one vector."""

    def data(array: Any, kind: Any) -> Any:
        return context.make_array(kind)(context, builder, array).data

    def element(array: Any, index: Any) -> Any:
        return builder.load(builder.gep(array, [index]))

    weights, events, _, count, held, _, scale, more, sums, at = arguments
    kinds = signature.args
    lanes = kinds[5].literal_value
    index, number = ir.IntType(64), ir.FloatType()
    wide, floating = (ir.VectorType(kind, lanes // 2) for kind in (ir.IntType(16), number))
    byte = ir.Constant(wide, [8] * (lanes // 2))
    zero, one = ir.Constant(index, 0), ir.Constant(index, 1)
    origin, offsets = data(weights, kinds[0]), data(events, kinds[1])
    first, last, start = (data(builder.extract_value(arguments[2], i), kinds[2].types[i]) for i in range(3))
    target = builder.bitcast(builder.gep(data(sums, kinds[8]), [at]), floating.as_pointer())
    before = builder.block
    head, run, row, tail, after = (builder.append_basic_block(name) for name in ("head", "run", "row", "tail", "after"))
    builder.branch(head)

    builder.position_at_end(head)
    chosen, both, highs = builder.phi(index), builder.phi(wide), builder.phi(wide)
    builder.cbranch(builder.icmp_signed("<", chosen, count), run, after)

    builder.position_at_end(run)
    begin, end = element(first, chosen), element(last, chosen)
    rows = builder.gep(origin, [element(start, chosen)])
    builder.cbranch(builder.icmp_signed("<", begin, end), row, tail)

    builder.position_at_end(row)
    event, row_both, row_highs = builder.phi(index), builder.phi(wide), builder.phi(wide)
    place = builder.mul(builder.sext(element(offsets, event), index), ir.Constant(index, lanes))
    pairs = builder.load(builder.bitcast(builder.gep(rows, [place]), wide.as_pointer()), align=1)
    next_both = builder.add(row_both, pairs)
    next_highs = builder.add(row_highs, builder.lshr(pairs, byte))
    following = builder.add(event, one)
    builder.cbranch(builder.icmp_signed("<", following, end), row, tail)

    builder.position_at_end(tail)
    run_both, run_highs = builder.phi(wide), builder.phi(wide)
    following_run = builder.add(chosen, one)
    builder.branch(head)
    nothing = ir.Constant(wide, None)
    for phi, *incoming in (
        (chosen, (zero, before), (following_run, tail)),
        (both, (nothing, before), (run_both, tail)),
        (highs, (nothing, before), (run_highs, tail)),
        (event, (begin, run), (following, row)),
        (row_both, (both, run), (next_both, row)),
        (row_highs, (highs, run), (next_highs, row)),
        (run_both, (both, run), (next_both, row)),
        (run_highs, (highs, run), (next_highs, row)),
    ):
        for value, block in incoming:
            phi.add_incoming(value, block)

    builder.position_at_end(after)
    lows = builder.sub(both, builder.shl(highs, byte))
    offset = builder.fmul(builder.sitofp(held, number), ir.Constant(number, _OFFSET))
    offsets_of_all, scales = _splat(builder, offset, floating), _splat(builder, scale, floating)
    results = [builder.fmul(builder.fsub(builder.uitofp(v, floating), offsets_of_all), scales) for v in (lows, highs)]
    targets = [target, builder.gep(target, [one])]
    with builder.if_else(more) as (added, stored):
        with added:
            for result, place in zip(results, targets, strict=True):
                builder.store(builder.fadd(builder.load(place, align=4), result), place, align=4)
        with stored:
            for result, place in zip(results, targets, strict=True):
                builder.store(result, place, align=4)
    return context.get_dummy_value()


def _place_eight(places, row, base, events, at):
    """events[at : at + 8] = places[row] + base; compiled, in one vector."""
    events[at : at + 8] = places[row] + base


@overload(_place_eight)
def _compiled_place_eight(places, row, base, events, at):
    return lambda places, row, base, events, at: _vector_place_eight(places, row, base, events, at)


@intrinsic
def _vector_place_eight(_context, places, row, base, events, at):
    return types.void(places, row, base, events, at), _generate_place


def _generate_place(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    """``_place_eight`` as one load, one sum and one store."""
    eight, number = ir.VectorType(ir.IntType(32), 8), ir.IntType(32)

    def pointer(index: int, offset: Any) -> Any:
        array = context.make_array(signature.args[index])(context, builder, arguments[index])
        return builder.bitcast(builder.gep(array.data, [offset]), eight.as_pointer())

    row = builder.load(pointer(0, builder.mul(arguments[1], ir.Constant(ir.IntType(64), 8))), align=4)
    base = _splat(builder, builder.trunc(arguments[2], number), eight)
    builder.store(builder.add(row, base), pointer(3, arguments[4]), align=4)
    return context.get_dummy_value()


def _splat(builder: ir.IRBuilder, value: Any, vector: ir.VectorType) -> Any:
    """A vector of one value."""
    first, undefined = ir.Constant(ir.IntType(32), 0), ir.Constant(vector, ir.Undefined)
    same = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(undefined, value, first), undefined, same)


@_compiled
def count_spikes(spikes):
    """Number of ones in uint8 spikes (N,)."""
    total = 0
    for start in range(0, len(spikes), 2**16):
        part = np.uint32(0)
        for spike in spikes[start : start + 2**16]:
            part += np.uint32(spike)
        total += part
    return total


@_compiled
def find_events(spikes, samples, geometry, places, number, first, events):
    """Where the spikes are.

    Args:
        spikes: uint8 (n · H · W · C), 0 or 1.
        samples, geometry: n, Geometry.
        places: int32 (256, 8), for every byte the places of its ones. number: int64 (256,), how many they are.
        first: int64 (n · rows · columns + 1), written: the first event of every window, and the number of events.
        events: int32 (number of spikes + 8), written: x · C + c for a spike of channel c in column x of windows.
    """
    window_height, window_width = geometry.window
    channels, width = geometry.channels, geometry.width
    bytewise = channels % 8 != 0
    words = spikes[:0].view(np.uint64) if bytewise else spikes.view(np.uint64)
    gather = np.uint64(0x0102040810204080)  # moves the lowest bits of 8 bytes into the highest byte
    found, place = 0, 0
    for n in range(samples):
        for y in range(geometry.height // window_height):
            for x in range(width // window_width):
                first[place] = found
                place += 1
                for row in range(y * window_height, (y + 1) * window_height):
                    for column in range(x * window_width, (x + 1) * window_width):
                        start = ((n * geometry.height + row) * width + column) * channels
                        if bytewise:
                            for c in range(channels):
                                events[found] = x * channels + c
                                found += spikes[start + c]
                            continue
                        for c in range(0, channels, 8):
                            byte = np.int64((words[(start + c) // 8] * gather) >> np.uint64(56))
                            _place_eight(places, byte, x * channels + c, events, found)
                            found += number[byte]
    first[place] = found


@_compiled
def _add(weights, events, runs, count, held, width, scale, more, sums, at):
    """_add_rows, for a width that is known when it runs."""
    if width == 32:
        _add_rows(weights, events, runs, count, held, 32, scale, more, sums, at)
    elif width == 64:
        _add_rows(weights, events, runs, count, held, 64, scale, more, sums, at)
    elif width == 128:
        _add_rows(weights, events, runs, count, held, 128, scale, more, sums, at)
    else:
        _add_rows(weights, events, runs, count, held, 256, scale, more, sums, at)


@_compiled
def add_events(first, events, samples, geometry, weights, scale, sums):
    """Σ w · s of all outputs.

    Args:
        first, events: of ``find_events``.
        samples, geometry: n, Geometry.
        weights: uint8 (rounds, kh · kw · C, width), with width in _WIDTHS, as ``_add_rows`` takes their rows.
        scale: float32, a power of two.
        sums: float32 (n · H' · W' · O), written; exact, if all are below 2²⁴ in magnitude.
    """
    rounds, inputs, width = weights.shape
    rows, columns = geometry.height // geometry.window[0], geometry.width // geometry.window[1]
    kernel_height, kernel_width = geometry.kernel
    flat, spare = weights.reshape(-1), np.empty(width, np.float32)
    runs = Runs(np.empty(kernel_height, np.int64), np.empty(kernel_height, np.int64), np.empty(kernel_height, np.int64))
    for turn in range(rounds):
        outputs = min(width, geometry.outputs - turn * width)
        for n in range(samples):
            for y in range(geometry.rows):
                top = y * geometry.stride[0] - geometry.padding[0]
                for x in range(geometry.columns):
                    left = x * geometry.stride[1] - geometry.padding[1]
                    low, high = max(0, left), min(columns, left + kernel_width)
                    place = ((n * geometry.rows + y) * geometry.columns + x) * geometry.outputs + turn * width
                    target, at = (sums, place) if outputs == width else (spare, 0)
                    count, held, more = 0, 0, False
                    for row in range(max(0, top), min(rows, top + kernel_height) if low < high else 0):
                        here = (n * rows + row) * columns
                        k, end = first[here + low], first[here + high]
                        start = (turn * inputs + ((row - top) * kernel_width - left) * geometry.channels) * width
                        while k < end:
                            last = min(end, k + _ROWS - held)
                            runs.first[count], runs.last[count], runs.start[count] = k, last, start
                            count += 1
                            held += last - k
                            k = last
                            if held == _ROWS:
                                _add(flat, events, runs, count, held, width, scale, more, target, at)
                                count, held, more = 0, 0, True
                    if held or not more:
                        _add(flat, events, runs, count, held, width, scale, more, target, at)
                    if outputs < width:
                        for o in range(outputs):
                            sums[place + o] = spare[o]


_TRIALS: dict[tuple[Geometry, str], float] = {}


class Events:
    """Σ w · s of spikes s ∈ {0, 1}: of every spike, the row of weights to all outputs is added to what it reaches.

    Rows are added in 16 bits, 256 of them at most, and these sums in float32: exact while the largest |sum| is below
    2²⁴. The time grows with the number of spikes (synaptic operations), not with that of the synapses.

    Args:
        weight: int8 (O, C, kh, kw), −127 … 127.
        scale: a power of two.
        geometry: of the convolution.
    """

    def __init__(self, weight: NDArray[np.int8], scale: float, geometry: Geometry) -> None:
        self._geometry, self._scale = geometry, np.float32(scale)
        width = next((width for width in _WIDTHS if geometry.outputs <= width), _WIDTHS[-1])
        rounds = -(-geometry.outputs // width)
        padded = np.zeros((rounds * width, weight[0].size), np.int8)
        padded[: len(weight)] = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        pairs = (padded.astype(np.int16) + _OFFSET).astype(np.uint8).reshape(rounds, 2, width // 2, -1)
        self._weights = np.ascontiguousarray(pairs.transpose(0, 3, 2, 1)).reshape(rounds, -1, width)

    def sums(self, spikes: Tensor, count: int) -> Tensor:
        """float32 (n, H', W', O) of contiguous uint8 spikes (n, H, W, C), ``count`` of which are 1."""
        g, samples = self._geometry, len(spikes)
        windows = samples * (g.height // g.window[0]) * (g.width // g.window[1])
        first, events = np.empty(windows + 1, np.int64), np.empty(count + 8, np.int32)
        find_events(spikes.numpy().reshape(-1), samples, g, _PLACES, _NUMBER, first, events)
        sums = np.empty((samples, g.rows, g.columns, g.outputs), np.float32)
        add_events(first, events, samples, g, self._weights, self._scale, sums.reshape(-1))
        return torch.from_numpy(sums)

    def break_even(self, name: str, dense: Callable[[Tensor], Tensor]) -> float:
        """The share of neurons that spike below which this is faster than ``dense``, by trial.

        The time is taken to be a straight line over the share, through those of two trials. 0 for small layers, where
        it is below the smaller of these shares, and where the sums differ. Layers alike share a trial.

        Args:
            name: of the kernel behind ``dense``.
            dense: sums of spikes (n, H, W, C), as ``sums``.
        """
        key = (self._geometry, name)
        if key not in _TRIALS:
            _TRIALS[key] = self._try(dense)
        return _TRIALS[key]

    def _try(self, dense: Callable[[Tensor], Tensor]) -> float:
        g = self._geometry
        if g.rows * g.columns * self._weights.size < _WORTHWHILE:
            return 0.0
        outputs = max(_TRIAL_SUMS, self._weights.size // _TRIAL_WEIGHTS)
        samples = int(np.clip(outputs // (g.rows * g.columns * g.outputs), 1, _TRIAL_SAMPLES))
        generator = np.random.default_rng(0)
        times = []
        for share in _TRIED:
            values = generator.integers(256, size=(samples, g.height, g.width, g.channels), dtype=np.uint8)
            spikes = torch.from_numpy((values < 256 * share).view(np.uint8))
            count = count_spikes(spikes.numpy().reshape(-1))
            if not torch.equal(self.sums(spikes, count), dense(spikes).float()):
                return 0.0
            times.append(_seconds(partial(self.sums, spikes, count)))
        slope = (times[1] - times[0]) / (_TRIED[1] - _TRIED[0])
        left = _seconds(partial(dense, spikes)) - times[0]
        if left <= 0:
            return 0.0
        return min(1.0, _TRIED[0] + left / slope) if slope > 0 else 1.0


def _seconds(compute: Callable[[], object]) -> float:
    """The least time of three calls on one thread, as which engine and Lava compute."""
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            began = time.perf_counter()
            compute()
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return min(times)


def load() -> None:
    """Compiles the kernels, or loads what was compiled before, so that processes forked later need not."""
    geometry = Geometry(1, 1, 8, (1, 1), (1, 1), (1, 1), (0, 0), 1, 1, 1)
    Events(np.ones((1, 8, 1, 1), np.int8), 1.0, geometry).sums(torch.ones(1, 1, 1, 8, dtype=torch.uint8), 8)
    count_spikes(np.ones(1, np.uint8))
