"""Verdicts add up: however the samples are divided, and in whatever order the parts come, the verdict is the same."""

import pickle
from collections.abc import Generator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compare.verdict import Verdict, merge
from deploy.errors import CoverageError
from nqlava.engine.integer import Engine
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks
from nqlava.trace import Mismatch, Trace
from tests.parts import part_of, verdicts, verify

MADE = Verdict(
    layers=("hidden", "out"),
    neurons=(4, 2),
    ranges=((4, b"\0\1\1"),),
    judged=2,
    disagreement=None,
    mismatches=(0, 2),
    first=Mismatch(5, "hidden", 1, (2,), 0, 1),
    spikes=(9,),
    saturations=(0, 1),
    correct=(1, 2),
    engine_correct=(1, 3),
    total=2**256 - 1,
    seconds=0.5,
)


def part(trace: Trace, start: int, stop: int) -> Trace:
    """Some samples of a trace."""
    return trace.part(slice(start, stop))


@settings(max_examples=30, deadline=None)
@given(networks(), st.data())
def test_any_division_gives_the_same_verdict(network, data: st.DataObject) -> None:
    count, steps = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    images = images_for(network, count)
    labels = np.arange(count) % network.classes
    trace = Engine(network).run(images, steps)
    readout = trace.readout.copy()
    for sample in data.draw(st.sets(st.integers(0, count - 1))):
        readout[sample, data.draw(st.integers(0, steps - 1)), 0] += 1
    trace = replace(trace, readout=readout)

    def run(start: int, stop: int) -> Generator[Verdict, None, None]:
        """The samples from ``start`` to ``stop``, in chunks of any size."""
        bounds = [start, *sorted(data.draw(st.sets(st.integers(start, stop)))), stop]
        chunks = (part(trace, *pair) for pair in pairwise(bounds) if pair[0] < pair[1])
        return verdicts(network, part_of(images[start:stop], labels[start:stop], start), steps, chunks, count)

    whole = verify(network, part_of(images, labels), steps, (piece for piece in [part(trace, 0, count)]), count)
    bounds = [0, *sorted(data.draw(st.sets(st.integers(1, count)))), count]
    parts = [merge(run(*pair)) for pair in pairwise(bounds) if pair[0] < pair[1]]
    verdict = merge(data.draw(st.permutations(parts)))
    assert verdict == replace(whole, seconds=verdict.seconds)
    assert whole.mismatches[-1] == (readout != Engine(network).run(images, steps).readout).sum()
    wrong = np.flatnonzero((readout != Engine(network).run(images, steps).readout).any(axis=(1, 2)))
    assert (whole.first.sample if whole.first else None) == (wrong[0] if len(wrong) else None)


def other(start: int, stop: int, **changes: object) -> Verdict:
    return replace(MADE, ranges=((start, bytes(stop - start)),), **changes)


def test_sums() -> None:
    earlier = other(0, 4, first=None)
    assert MADE + earlier == replace(
        MADE,
        ranges=((0, b"\0\0\0\0\0\1\1"),),
        judged=4,
        mismatches=(0, 4),
        spikes=(18,),
        saturations=(0, 2),
        correct=(2, 4),
        engine_correct=(2, 6),
        total=2**256 - 2,
        seconds=1.0,
    ), "ranges that touch become one; digests add up modulo 2²⁵⁶"
    assert (MADE + other(9, 10)).ranges == ((4, b"\0\1\1"), (9, b"\0"))
    assert (MADE + other(9, 10)).samples == 4


def test_shares() -> None:
    assert MADE.accuracy == pytest.approx((100 / 3, 200 / 3)) and MADE.engine_accuracy[-1] == 100
    assert MADE.spike_rates == (9 / (4 * 3 * 2),)
    assert MADE.digest == "f" * 64


def test_the_first_mismatch_is_that_of_the_lowest_sample() -> None:
    lower = replace(MADE.first, sample=1)
    assert (MADE + other(0, 4, first=lower)).first == lower
    assert (other(0, 4, first=lower) + MADE).first == lower


@pytest.mark.parametrize("again", [(6, 9), (0, 5), (4, 7), (5, 6), (0, 9)])
def test_no_sample_counts_twice(again: tuple[int, int]) -> None:
    with pytest.raises(CoverageError, match=f"sample {max(4, again[0])} was compared twice"):
        MADE + other(*again)


def test_no_sample_is_lost() -> None:
    (MADE + other(0, 4)).require_all(7)
    with pytest.raises(CoverageError, match=r"^samples 0\.\.3, 5\.\.6 were compared; expected: 0\.\.6$"):
        (other(0, 4) + other(5, 7)).require_all(7)
    with pytest.raises(CoverageError, match=r"^samples 0\.\.6 were compared; expected: 0\.\.7$"):
        (MADE + other(0, 4)).require_all(8)
    with pytest.raises(CoverageError, match="no sample was compared with the reference"):
        replace(MADE, ranges=((0, b"\1"),), judged=0).require_all(1)


def test_verdicts_of_different_runs_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        MADE + other(0, 4, correct=(1, 2, 3))


def test_pickles() -> None:
    assert pickle.loads(pickle.dumps(MADE)) == MADE


@pytest.mark.parametrize(("original", "told"), [(None, ""), (70.0, ""), (99.8, "66.67 % are right; before the conv")])
def test_an_exact_network_that_lost_its_accuracy_does_not_end_with_a_bare_exact(
    original: float | None, told: str
) -> None:
    verdict = replace(MADE, mismatches=(0, 0), first=None, original=original)
    assert str(verdict).startswith("EXACT: ") and told in str(verdict)
    assert str(verdict).endswith("on 2 of them") == (not told)
