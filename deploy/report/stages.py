"""Accuracy of each stage on the way from the ANN to the deployed network, with its uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Stage:
    """One way to run the network on the test images.

    Attributes:
        name: such as "integer SNN, T = 4".
        correct, count: of how many images the class is right, and how many there are.
        low, high: Wilson's 95 % confidence interval of the accuracy, in percent.
        lost, gained: images that the stage before classified correctly and this one does not, and the reverse; None
            for the first stage.
        probability: that a difference at least as uneven arises by chance (exact McNemar test, two-sided); None where
            ``lost`` is.
    """

    name: str
    correct: int
    count: int
    low: float
    high: float
    lost: int | None
    gained: int | None
    probability: float | None

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.correct / self.count


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of an accuracy, in percent (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    found = binomtest(correct, count).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def stage(name: str, right: NDArray[np.bool_], before: NDArray[np.bool_] | None = None) -> Stage:
    """A stage from which images are right in it, and in the stage before it on the same images."""
    correct, count = int(right.sum()), len(right)
    if before is None:
        return Stage(name, correct, count, *interval(correct, count), None, None, None)
    lost, gained = int((before & ~right).sum()), int((right & ~before).sum())
    # McNemar, Psychometrika 12, 1947: without a difference, either direction is as likely for each changed image.
    probability = float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    return Stage(name, correct, count, *interval(correct, count), lost, gained, probability)
