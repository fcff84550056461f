"""Accuracies with confidence intervals, and changes from stage to stage, against the textbook formulas."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.report.stages import interval, stage


def wilson(correct: int, count: int) -> tuple[float, float]:
    """In percent; z of 95 %."""
    z, p = 1.959963984540054, correct / count
    centre, half = p + z**2 / (2 * count), z * sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    return 100 * (centre - half) / (1 + z**2 / count), 100 * (centre + half) / (1 + z**2 / count)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_is_wilsons(counts: tuple[int, int]) -> None:
    assert interval(*counts) == pytest.approx(wilson(*counts), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_lost_and_gained_are_tested_against_a_fair_coin(images: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(column) for column in zip(*images, strict=True))
    found = stage("after", after, before)
    lost, gained = images.count((True, False)), images.count((False, True))
    assert (found.lost, found.gained, found.correct, found.count) == (lost, gained, sum(after), len(images))
    assert found.accuracy == pytest.approx(100 * after.mean())
    changed, fewer = lost + gained, min(lost, gained)
    tail = sum(comb(changed, k) for k in range(fewer + 1)) / 2**changed
    assert found.probability == pytest.approx(min(1.0, 2 * tail))


def test_the_first_stage_has_nothing_before_it() -> None:
    found = stage("ANN", np.array([True, False, True]))
    assert (found.lost, found.gained, found.probability) == (None, None, None)
