"""Images as the parts of a run that workers are given."""

from collections.abc import Generator
from pathlib import Path

import numpy as np

from deploy.compare.compare import compare_traces
from deploy.compare.judge import Judge
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict, merge
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace


def part_of(images: np.ndarray, labels: np.ndarray | None = None, start: int = 0) -> Part:
    """Images (N, C, H, W) as a part of a run."""
    return Part(start, images, np.zeros(len(images), np.int64) if labels is None else labels)


def verdicts(
    network: IntegerNetwork, part: Part, steps: int, chunks: Generator[Trace, None, None], judged: int | None = None
) -> Generator[Verdict, None, None]:
    settings = Settings(Path(), steps=steps, reference_samples=judged, backend="stock")
    return compare_traces(settings, network, part, chunks, Judge(network, part, settings))


def verify(
    network: IntegerNetwork, part: Part, steps: int, chunks: Generator[Trace, None, None], judged: int | None = None
) -> Verdict:
    """The verdict on the traces of a part, from a backend that need not leave potentials."""
    verdict = merge(verdicts(network, part, steps, chunks, judged))
    verdict.require_all(len(part.images))
    return verdict
