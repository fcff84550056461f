"""The verdict on a run: counts over its samples that add up, and what follows from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, TypeVar

from deploy.compare.judge import Disagreement
from deploy.errors import CoverageError
from nqlava.trace import DIGESTS, Mismatch

if TYPE_CHECKING:
    from deploy.compare.float_accuracy import FloatAccuracy


LOSS = 10.0
"""Points below the network that it was converted from beyond which a verdict says so; a few are those of new images."""


@dataclass(frozen=True)
class Verdict:
    """What a run of some samples of one network showed. ``a + b`` is the verdict on the samples of both.

    Addition is associative and commutative (``seconds`` up to rounding), so that it does not matter how the samples
    were divided, nor which part was done first.

    Attributes:
        layers: names, the read-out last.
        neurons: per layer.
        ranges: the samples, as sorted, separate ranges: number of the first, and a byte for each, 1 where the backend's
            class after step T is right.
        judged: how many of the samples were compared with the reference.
        disagreement: the first difference to the reference, or None.
        mismatches: per layer, how many spikes (membrane potentials in the read-out) differ between backend and engine.
        first: the first mismatch, its sample numbered from the first of all samples, or None.
        spikes: per spiking layer.
        saturations: per layer, clipped membrane potentials.
        correct, engine_correct: correct classes after each step 1 … T, of the backend and of the integer engine.
        total: digest of the network, all spikes and all read-outs of the backend (docs/semantics.md), as a number.
        seconds: time in the backend, its start included, comparison excluded; summed over processes.
        wall_seconds: from the start of the run to its end; 0 while it runs.
        floating: accuracy of the float SNN; None where it did not run.
        model: the file of the float model, or in words why there is none.
        original: accuracy in percent of the network that this one was converted from, or None.
        target: what the backend ran the network in.
    """

    layers: tuple[str, ...]
    neurons: tuple[int, ...]
    ranges: tuple[tuple[int, bytes], ...]
    judged: int
    disagreement: Disagreement | None
    mismatches: tuple[int, ...]
    first: Mismatch | None
    spikes: tuple[int, ...]
    saturations: tuple[int, ...]
    correct: tuple[int, ...]
    engine_correct: tuple[int, ...]
    total: int
    seconds: float
    wall_seconds: float = 0.0
    floating: "FloatAccuracy | None" = None
    model: str = ""
    original: float | None = None
    target: str = "Lava"

    @property
    def samples(self) -> int:
        return sum(len(right) for _, right in self.ranges)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.correct)

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Accuracy of the backend after each step 1 … T, in percent."""
        return tuple(100 * count / self.samples for count in self.correct)

    @property
    def engine_accuracy(self) -> tuple[float, ...]:
        """Accuracy of the integer engine after each step 1 … T, in percent."""
        return tuple(100 * count / self.samples for count in self.engine_correct)

    @property
    def spike_rates(self) -> tuple[float, ...]:
        """Per spiking layer, spikes per neuron and step."""
        places = self.samples * self.steps
        return tuple(spikes / (neurons * places) for spikes, neurons in zip(self.spikes, self.neurons, strict=False))

    @property
    def digest(self) -> str:
        """``total`` as 64 hexadecimal digits."""
        return f"{self.total:064x}"

    @property
    def right(self) -> bytes:
        """A byte for each sample, 1 where the backend's class after step T is right."""
        return b"".join(right for _, right in self.ranges)

    @property
    def exact(self) -> bool:
        """Whether backend and engine agree on all images, and both agree with the reference on those that it judged."""
        return not any(self.mismatches) and self.disagreement is None

    @property
    def passed(self) -> bool:
        """Whether it is exact, and not too much accuracy is lost against the float SNN."""
        return self.exact and (self.floating is None or self.floating.kept)

    def __str__(self) -> str:
        """What was compared with what, on how many images, and the outcome, in a line."""
        target = self.target
        if self.disagreement is not None:
            more = f"; {target} and the engine differ in {_count(sum(self.mismatches), 'value')}" if self.first else ""
            return f"NOT EXACT: {self.disagreement}{more}"
        if self.first is not None:
            found = _count(sum(self.mismatches), "value")
            return f"NOT EXACT: {target} and the engine differ in {found}; the first: {self.first}"
        text = (
            f"EXACT: {target} = engine in every spike and read-out of {_count(self.samples, 'image')}, "
            f"reference = engine = {target} on {self.judged} of them"
        )
        if self.floating is not None and not self.passed:
            text += f", but {self.floating.lost:.2f} points below the float SNN; allowed: {self.floating.tolerance:.2f}"
        if self.original is not None and self.original - self.accuracy[-1] > LOSS:
            text += f", but {self.accuracy[-1]:.2f} % are right; before the conversion {self.original:.2f} % were"
        return text

    def __add__(self, other: "Verdict") -> "Verdict":
        """The verdict on the samples of both.

        Raises:
            CoverageError: some sample is in both.
            ValueError: the runs are of networks with different numbers of layers, or of different T.
        """
        return Verdict(
            layers=self.layers,
            neurons=self.neurons,
            ranges=_joined(self.ranges + other.ranges),
            judged=self.judged + other.judged,
            disagreement=_earliest(self.disagreement, other.disagreement),
            mismatches=_sums(self.mismatches, other.mismatches),
            first=_earliest(self.first, other.first),
            spikes=_sums(self.spikes, other.spikes),
            saturations=_sums(self.saturations, other.saturations),
            correct=_sums(self.correct, other.correct),
            engine_correct=_sums(self.engine_correct, other.engine_correct),
            total=(self.total + other.total) % DIGESTS,
            seconds=self.seconds + other.seconds,
            target=self.target,
        )

    def require_all(self, samples: int) -> None:
        """CoverageError unless each of ``samples`` samples was compared, and at least one with the reference."""
        if [(start, len(right)) for start, right in self.ranges] != [(0, samples)]:
            counted = ", ".join(f"{start}..{start + len(right) - 1}" for start, right in self.ranges)
            raise CoverageError(f"samples {counted} were compared; expected: 0..{samples - 1}")
        if not self.judged:
            raise CoverageError("no sample was compared with the reference; expected: at least one")


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """The sum of at least one verdict; errors as of ``+``."""
    return reduce(add, verdicts)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


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
