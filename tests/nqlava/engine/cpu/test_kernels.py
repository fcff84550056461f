"""The compiled loops equal the equations of docs/semantics.md, written out neuron by neuron; compiled or not.

NUMBA_DISABLE_JIT=1 in the environment runs the same loops uncompiled, for coverage and mutation tests.
"""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from nqlava.engine.cpu.kernels import (
    Currents,
    Extent,
    Neurons,
    Watch,
    count_ones,
    integrate,
    integrate_fire,
    load,
    window_sums,
)
from nqlava.network import MEMBRANE_MAX

pytestmark = pytest.mark.filterwarnings(
    "ignore:overflow encountered in scalar:RuntimeWarning"
)  # uncompiled, modulo 2⁶⁴
SAMPLES, STEPS, ROWS, SEGMENTS, LENGTH = 2, 2, 2, 3, 2
MAP = (ROWS, SEGMENTS * LENGTH)
LARGEST = {np.float32: 2**20, np.float64: 2**33}


def clipped(u: int) -> int:
    return min(max(u, -MEMBRANE_MAX), MEMBRANE_MAX)


def draw(rng: np.random.Generator, limit: int, *shape: int) -> NDArray[np.int32]:
    return rng.integers(-limit, limit, shape, endpoint=True).astype(np.int32)


def laid_out(values: NDArray, dtype: type, gap: int) -> Currents:
    """Currents (n, T, H, W · C) in memory with room behind every row and every image, as a convolution may leave it."""
    samples, steps, rows, columns = values.shape
    padded = np.full((samples, steps, rows + gap, columns + gap), np.nan)
    padded[:, :, :rows, :columns] = values
    flat = padded.astype(dtype).ravel()
    return Currents(flat, (rows + gap) * (columns + gap), columns + gap, steps)


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize(("hard", "whole_bias", "has_shortcut", "first"), product([False, True], repeat=4))
def test_integrate_and_fire(dtype: type, hard: bool, whole_bias: bool, has_shortcut: bool, first: bool) -> None:
    rng = np.random.default_rng(1)
    constant = whole_bias and not has_shortcut  # the same current at every step, as from an image
    shape = (SAMPLES, STEPS, *MAP)
    arriving = rng.integers(-LARGEST[dtype], LARGEST[dtype], (SAMPLES, 1 if constant else STEPS, *MAP))
    bias = draw(rng, MEMBRANE_MAX, *(MAP if whole_bias else (LENGTH,)))
    threshold = 1 + abs(draw(rng, 2**19, LENGTH))
    v0, factor = draw(rng, 2**20, LENGTH), draw(rng, 2**20, LENGTH)
    shortcut = rng.integers(0, 2, shape).astype(np.uint8) if has_shortcut else np.zeros(0, np.uint8)
    kept = draw(rng, MEMBRANE_MAX, SAMPLES, *MAP)
    v, spikes = kept.ravel().copy(), np.full(shape, 7, np.uint8)
    watch = Watch(np.full(SAMPLES, 5, np.int64), np.zeros(2, np.int64))

    expected_spikes, potentials = np.zeros(shape, np.uint8), np.zeros((SAMPLES, *MAP), np.int64)
    saturations, seen = [5] * SAMPLES, [0]
    for n, y, x in product(range(SAMPLES), range(ROWS), range(MAP[1])):
        u = int(v0[x % LENGTH]) if first else int(kept[n, y, x])
        for t in range(STEPS):
            u += int(arriving[n, 0 if constant else t, y, x]) + int(bias[y, x] if whole_bias else bias[x % LENGTH])
            if has_shortcut:
                u += int(factor[x % LENGTH]) * int(shortcut[n, t, y, x])
            saturations[n] += clipped(u) != u
            u = clipped(u)
            seen.append(u)
            if u >= threshold[x % LENGTH]:
                expected_spikes[n, t, y, x] = 1
                u = 0 if hard else u - int(threshold[x % LENGTH])
        potentials[n, y, x] = u

    neurons = Neurons(bias.ravel(), threshold, v0, factor, hard)
    extent = Extent(SAMPLES, STEPS, ROWS, SEGMENTS, LENGTH)
    current = laid_out(arriving, dtype, gap=2)
    integrate_fire(extent, neurons, current, shortcut.ravel(), first, v, watch, spikes.reshape(-1))
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_array_equal(v.reshape(potentials.shape), potentials)
    assert watch.saturations.tolist() == saturations
    assert watch.range.tolist() == [min(seen), max(seen)]
    if first:  # the potentials are not asked for
        again, nothing = np.full_like(spikes, 7), np.zeros(0, np.int32)
        integrate_fire(extent, neurons, current, shortcut.ravel(), True, nothing, watch, again.reshape(-1))
        np.testing.assert_array_equal(again, expected_spikes)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_read_out(first: bool, constant: bool) -> None:
    rng = np.random.default_rng(2)
    arriving = rng.integers(-(2**23), 2**23, (SAMPLES, 1 if constant else STEPS, 1, LENGTH))
    bias, v0, kept = draw(rng, 2**20, LENGTH), draw(rng, MEMBRANE_MAX, LENGTH), draw(rng, MEMBRANE_MAX, SAMPLES, LENGTH)
    v, found = kept.copy(), np.zeros((SAMPLES, STEPS, LENGTH), np.int32)
    watch = Watch(np.full(SAMPLES, 5, np.int64), np.zeros(2, np.int64))
    unit = np.ones(LENGTH, np.int32)
    current = Currents(arriving.ravel().astype(np.float64), LENGTH, LENGTH, arriving.shape[1])
    integrate(STEPS, Neurons(bias, unit, v0, unit, False), current, first, v, watch, found)

    expected, saturations = np.zeros_like(found), [5] * SAMPLES
    for n, k in product(range(SAMPLES), range(LENGTH)):
        u = int(v0[k]) if first else int(kept[n, k])
        for t in range(STEPS):
            u += int(arriving[n, 0 if constant else t, 0, k]) + int(bias[k])
            saturations[n] += clipped(u) != u
            u = expected[n, t, k] = clipped(u)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(v, expected[:, -1])
    assert watch.saturations.tolist() == saturations
    assert watch.range.tolist() == [min(0, expected.min()), max(0, expected.max())]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("beyond", "saturations"), [(0, 0), (1, 1)])
def test_a_clip_changes_what_lies_beyond_24_bits(sign: int, beyond: int, saturations: int) -> None:
    one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    watch = Watch(np.zeros(1, np.int64), np.zeros(2, np.int64))
    current = Currents(np.array([sign * (MEMBRANE_MAX + beyond)], np.float64), 1, 1, 1)
    v = np.zeros((1, 1), np.int32)
    integrate(1, Neurons(zero, one, zero, zero, False), current, True, v, watch, np.zeros((1, 1, 1), np.int32))
    assert v.item() == sign * MEMBRANE_MAX
    assert watch.saturations.item() == saturations
    assert watch.range.tolist() == sorted([0, sign * MEMBRANE_MAX])


@pytest.mark.parametrize("arriving", [2**31, -(2**31), 2**45, -(2**45)])
def test_sums_beyond_32_bits_saturate_whatever_a_shortcut_takes_away(arriving: int) -> None:
    one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    largest = 2**24 - 1  # below which factors of shortcuts are
    factor = np.full(1, -largest if arriving > 0 else largest, np.int32)
    watch = Watch(np.zeros(1, np.int64), np.zeros(2, np.int64))
    spike, v = np.ones(1, np.uint8), np.zeros(1, np.int32)
    current = Currents(np.array([arriving], np.float64), 1, 1, 1)
    integrate_fire(
        Extent(1, 1, 1, 1, 1), Neurons(zero, one, zero, factor, False), current, spike, True, v, watch, spike
    )
    assert v.item() == (MEMBRANE_MAX - 1 if arriving > 0 else -MEMBRANE_MAX)
    assert watch.saturations.item() == 1


@pytest.mark.parametrize("window", [(1, 1), (2, 3), (3, 2), (5, 7)])
def test_window_sums_leave_out_what_fills_no_window(window: tuple[int, int]) -> None:
    samples, height, width, channels = 2, 5, 7, 3
    maps = np.random.default_rng(0).integers(0, 8, (samples, height, width, channels)).astype(np.uint8)
    rows, columns = height // window[0], width // window[1]
    sums = np.full((samples, rows, columns, channels), 9, np.uint8)
    window_sums(maps.ravel(), height, width, channels, window, sums.reshape(-1))
    whole = maps[:, : rows * window[0], : columns * window[1]]
    expected = whole.reshape(samples, rows, window[0], columns, window[1], channels).sum(axis=(2, 4))
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize(
    "words",
    [[], [0], [2**64 - 1], [1], [2**63], [0x0123456789ABCDEF, 2**64 - 2, 5], [1 << bit for bit in range(64)]],
)
def test_count_ones(words: list[int]) -> None:
    assert count_ones(np.array(words, np.uint64)) == sum(word.bit_count() for word in words)


def test_load_compiles_for_both_kinds_of_sums() -> None:
    load()
    for kernel in (integrate_fire, integrate):
        assert len(getattr(kernel, "signatures", "..")) >= 2  # none where nothing is compiled
