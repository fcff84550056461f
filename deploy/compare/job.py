"""A comparison as something that can be sent to another process: what to run, and on which samples."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.compare.tally import Tally
from nqlava.errors import InputError


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        net: the netx file.
        digest: of the network in it.
        backend: "cpu", "netx", "stock" or "loihi2".
        steps: T.
        batch: images in one message, for "cpu".
        cores: to use, for the processes of Lava and the threads of the integer engine.
        judged: how many of the first samples the reference judges; None for as many as it has time for.
    """

    net: Path
    digest: str
    backend: str
    steps: int
    batch: int
    cores: int
    judged: int | None = None


@dataclass(frozen=True)
class Part:
    """Consecutive samples.

    Attributes:
        start: number of the first among all samples.
        images: uint8 (n, H, W, C).
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


def run(job: Job, part: Part) -> Generator[Tally, None, None]:
    """Runs the part in this process; a tally for each chunk of samples.

    Raises:
        InputError: another network is in the file now; and what netx.read and backend_traces raise.
    """
    import torch

    from deploy.compare.verify import compared
    from nqlava import netx

    torch.set_num_threads(job.cores)
    network = netx.read(job.net)
    if network.digest() != job.digest:
        raise InputError(f"{job.net}: network {network.digest()[:16]}; allowed: {job.digest[:16]}, as at the start")
    return compared(job, network, part)
