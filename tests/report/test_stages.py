"""Accuracies with confidence intervals, and changes from stage to stage, against the textbook formulas."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.reference import Reference
from deploy.report.stages import interval, stage, stored


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
    found = stage("after", after, "images", before)
    lost, gained = images.count((True, False)), images.count((False, True))
    assert (found.lost, found.gained, found.correct, found.count) == (lost, gained, sum(after), len(images))
    assert found.accuracy == pytest.approx(100 * after.mean())
    changed, fewer = lost + gained, min(lost, gained)
    tail = sum(comb(changed, k) for k in range(fewer + 1)) / 2**changed
    assert found.probability == pytest.approx(min(1.0, 2 * tail))


def test_the_first_stage_has_nothing_before_it() -> None:
    found = stage("ANN", np.array([True, False, True]), "images")
    assert (found.lost, found.gained, found.probability) == (None, None, None)


def test_accuracies_from_the_file_become_counts() -> None:
    """500 calibration images: 96.4 % are 482 images."""
    found = stored(Reference(snn=96.6, ann=96.4, integer=96.2, images="the calibration images", steps=4, count=500))
    assert [(one.name, one.correct) for one in found] == [
        ("ANN (at export)", 482),
        ("float SNN, T = 4 (at export)", 483),
        ("integer SNN, T = 4 (at export)", 481),
    ]
    assert {one.images for one in found} == {"the calibration images"} and found[1].lost is None
