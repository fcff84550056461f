"""Sums from single spikes are those of the definition, for any geometry and any number of spikes.

NUMBA_DISABLE_JIT=1 in the environment runs the same loops uncompiled, for coverage; a few of these tests suffice.
"""

import os
import time
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nqlava.engine.cpu import events
from nqlava.engine.cpu.events import Events, Geometry, add_events, count_events, find_events, load
from nqlava.engine.cpu.synapses import Synapses
from nqlava.merged import Merged
from nqlava.reference import synaptic_sum
from nqlava.testing.networks import random_connection

SHAPE = (64, 8, 8)
pytestmark = pytest.mark.filterwarnings(
    "ignore:overflow encountered in scalar:RuntimeWarning"  # 64-bit products that wrap, as NumPy's scalars tell
)


def prepared(weight: np.ndarray, shape: tuple[int, int, int] = SHAPE, window: int = 1) -> Events:
    """3x3 convolution with padding 1."""
    channels, height, width = shape
    geometry = Geometry(height, width, channels, window, (3, 3), (1, 1), (1, 1), height, width, len(weight))
    return Events(weight.astype(np.int8), 1.0, geometry)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("EXAMPLES", "50")), deadline=None)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    """Also with padding and strides beyond the kernel, and with windows that leave rows and columns over."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, padding, stride, window = pair(1, 4), pair(0, 5), pair(1, 5), data.draw(st.integers(1, 3))
    height, width = pair(1, 9)
    assume(all(k * window <= s + 2 * p * window for k, s, p in zip(kernel, (height, width), padding, strict=True)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = (data.draw(st.sampled_from((1, 3, 8, 12, 16))), height, width)
    connection = random_connection(
        rng,
        "source",
        shape,
        outputs=data.draw(st.sampled_from((1, 31, 32, 33, 64, 100, 128, 200, 256, 300))),
        kernel=kernel,
        padding=padding,
        stride=stride,
        window=window,
        exponent=data.draw(st.integers(0, 3)),
    )
    with patch.object(Events, "break_even", return_value=9.0):  # however many there are
        synapses = Synapses(Merged([connection], shape, 1), double=False)
    share = data.draw(st.sampled_from((0, 0.01, 0.1, 0.5, 1)))
    maps = (rng.random((data.draw(st.integers(1, 3)), *shape)) < share).astype(np.uint8)
    in_order = torch.from_numpy(np.ascontiguousarray(maps.transpose(0, 2, 3, 1)))
    with patch.object(synapses, "_apply", side_effect=AssertionError):
        got = synapses.sums(in_order).permute(0, 3, 1, 2).numpy()
    for values, x in zip(got, maps.astype(np.int64), strict=True):
        expected = synaptic_sum(connection, x)
        np.testing.assert_array_equal(values.reshape(expected.shape), expected)


@pytest.mark.parametrize("weight", [-127, 127])
@pytest.mark.parametrize("value", [1, 4, 7, 255])
def test_thousands_of_the_largest_weights_do_not_wrap(weight: int, value: int) -> None:
    """9 · 56 rows: 256 of them fill 16 bits, or fewer that count more than once."""
    values = torch.full((1, 3, 3, 56), value, dtype=torch.uint8)
    events_of_all = 9 * 56 * value.bit_count()
    sums = prepared(np.full((3, 56, 3, 3), weight), (56, 3, 3), window=value).sums(values, events_of_all)
    assert sums[0, 1, 1].tolist() == [9 * 56 * value * weight] * 3
    assert sums[0, 0, 0].tolist() == [4 * 56 * value * weight] * 3


@pytest.mark.parametrize("outputs", [32, 33, 100, 300])
def test_any_number_of_outputs(outputs: int) -> None:
    """Rows of weights are 32, 64, 128 or 256 wide, and the last may be wider than what is left of the outputs."""
    rng = np.random.default_rng(outputs)
    connection = random_connection(rng, "source", (8, 2, 2), outputs=outputs, kernel=(3, 3), padding=(1, 1))
    values = rng.integers(2, size=(1, 8, 2, 2), dtype=np.uint8)
    in_order = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 2, 3, 1)))
    got = prepared(connection.weight, (8, 2, 2)).sums(in_order, int(values.sum())).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(got[0].numpy(), synaptic_sum(connection, values[0].astype(np.int64)))


def test_by_hand() -> None:
    """Two positions of two channels: one spike in channel 0 of the first, three in channel 1 of the second."""
    values = np.array([1, 0, 0, 3], np.uint8)
    geometry = Geometry(1, 2, 2, 4, (1, 2), (1, 1), (0, 1), 1, 3, 1)
    first, found = np.empty((3, 3), np.int64), np.empty(3 + 8, np.int32)
    find_events(values, 1, geometry, events._PLACES, events._NUMBER, first, found)
    assert first.tolist() == [[0, 1, 2], [2, 2, 3], [3, 3, 3]]  # of the digits that count 1, 2 and 4
    assert found[:3].tolist() == [0, 3, 3]  # x · C + c
    weights, sums = np.full((1, 4, 32), 128, np.uint8), np.empty(3, np.float32)
    weights[0, :, 0] += np.array([1, 10, 100, 7], np.uint8)  # the left tap's channels, the right tap's
    add_events(first, found, 1, geometry, weights, np.float32(2), sums)
    assert sums.tolist() == [2 * 100, 2 * (1 + 3 * 7), 2 * 3 * 10]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 2**16 + 1])
def test_count(length: int) -> None:
    values = np.random.default_rng(0).integers(256, size=length, dtype=np.uint8)
    assert count_events(values) == np.unpackbits(values).sum()


def test_spikes_are_gone_through_where_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same sums."""
    monkeypatch.setattr(Events, "break_even", lambda *_: 0.25)
    rng = np.random.default_rng(0)
    connection = random_connection(rng, "source", SHAPE, outputs=64, kernel=(3, 3), padding=(1, 1))
    synapses = Synapses(Merged([connection], SHAPE, 1), double=False)
    assert synapses.events_below == 0.25
    asked: list[int] = []
    compute = Events.sums

    def sums(self: Events, spikes: Tensor, count: int) -> Tensor:
        asked.append(count)
        return compute(self, spikes, count)

    monkeypatch.setattr(Events, "sums", sums)
    for count, gone_through in ((1023, True), (1024, False)):
        spikes = np.zeros(4096, np.uint8)
        spikes[rng.permutation(4096)[:count]] = 1
        maps = torch.from_numpy(spikes.reshape(1, 8, 8, 64))
        assert torch.equal(synapses.sums(maps).double(), synapses._apply(maps).double())
        assert asked == [1023], gone_through


def test_events_of_windows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three spikes in a window are two events: 127 of them are few for 64 · 4 · 4 window sums, 128 are not."""
    monkeypatch.setattr(Events, "break_even", lambda *_: 0.25)
    rng = np.random.default_rng(0)
    connection = random_connection(rng, "source", SHAPE, outputs=64, kernel=(3, 3), padding=(1, 1), window=2)
    synapses = Synapses(Merged([connection], SHAPE, 1), double=False)
    for windows, gone_through in ((127, True), (128, False)):
        three = np.zeros(4 * 4 * 64, np.uint8)
        three[rng.permutation(three.size)[:windows]] = 1
        maps = np.zeros((1, 4, 2, 4, 2, 64), np.uint8)
        maps[:, :, 0, :, 0] = maps[:, :, 0, :, 1] = maps[:, :, 1, :, 0] = three.reshape(1, 4, 4, 64)
        inputs = torch.from_numpy(maps.reshape(1, 8, 8, 64))
        expected = synapses._apply(torch.from_numpy(3 * three.reshape(1, 4, 4, 64))).double()
        with patch.object(synapses, "_apply", wraps=synapses._apply) as dense:
            assert torch.equal(synapses.sums(inputs).double(), expected)
        assert dense.called != gone_through


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"largest": 255}, "the image is no spikes"),
        ({"groups": 2}, "groups"),
        ({"dilation": (2, 2)}, "dilation"),
        ({"double": True}, "sums beyond 24 bits"),
        ({"kernel": (1, 1), "window": 16, "shape": (8, 16, 16)}, "256 spikes in a window"),
    ],
)
def test_what_is_never_gone_through(changed: dict, why: str) -> None:
    options = {"outputs": 4, "kernel": (3, 3)} | changed
    largest, double, shape = options.pop("largest", 1), options.pop("double", False), options.pop("shape", SHAPE)
    connection = random_connection(np.random.default_rng(0), "source", shape, **options)
    with patch.object(Events, "break_even", return_value=9.0):
        assert Synapses(Merged([connection], shape, largest), double=double).events_below == 0, why


def test_break_even_is_where_both_take_the_same_time() -> None:
    found = prepared(np.ones((64, 64, 3, 3)))

    def right(spikes: Tensor) -> Tensor:
        return found.sums(spikes, int(spikes.sum()))

    def slow(spikes: Tensor) -> Tensor:
        time.sleep(0.2)
        return right(spikes)

    def wrong(spikes: Tensor) -> Tensor:
        time.sleep(0.2)
        return right(spikes) + 1

    assert found.break_even("slow", slow) == 1
    assert found.break_even("wrong", wrong) == 0
    assert prepared(np.ones((2, 3, 3, 3)), (3, 4, 4)).break_even("slow", slow) == 0  # too small to be worth a trial
    assert prepared(np.zeros((64, 64, 3, 3))).break_even("slow", wrong) == 1  # alike: known
    assert found._weights.ctypes.data % 64 == 0, "a row lies across cache lines"


def test_break_even_of_windows_counts_digits() -> None:
    """Window sums of 4 spikes have three digits, all of which are gone through where the other way takes so long."""
    found = prepared(np.ones((64, 64, 3, 3)), window=4)

    def slow(values: Tensor) -> Tensor:
        time.sleep(0.2)
        assert 2 <= values.max() <= 4
        return found.sums(values, count_events(values.numpy().reshape(-1)))

    assert found.break_even("slow", slow) == 3


def test_too_few_inputs_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prepared(np.ones((2**15, 1, 3, 3)), (1, 1, 1))
    monkeypatch.setattr(events, "_TRIED", (0, 0))  # as if no neuron spiked by chance
    assert found.break_even("any", lambda spikes: found.sums(spikes, 0)) == 0


def test_break_even_is_on_a_straight_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds as told: 1 and 4 for a spike in about 32 and 8 inputs, then those of the other way."""
    found = prepared(np.ones((64, 64, 3, 3)))

    def right(spikes: Tensor) -> Tensor:
        return found.sums(spikes, int(spikes.sum()))

    for other, share in ((0.5, 0.0), (1.0, 0.0), (2.5, 1 / 32 + 3 / 64), (4.0, 1 / 8), (127.0, 1.0)):
        told = iter((1.0, 4.0, other))
        monkeypatch.setattr(events, "_seconds", lambda _compute, told=told: next(told))
        assert found.break_even(f"{other}", right) == pytest.approx(share, rel=0.02)


def test_trials_are_timed_on_one_thread() -> None:
    """As the kernels run later; int8 kernels would otherwise seem faster than they are."""
    threads, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        events._seconds(lambda: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 1, 1]


def test_load_compiles() -> None:
    load()
    for kernel in (count_events, find_events, add_events):
        assert len(getattr(kernel, "signatures", ".")) >= 1  # none where nothing is compiled
