"""Images as the parts of a run that workers are given."""

from collections.abc import Generator

import numpy as np

from deploy.compare.job import Part
from deploy.compare.tally import merge
from deploy.compare.verify import Verdict, tallies, verdict_of
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace


def part_of(images: np.ndarray, labels: np.ndarray | None = None, start: int = 0) -> Part:
    """Images (N, C, H, W) as a part of a run."""
    return Part(start, images.transpose(0, 2, 3, 1), np.zeros(len(images), np.int64) if labels is None else labels)


def verify(
    network: IntegerNetwork, part: Part, steps: int, chunks: Generator[Trace, None, None], judged: int | None = None
) -> Verdict:
    """The verdict on the traces of a part."""
    return verdict_of(network, merge(tallies(network, part, steps, chunks, judged)), len(part.images))
