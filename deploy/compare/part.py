"""Consecutive samples of a run, as they go to another process."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """Consecutive samples.

    Attributes:
        start: number of the first among all samples.
        images: uint8 (n, C, H, W).
        labels: int64 (n,).
    """

    start: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __str__(self) -> str:
        return f"samples {self.start}..{self.start + len(self.images) - 1}"

    def split(self, parts: int) -> list["Part"]:
        """Consecutive parts whose sizes differ by at most one; as many as asked for, but none of them empty."""
        count = len(self.images)
        parts = min(parts, count)
        bounds = [count * i // parts for i in range(parts + 1)]
        pieces = (slice(*pair) for pair in pairwise(bounds))
        return [Part(self.start + piece.start, self.images[piece], self.labels[piece]) for piece in pieces]
