"""A comparison with the integer engine as the commands ask for it: their options, what these name, and the run."""

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ClusterError, CoverageError, LavaMissingError, LavaRunError, Loihi2UnavailableError
from deploy.images import add_arguments, channels_first, check_steps, load_for, steps_for
from deploy.job import Job, Part
from deploy.tally import Tally

if TYPE_CHECKING:
    from deploy.reference import Reference
    from deploy.verify import Verdict
    from export.network import IntegerNetwork
    from train.data import ImageSet
    from train.models import Network

EXIT_EXACT, EXIT_MISMATCH, EXIT_BAD_INPUT, EXIT_FAILED = 0, 1, 2, 3
EXIT_STATUS = (
    "exit status: 0 exact; 1 a mismatch, or accuracy lost beyond the tolerance; 2 bad input; 3 Lava, a worker or the "
    "cluster failed; 130 interrupted, 143 ended by SIGTERM"
)
FAILURES: dict[type[Exception], int] = {
    LavaMissingError: EXIT_BAD_INPUT,
    Loihi2UnavailableError: EXIT_BAD_INPUT,
    LavaRunError: EXIT_FAILED,
    CoverageError: EXIT_FAILED,
    ClusterError: EXIT_FAILED,
}
"""Exit statuses of what can go wrong beside bad input."""
BACKENDS = ("cpu", "netx", "stock", "loihi2")


@dataclass(frozen=True)
class Task:
    """What the options name.

    Attributes:
        net: the file. network: in it.
        steps: T.
        data: the images.
        model: that the network was exported from; None where no option names it.
        stored: accuracies of the float SNN as the file has them, or None.
    """

    net: Path
    network: "IntegerNetwork"
    steps: int
    data: "ImageSet"
    model: "Network | None"
    stored: "Reference | None"

    @property
    def whole(self) -> Part:
        """All images as one part."""
        return Part(0, channels_first(self.data), self.data.labels.numpy())


@dataclass(frozen=True)
class Outcome:
    """What follows from a comparison.

    Attributes:
        verdict: of it.
        floating: accuracy of the float SNN; None where it is not known.
        tolerance: points that may be lost against it; None for ``floating.default_tolerance``.
    """

    verdict: "Verdict"
    floating: "Reference | None"
    tolerance: float | None

    @property
    def allowed(self) -> float | None:
        """Points that may be lost."""
        return self.floating.default_tolerance if self.tolerance is None and self.floating else self.tolerance

    @property
    def lost(self) -> float:
        """Points lost against the float SNN; 0 where that is not known."""
        return 0.0 if self.floating is None else self.floating.drop(self.verdict.deployed[-1])

    @property
    def status(self) -> int:
        """Of the command."""
        kept = self.floating is None or self.allowed is None or self.lost <= self.allowed
        return EXIT_EXACT if self.verdict.exact and kept else EXIT_MISMATCH

    def comparison(self) -> str:
        """Against the float SNN, in a line."""
        if self.floating is None:
            return (
                f"not compared with the float SNN: the file does not hold its accuracy at T={self.verdict.steps}; "
                "give --model"
            )
        change = f"{abs(self.lost):.2f} points {'lost' if self.lost >= 0 else 'gained'}"
        return f"{self.floating.describe()}; {change} (tolerance {self.allowed:.2f})"

    def __str__(self) -> str:
        """The verdict in a line."""
        if not self.verdict.exact:
            return f"NOT EXACT: {sum(self.verdict.mismatches):,} mismatches; the first: {self.verdict.first}"
        if self.status != EXIT_EXACT:
            return f"EXACT, but {self.lost:.2f} points below the float SNN; allowed: {self.allowed:.2f}"
        return f"EXACT: every spike and every read-out of {self.verdict.samples} images equals the reference"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the file, and the options that decide what runs on which images, where, and what it is held against."""
    parser.add_argument("net", type=Path, help="netx file written by export.to_netx")
    add_arguments(parser)
    parser.add_argument("--batch", type=int, default=64, help="images in one message (default: %(default)s)")
    parser.add_argument(
        "--model",
        type=Path,
        help="the model file that was exported: the float SNN runs on the same images "
        "(without it, the drop measured at export on the calibration images counts)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="accuracy, in points, that may be lost against the float SNN (default: 0.5 + 30/√images)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="cpu",
        help="cpu: Lava processes of whole layers, with batches; netx: lava-dl's own reader and stock synapses, one "
        "image at a time; stock: neurons of Lava's own parts too; loihi2: a chip (default: %(default)s)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes on this machine, each with some of the images and its own Lava network (default: %(default)s)",
    )
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster whose workers run the images, such as tcp://10.0.0.1:8786; it must be trusted, since "
        "Dask exchanges pickles (docs/cluster.md)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check options, file and data, say what would run, and run nothing"
    )


def check(options: argparse.Namespace) -> None:
    """ValueError for an option of ``add_options`` that is not allowed."""
    for name, low, high in (("samples", 1, 10_000_000), ("batch", 1, 4096), ("workers", 1, 1024)):
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"--{name} is {getattr(options, name)}; allowed: {low}..{high}")
    check_steps(options.steps)
    if options.scheduler is not None and importlib.util.find_spec("distributed") is None:
        raise ValueError("--scheduler needs Dask, which is not installed: pip install -e '.[dask]' -c constraints.txt")
    if options.tolerance is not None and not options.tolerance >= 0:
        raise ValueError(f"--tolerance is {options.tolerance}; allowed: 0 or more")


def check_outputs(options: argparse.Namespace, *outputs: Path | None) -> None:
    """ValueError where an output cannot be written, or is an input or another output too."""
    from train.checkpoint import check_writable

    inputs = [options.net, options.model, options.config, *map(Path, options.data)]
    chosen = [path for path in outputs if path is not None]
    for index, path in enumerate(chosen):
        check_writable(path, inputs=inputs)
        if any(path.absolute() == other.absolute() for other in chosen[:index]):
            raise ValueError(f"{path}: is named for two outputs; allowed: a file for each")


def load(options: argparse.Namespace) -> Task:
    """What the options name.

    Raises:
        ValueError, OSError: the file, the images or the model cannot be used, or do not belong together.
    """
    from deploy.reference import exported_accuracy, exported_model
    from export import netx

    network = netx.read(options.net)
    steps = steps_for(options.net, network, options.steps)
    data = load_for(options.net, network, options.data)
    if len(data.classes) != network.classes:
        raise ValueError(f"data: {len(data.classes)} classes; allowed: {network.classes} as {options.net}")
    data = data.sample(options.samples, options.seed)
    expected = json.loads(str(network.info.get("classes", "null")))
    if expected is not None and expected != list(data.classes):
        raise ValueError(f"data: classes are {', '.join(data.classes)}; allowed: those of {options.net}")
    model = None if options.model is None else exported_model(network, options.model)
    return Task(options.net, network, steps, data, model, exported_accuracy(network, steps))


def planned(options: argparse.Namespace, task: Task) -> str:
    """What ``run`` would do, in a few lines; errors as of ``deploy.dry_run.plan``."""
    from deploy.dry_run import plan

    chosen = {key: getattr(options, key) for key in ("backend", "batch", "workers", "scheduler")}
    return plan(task.net, task.network, task.whole.images, steps=task.steps, **chosen)


def run(options: argparse.Namespace, task: Task) -> "tuple[Verdict, float]":
    """Runs the images on the backend: the verdict, and the seconds that it took; errors as of ``FAILURES``."""
    from deploy.verify import verdict_of

    began = time.monotonic()
    tally = _with_progress(_tallies(options, task.network, task.whole, task.steps), len(task.data))
    seconds = time.monotonic() - began
    return verdict_of(task.network, tally, len(task.data)), seconds


def _tallies(
    options: argparse.Namespace, network: "IntegerNetwork", whole: Part, steps: int
) -> Generator[Tally, None, None]:
    """Tallies of all samples, from this process, from others on this machine, or from a cluster."""
    cores = 1 if options.scheduler is not None else max(1, len(os.sched_getaffinity(0)) // options.workers)
    if options.workers == 1 and options.scheduler is None:
        from deploy.verify import backend_traces, tallies

        chunks = backend_traces(options.backend, options.net, network, whole.images, steps, options.batch, cores)
        return tallies(network, whole.images, whole.labels, chunks)
    job = Job(options.net, network.digest(), options.backend, steps, options.batch, cores)
    if options.scheduler is None:
        from deploy.workers import in_processes

        return in_processes(job, whole.split(options.workers))
    from deploy.cluster import on_cluster

    return on_cluster(options.scheduler, job, whole)


def _with_progress(tallies: Generator[Tally, None, None], samples: int) -> Tally:
    """The sum of the tallies; shows images per second, the accuracy so far and the time left meanwhile."""
    from train.progress import progress

    tally: Tally | None = None
    with closing(tallies), progress(samples, "images", "Lava") as bar:
        for part in tallies:
            tally = part if tally is None else tally + part
            bar.set_postfix(accuracy=f"{tally.accuracy:.2f} %", refresh=False)
            bar.update(part.samples)
    if tally is None:
        raise CoverageError(f"no sample was compared; expected: 0..{samples - 1}")
    return tally
