"""What a run of some of the samples showed, as counts that add up."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TypeVar

from deploy.compare.judge import Disagreement
from deploy.errors import CoverageError
from nqlava.trace import DIGESTS, Mismatch


@dataclass(frozen=True)
class Tally:
    """Counts over some samples of one network. ``a + b`` is the tally of the samples of both.

    Addition is associative and commutative (``seconds`` up to rounding), so that it does not matter how the samples
    were divided, nor which part was done first.

    Attributes:
        right: the samples, as sorted, separate ranges: number of the first, and a byte for each, 1 where the backend's
            class after step T is right.
        judged: how many of the samples were compared with the reference.
        disagreement: the first difference to the reference, or None.
        mismatches: per layer, the read-out last, how many spikes (membrane potentials in the read-out) differ between
            the backend and the integer engine.
        first: the first mismatch, its sample numbered from the first of all samples, or None.
        spikes: per spiking layer.
        saturations: per layer, clipped membrane potentials.
        deployed, engine: correct classifications after each step 1 … T, of the backend and of the integer engine.
        digest: of the backend's spikes and read-outs (Trace.digest).
        seconds: time in the backend, its start included, comparison excluded; summed over processes.
    """

    right: tuple[tuple[int, bytes], ...]
    judged: int
    disagreement: Disagreement | None
    mismatches: tuple[int, ...]
    first: Mismatch | None
    spikes: tuple[int, ...]
    saturations: tuple[int, ...]
    deployed: tuple[int, ...]
    engine: tuple[int, ...]
    digest: int
    seconds: float

    @classmethod
    def of_reference(cls, judged: int, disagreement: Disagreement | None, *, layers: int, steps: int) -> "Tally":
        """What the reference found in samples that other tallies count."""
        none = (0,) * layers
        return cls((), judged, disagreement, none, None, none[:-1], none, (0,) * steps, (0,) * steps, 0, 0.0)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of the samples."""
        return tuple((start, start + len(right)) for start, right in self.right)

    @property
    def samples(self) -> int:
        return sum(len(right) for _, right in self.right)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.deployed)

    @property
    def accuracy(self) -> float:
        """Of the backend after step T, in percent."""
        return 100 * self.deployed[-1] / self.samples

    def __add__(self, other: "Tally") -> "Tally":
        """The tally of the samples of both.

        Raises:
            CoverageError: some sample is in both.
            ValueError: the tallies are of networks with different numbers of layers, or of different T.
        """
        return Tally(
            right=_joined(self.right + other.right),
            judged=self.judged + other.judged,
            disagreement=_earliest(self.disagreement, other.disagreement),
            mismatches=_sums(self.mismatches, other.mismatches),
            first=_earliest(self.first, other.first),
            spikes=_sums(self.spikes, other.spikes),
            saturations=_sums(self.saturations, other.saturations),
            deployed=_sums(self.deployed, other.deployed),
            engine=_sums(self.engine, other.engine),
            digest=(self.digest + other.digest) % DIGESTS,
            seconds=self.seconds + other.seconds,
        )

    def require_all(self, samples: int) -> None:
        """CoverageError unless every one of ``samples`` samples was counted; none can be there twice."""
        if self.ranges != ((0, samples),):
            counted = ", ".join(f"{start}..{stop - 1}" for start, stop in self.ranges)
            raise CoverageError(f"samples {counted} were compared; expected: 0..{samples - 1}")


def merge(tallies: Iterable[Tally]) -> Tally:
    """The sum of at least one tally; errors as of ``+``."""
    return reduce(add, tallies)


def _joined(ranges: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    """The ranges sorted, those that touch as one; CoverageError if two overlap."""
    found: list[tuple[int, bytes]] = []
    for start, right in sorted(ranges):
        end = found[-1][0] + len(found[-1][1]) if found else None
        if end is not None and start < end:
            raise CoverageError(f"sample {start} was compared twice")
        if start == end:
            start, before = found.pop()
            right = before + right
        found.append((start, right))
    return tuple(found)


_Place = TypeVar("_Place", Mismatch, Disagreement)


def _earliest(one: _Place | None, two: _Place | None) -> _Place | None:
    """The one of the lower sample."""
    return min((place for place in (one, two) if place is not None), key=lambda place: place.sample, default=None)


def _sums(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, two, strict=True))
