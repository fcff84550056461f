"""What a stress run is given, and what it found."""

import time
from dataclasses import dataclass, field
from pathlib import Path

Figures = dict[str, int | float | str]


@dataclass(frozen=True)
class Plan:
    """The time, the seed of everything random, and a folder for files; what failed stays there to be tried again."""

    seconds: float
    seed: int
    folder: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds, negative when the time is up."""
        return self.began + self.seconds - time.monotonic()


@dataclass(frozen=True)
class Outcome:
    """Figures by name, and one line per failure."""

    figures: Figures
    failures: list[str]
