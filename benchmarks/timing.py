"""Timing things against each other, side by side, and what is left of the repeats."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effort:
    """How much time goes into a measurement.

    Attributes:
        repeats: of everything that is compared.
        seconds: that one timed run should take; it takes more where its smallest unit of work does.
    """

    repeats: int
    seconds: float


@dataclass(frozen=True)
class Contestant:
    """Something timed.

    Attributes:
        run: does the work, once warm.
        work: units, such as images, in one run.
    """

    run: Callable[[], object]
    work: float = 1.0


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interleaved(
    contestants: Mapping[str, Contestant], repeats: int, *, warm: bool = False, clock: Callable[[Any], float] = seconds
) -> dict[str, list[float]]:
    """Seconds per unit of work of every contestant in every repeat, after one run of each unless they are ``warm``.

    ``clock`` runs and times. A slower moment of the machine hits neighbours alike: every repeat runs all of them, each
    time another one first.
    """
    names = list(contestants)
    for name in () if warm else names:
        contestants[name].run()
    found: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(clock(contestants[name].run) / contestants[name].work)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """The spread of the ratios within the same repeat."""
    return spread([one / other for one, other in zip(numerators, denominators, strict=True)])


def rates(times: Sequence[float]) -> dict[str, float]:
    """The spread of units per second, from seconds per unit."""
    return spread([1 / value for value in times])
