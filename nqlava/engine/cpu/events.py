"""Σ w · s from the spikes alone: every spike adds one row of weights, and neurons that are silent cost nothing.

Behind a pooling the inputs are window sums, numbers of spikes. An event is a binary digit of an input that is 1: three
spikes in a window are two events, one of which counts twice. Four spikes take one row instead of four.
"""

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

from nqlava.engine.cpu.kernels import count_ones
from nqlava.network import Pair

_compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
_inlined = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", forceinline=True)

_WIDTHS = (32, 64, 128, 256)
"""Outputs whose sums stay in registers while rows are added to them. More are computed in several rounds, so that the
weights of one round stay in the second-level cache."""

_OFFSET = 128
"""Added to the weights, so that they are above 0."""

_ROWS = 256
"""Rows that are added in 16 bits, each as often as its digit says: 256 · 255 still fits."""

_WORTHWHILE = 2**18
"""Synapses of a sample below which nothing is gained: calls take longer than their work."""

_TRIED = (1 / 32, 1 / 8)  # shares of neurons that spike in a trial
_TRIAL_SUMS = 2**17  # outputs in a trial, about; more where it takes many to pay for fetching the weights
_TRIAL_WEIGHTS = 32  # per output
_TRIAL_SAMPLES = 128

_ONES = np.array([[bit for bit in range(8) if byte >> bit & 1] + [0] * (8 - byte.bit_count()) for byte in range(256)])
_PLACES, _NUMBER = _ONES.astype(np.int32), np.array([byte.bit_count() for byte in range(256)])


class Geometry(NamedTuple):
    """Sizes of a convolution.

    Attributes:
        height, width, channels: H, W, C of its input.
        window: spikes that an input is the sum of, and the largest it can be; 1 without a pooling.
        kernel, stride, padding: (y, x).
        rows, columns, outputs: H', W', O of the result.
    """

    height: int
    width: int
    channels: int
    window: int
    kernel: Pair
    stride: Pair
    padding: Pair
    rows: int
    columns: int
    outputs: int


class Runs(NamedTuple):
    """Runs of neighbouring events that reach the same output position, one for each row of the kernel and digit.

    Attributes:
        first, last: int64, the run's events, ``last`` excluded; at least one.
        start: int64, what is added to width · event to find the row of weights.
        doublings: int64, how often the sum so far is doubled before: its events are of so many higher digits.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    start: NDArray[np.int64]
    doublings: NDArray[np.int64]


def _add_rows(weights, events, runs, count, held, width, scale, more, sums, at):
    """sums[at + o] = scale · Σ digit · weights[start + width · event][o], o < width, over the events of the first runs.

    An event's digit is 1 in the last run, and twice as much for every doubling that follows its own run.

    A row holds 128 + weight as uint8, those of output o and of o + width/2 side by side. Two of them are summed as one
    number of 16 bits, and the upper one alone a second time, which the first sum is then freed from: three operations
    for 64 outputs instead of the four that it takes to widen all of them and add.

    This is what it means. Compiled is a loop over vectors as long as all sums: they stay in registers, which compilers
    of plain loops do not achieve, since weights and sums might overlap.

    Args:
        weights, events: uint8, int32.
        runs, count: Runs, how many of them.
        held: Σ digit, 256 at most.
        width: a literal of _WIDTHS.
        scale: float32.
        more: whether to add to what is in ``sums``.
        sums, at: float32, and where in it.
    """
    total = np.zeros(width, np.uint16)
    for run in range(count):
        total <<= np.uint16(runs.doublings[run])
        for event in events[runs.first[run] : runs.last[run]]:
            pairs = weights[runs.start[run] + width * event :][:width].reshape(-1, 2)
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
    short = ir.IntType(16)
    wide, floating = (ir.VectorType(kind, lanes // 2) for kind in (short, number))
    byte = ir.Constant(wide, [8] * (lanes // 2))
    zero, one = ir.Constant(index, 0), ir.Constant(index, 1)
    origin, offsets = data(weights, kinds[0]), data(events, kinds[1])
    first, last, start, doublings = (data(builder.extract_value(arguments[2], i), kinds[2].types[i]) for i in range(4))
    target = builder.bitcast(builder.gep(data(sums, kinds[8]), [at]), floating.as_pointer())
    before = builder.block
    head, run, row, tail, after = map(builder.append_basic_block, ("head", "run", "row", "tail", "after"))
    builder.branch(head)

    builder.position_at_end(head)
    chosen, both, highs = builder.phi(index), builder.phi(wide), builder.phi(wide)
    builder.cbranch(builder.icmp_signed("<", chosen, count), run, after)

    builder.position_at_end(run)
    begin, end = element(first, chosen), element(last, chosen)
    rows = builder.gep(origin, [element(start, chosen)])
    twice = _splat(builder, builder.trunc(element(doublings, chosen), short), wide)
    run_both, run_highs = builder.shl(both, twice), builder.shl(highs, twice)
    builder.branch(row)

    builder.position_at_end(row)
    event, row_both, row_highs = builder.phi(index), builder.phi(wide), builder.phi(wide)
    place = builder.mul(builder.sext(element(offsets, event), index), ir.Constant(index, lanes))
    pairs = builder.load(builder.bitcast(builder.gep(rows, [place]), wide.as_pointer()), align=1)
    next_both = builder.add(row_both, pairs)
    next_highs = builder.add(row_highs, builder.lshr(pairs, byte))
    following = builder.add(event, one)
    _keep_rolled(builder, builder.cbranch(builder.icmp_signed("<", following, end), row, tail))

    builder.position_at_end(tail)
    following_run = builder.add(chosen, one)
    builder.branch(head)
    nothing = ir.Constant(wide, None)
    for phi, *incoming in (
        (chosen, (zero, before), (following_run, tail)),
        (both, (nothing, before), (next_both, tail)),
        (highs, (nothing, before), (next_highs, tail)),
        (event, (begin, run), (following, row)),
        (row_both, (run_both, run), (next_both, row)),
        (row_highs, (run_highs, run), (next_highs, row)),
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


def _keep_rolled(builder: ir.IRBuilder, branch: Any) -> None:
    """Not unrolled: runs are short, and a second loop over the rest ends where the processor does not expect it."""
    disable = builder.module.add_metadata([ir.MetaDataString(builder.module, "llvm.loop.unroll.disable")])
    loop = builder.module.add_metadata([disable])
    loop.operands = (loop, disable)  # which is how LLVM names a loop
    branch.set_metadata("llvm.loop", loop)


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
def count_events(values):
    """Number of binary digits that are 1 in uint8 values (N,)."""
    whole = len(values) // 8 * 8
    total = np.int64(count_ones(values[:whole].view(np.uint64)))
    for value in values[whole:]:
        for plane in range(8):
            total += (value >> plane) & 1
    return total


@_compiled
def find_events(values, samples, geometry, places, number, first, events):
    """Where the events are: those of the lowest binary digit, then those of the next ones.

    Args:
        values: uint8 (n · H · W · C), window sums of spikes.
        samples, geometry: n, Geometry.
        places: int32 (256, 8), for every byte the places of its ones. number: int64 (256,), how many they are.
        first: int64 (planes, n · H · W + 1), written: for each binary digit, the first event of every position, and the
            end of the last one's.
        events: int32 (number of events + 8), written: x · C + c for an event of channel c in column x.
    """
    channels, width = geometry.channels, geometry.width
    bytewise = channels % 8 != 0
    words = values[:0].view(np.uint64) if bytewise else values.view(np.uint64)
    lowest = np.uint64(0x0101010101010101)
    gather = np.uint64(0x0102040810204080)  # moves the lowest bits of 8 bytes into the highest byte
    positions = samples * geometry.height * width
    found = 0
    for plane in range(len(first)):
        for position in range(positions):
            first[plane, position] = found
            column = position % width * channels
            if bytewise:
                for c in range(channels):
                    events[found] = column + c
                    found += (values[position * channels + c] >> plane) & 1
                continue
            for word in range(channels // 8):
                digits = (words[position * (channels // 8) + word] >> np.uint64(plane)) & lowest
                byte = np.int64((digits * gather) >> np.uint64(56))
                _place_eight(places, byte, column + 8 * word, events, found)
                found += number[byte]
        first[plane, positions] = found


@_inlined
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
    """Σ w · in of all outputs.

    Args:
        first, events: of ``find_events``.
        samples, geometry: n, Geometry.
        weights: uint8 (rounds, kh · kw · C, width), with width in _WIDTHS, as ``_add_rows`` takes their rows.
        scale: float32, a power of two.
        sums: float32 (n · H' · W' · O), written; exact where Σ |w| · (largest input) is below 2²⁴.
    """
    rounds, inputs, width = weights.shape
    rows, columns = geometry.height, geometry.width
    kernel_height, kernel_width = geometry.kernel
    flat, spare = weights.reshape(-1), np.empty(width, np.float32)
    most = kernel_height * len(first)
    runs = Runs(np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64))
    for turn in range(rounds):
        outputs = min(width, geometry.outputs - turn * width)
        for line in range(samples * geometry.rows):
            sample, y = line // geometry.rows, line % geometry.rows
            top = y * geometry.stride[0] - geometry.padding[0]
            for x in range(geometry.columns):
                left = x * geometry.stride[1] - geometry.padding[1]
                low, high = max(0, left), min(columns, left + kernel_width)
                place = (line * geometry.columns + x) * geometry.outputs + turn * width
                target, at = (sums, place) if outputs == width else (spare, 0)
                count, held, lowest, more = 0, 0, 0, False
                for plane in range(len(first) - 1, -1, -1):  # the highest digit first, doubled before every lower one
                    for row in range(max(0, top), min(rows, top + kernel_height) if low < high else 0):
                        here = (sample * rows + row) * columns
                        k, end = first[plane, here + low], first[plane, here + high]
                        start = (turn * inputs + ((row - top) * kernel_width - left) * geometry.channels) * width
                        while k < end:
                            if held + (1 << plane) > _ROWS:
                                digit = scale * np.float32(1 << lowest)
                                _add(flat, events, runs, count, held >> lowest, width, digit, more, target, at)
                                count, held, more = 0, 0, True
                            last = min(end, k + ((_ROWS - held) >> plane))
                            runs.first[count], runs.last[count], runs.start[count] = k, last, start
                            runs.doublings[count] = lowest - plane if count else 0
                            count += 1
                            held += (last - k) << plane
                            k, lowest = last, plane
                digit = scale * np.float32(1 << lowest)
                _add(flat, events, runs, count, held >> lowest, width, digit, more, target, at)
                if outputs < width:
                    for o in range(outputs):
                        sums[place + o] = spare[o]


_TRIALS: dict[tuple[Geometry, str], float] = {}


class Events:
    """Σ w · in of window sums of spikes: of every event, the row of weights to all outputs is added to what it reaches.

    Rows are added in 16 bits, 256 of them at most, a row of digit 4 counted four times, and these sums in float32:
    exact where Σ |w| · (largest input) is below 2²⁴. The time grows with the number of events, not with that of the
    synapses.

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
        self._weights = _in_lines(pairs.transpose(0, 3, 2, 1)).reshape(rounds, -1, width)

    def sums(self, values: Tensor, count: int) -> Tensor:
        """float32 (n, H', W', O) of contiguous uint8 window sums (n, H, W, C), which have ``count`` events.

        No window sum is larger than the geometry's window.
        """
        g, samples = self._geometry, len(values)
        first = np.empty((g.window.bit_length(), samples * g.height * g.width + 1), np.int64)
        events = np.empty(count + 8, np.int32)
        find_events(values.numpy().reshape(-1), samples, g, _PLACES, _NUMBER, first, events)
        sums = torch.empty(samples, g.rows, g.columns, g.outputs)
        add_events(first, events, samples, g, self._weights, self._scale, sums.view(-1).numpy())
        return sums

    def break_even(self, name: str, dense: Callable[[Tensor], Tensor]) -> float:
        """The number of events per input below which this is faster than ``dense``, by trial.

        The time is taken to be a straight line over that number, through those of two trials. 0 for small layers, where
        it is below the smaller of the two, and where the sums differ. Layers alike share a trial.

        Args:
            name: of the kernel behind ``dense``.
            dense: sums of inputs (n, H, W, C), as ``sums``.
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
        rates, times = [], []
        for share in _TRIED:
            draws = generator.integers(256, size=(g.window, samples, g.height, g.width, g.channels), dtype=np.uint8)
            values = (draws < 256 * share).sum(axis=0, dtype=np.uint8)
            inputs, count = torch.from_numpy(values), count_events(values.reshape(-1))
            if not torch.equal(self.sums(inputs, count), dense(inputs).float()):
                return 0.0
            rates.append(count / values.size)
            times.append(_seconds(partial(self.sums, inputs, count)))
        if rates[0] >= rates[1]:  # of so few inputs
            return 0.0
        slope = (times[1] - times[0]) / (rates[1] - rates[0])
        left = _seconds(partial(dense, inputs)) - times[0]
        if left <= 0:
            return 0.0
        every = float(g.window.bit_length())
        return min(every, rates[0] + left / slope) if slope > 0 else every


def _in_lines(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy in C order that starts where a cache line does, as PyTorch's memory does: rows lie in as few as can be."""
    copy: NDArray[np.uint8] = torch.empty(values.shape, dtype=torch.uint8).numpy()
    copy[:] = values
    return copy


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
    geometry = Geometry(1, 1, 8, 1, (1, 1), (1, 1), (0, 0), 1, 1, 1)
    Events(np.ones((1, 8, 1, 1), np.int8), 1.0, geometry).sums(torch.ones(1, 1, 1, 8, dtype=torch.uint8), 8)
    count_events(np.ones(1, np.uint8))
