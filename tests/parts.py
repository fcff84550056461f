"""Images as the parts of a run that workers are given."""

from collections.abc import Generator

import numpy as np

from deploy.compare.compare import compare_traces
from deploy.compare.part import Part
from deploy.compare.verdict import Verdict, merge
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace


def part_of(images: np.ndarray, labels: np.ndarray | None = None, start: int = 0) -> Part:
    """Images (N, C, H, W) as a part of a run."""
    return Part(start, images, np.zeros(len(images), np.int64) if labels is None else labels)


def verify(
    network: IntegerNetwork, part: Part, steps: int, chunks: Generator[Trace, None, None], judged: int | None = None
) -> Verdict:
    """The verdict on the traces of a part."""
    verdict = merge(compare_traces(network, part, chunks, steps, judged))
    verdict.require_all(len(part.images))
    return verdict
