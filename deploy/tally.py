"""What a run of some of the samples showed, as counts that add up."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

from deploy.errors import CoverageError
from deploy.trace import DIGESTS, Mismatch


@dataclass(frozen=True)
class Tally:
    """Counts over some samples of one network. ``a + b`` is the tally of the samples of both.

    Addition is associative and commutative (``seconds`` up to rounding), so that it does not matter how the samples
    were divided, nor which part was done first.

    Attributes:
        ranges: the samples, as sorted ranges (start, stop) that neither overlap nor touch.
        mismatches: per layer, the read-out last, how many spikes (membrane potentials in the read-out) differ.
        first: the first mismatch, its sample numbered from the first of all samples, or None.
        spikes: per spiking layer.
        saturations: per layer, clipped membrane potentials.
        deployed, reference: correct classifications after each step 1 … T, of the backend and of the integer engine.
        digest: of the backend's spikes and read-outs (Trace.digest).
        seconds: time in the backend, its start included, comparison excluded; summed over processes.
    """

    ranges: tuple[tuple[int, int], ...]
    mismatches: tuple[int, ...]
    first: Mismatch | None
    spikes: tuple[int, ...]
    saturations: tuple[int, ...]
    deployed: tuple[int, ...]
    reference: tuple[int, ...]
    digest: int
    seconds: float

    @property
    def samples(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

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
            ranges=_joined(self.ranges + other.ranges),
            mismatches=_sums(self.mismatches, other.mismatches),
            first=min((m for m in (self.first, other.first) if m is not None), key=lambda m: m.sample, default=None),
            spikes=_sums(self.spikes, other.spikes),
            saturations=_sums(self.saturations, other.saturations),
            deployed=_sums(self.deployed, other.deployed),
            reference=_sums(self.reference, other.reference),
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


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges sorted, those that touch as one; CoverageError if two overlap."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and start < found[-1][1]:
            raise CoverageError(f"sample {start} was compared twice")
        if found and start == found[-1][1]:
            start, _ = found.pop()
        found.append((start, stop))
    return tuple(found)


def _sums(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, two, strict=True))
