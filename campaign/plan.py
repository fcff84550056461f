"""How much a campaign does, and what it reports."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Figure = int | float | str


@dataclass(frozen=True)
class Plan:
    """What a campaign is given.

    Args:
        share: of the full counts, 1 for all.
        seconds: after which it begins nothing new.
        seed: of everything random.
        folder: for its files; what failed stays there to be tried again.
    """

    share: float
    seconds: float
    seed: int
    folder: Path
    began: float = field(default_factory=time.monotonic)

    def count(self, full: int) -> int:
        """The share of a full count, at least 1."""
        return max(1, round(self.share * full))

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self.began > self.seconds


@dataclass(frozen=True)
class Outcome:
    """What a campaign found: its figures under their names, and a line for each thing that was not as it must be."""

    figures: Mapping[str, Figure]
    failures: Sequence[str] = ()
