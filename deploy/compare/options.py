"""A comparison with the integer engine as the commands ask for it: their options, what these name, and the run."""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.compare.job import Job, Part
from deploy.compare.tally import Tally
from deploy.errors import ClusterError, CoverageError, LavaMissingError, LavaRunError, Loihi2UnavailableError
from deploy.images import add_arguments, check_steps, load_for, steps_for
from nqlava.errors import InputError

if TYPE_CHECKING:
    from deploy.compare.float_accuracy import FloatAccuracy
    from deploy.compare.verify import Verdict
    from nqlava.network import IntegerNetwork
    from train.data.images import ImageSet
    from train.model.models import Network

EXIT_EXACT, EXIT_MISMATCH, EXIT_BAD_INPUT, EXIT_FAILED = 0, 1, 2, 3
EXIT_STATUS = (
    "exit status: 0 exact; 1 a mismatch, or accuracy lost beyond the tolerance; 2 bad input; 3 Lava, a worker or the "
    "cluster failed; 70 an internal error; 130 interrupted, 143 ended by SIGTERM"
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
        job: the file, and how it runs.
        network: in the file.
        data: the images.
        model: that the network was exported from; None where it is not there.
        model_from: its file, or in words why there is none.
    """

    job: Job
    network: "IntegerNetwork"
    data: "ImageSet"
    model: "Network | None"
    model_from: str

    @property
    def whole(self) -> Part:
        """All images as one part."""
        return Part(0, self.data.images.numpy(), self.data.labels.numpy())


@dataclass(frozen=True)
class Outcome:
    """What follows from a comparison.

    Attributes:
        verdict: of it.
        floating: accuracy of the float SNN; None where it did not run.
        model_from: the file of the float model, or in words why there is none.
        tolerance: points that may be lost against it; None for ``floating.default_tolerance``.
    """

    verdict: "Verdict"
    floating: "FloatAccuracy | None"
    model_from: str
    tolerance: float | None

    @property
    def allowed(self) -> float | None:
        """Points that may be lost."""
        return self.floating.default_tolerance if self.tolerance is None and self.floating else self.tolerance

    @property
    def lost(self) -> float:
        """Points lost against the float SNN; 0 where it did not run."""
        return 0.0 if self.floating is None else self.floating.lost

    @property
    def status(self) -> int:
        """Of the command."""
        kept = self.floating is None or self.allowed is None or self.lost <= self.allowed
        return EXIT_EXACT if self.verdict.exact and kept else EXIT_MISMATCH

    def comparison(self) -> str:
        """Against the float SNN, in a line."""
        if self.floating is None:
            return f"not compared with the float SNN: {self.model_from}"
        change = f"{abs(self.lost):.2f} points {'lost' if self.lost >= 0 else 'gained'}"
        return f"{self.floating.describe()}; {change} (tolerance {self.allowed:.2f}); model {self.model_from}"

    def __str__(self) -> str:
        """The verdict in a line."""
        text = str(self.verdict)
        if self.verdict.exact and self.status != EXIT_EXACT:
            return f"{text}, but {self.lost:.2f} points below the float SNN; allowed: {self.allowed:.2f}"
        return text


def _judged(text: str) -> int:
    if text == "all":
        return sys.maxsize
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be a whole number from 1, or all")
    return int(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the file, and the options that decide what runs on which images, where, and what it is held against."""
    parser.add_argument("net", type=Path, help="netx file written by export.to_netx")
    add_arguments(parser)
    parser.add_argument("--batch", type=int, default=64, help="images in one message (default: %(default)s)")
    parser.add_argument(
        "--model",
        type=Path,
        help="the model file that was exported: the float SNN runs on all images (default: that file, if it is beside "
        "the netx file or where it was; the float SNN then runs on the first images, for as long as Lava ran)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="accuracy, in points, that may be lost against the float SNN (default: 0.5 + 30/√images)",
    )
    parser.add_argument(
        "--reference-samples",
        type=_judged,
        metavar="N",
        help="images, from the first, on which the reference judges Lava and the engine, or all (default: in every "
        "process at least one, and more for as long as the rest of the run, but at most 3 s)",
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
    """InputError for an option of ``add_options`` that is not allowed."""
    for name, low, high in (("samples", 1, 10_000_000), ("batch", 1, 4096), ("workers", 1, 1024)):
        if not low <= getattr(options, name) <= high:
            raise InputError(f"--{name} is {getattr(options, name)}; allowed: {low}..{high}")
    check_steps(options.steps)
    if options.scheduler is not None and importlib.util.find_spec("distributed") is None:
        raise InputError("--scheduler needs Dask, which is not installed: pip install -e '.[dask]' -c constraints.txt")
    if options.tolerance is not None and not options.tolerance >= 0:
        raise InputError(f"--tolerance is {options.tolerance}; allowed: 0 or more")


def check_outputs(options: argparse.Namespace, *outputs: Path | None) -> None:
    """InputError where an output cannot be written, or is an input or another output too."""
    from train.loop.checkpoint import check_writable

    inputs = [options.net, options.model, options.config, *map(Path, options.data)]
    chosen = [path for path in outputs if path is not None]
    for index, path in enumerate(chosen):
        check_writable(path, inputs=inputs)
        if any(path.absolute() == other.absolute() for other in chosen[:index]):
            raise InputError(f"{path}: is named for two outputs; allowed: a file for each")


def load(options: argparse.Namespace) -> Task:
    """What the options name.

    Raises:
        InputError: the file, the images or the model cannot be used, or do not belong together.
    """
    from deploy.compare.float_accuracy import ModelSearch, exported_model, find_model
    from nqlava import netx

    network = netx.read(options.net)
    steps = steps_for(options.net, network, options.steps)
    data = load_for(options.net, network, options.data)
    if len(data.classes) != network.classes:
        raise InputError(f"data: {len(data.classes)} classes; allowed: {network.classes} as {options.net}")
    data = data.sample(options.samples, options.seed)
    try:
        expected = json.loads(str(network.info.get("classes", "null")))
    except (json.JSONDecodeError, RecursionError):
        raise InputError(f"{options.net}: info: classes is no list of names; export the network again") from None
    if expected is not None and expected != list(data.classes):
        raise InputError(f"data: classes are {', '.join(data.classes)}; allowed: those of {options.net}")
    found = ModelSearch(options.model) if options.model is not None else find_model(options.net, network)
    model, model_from = None, found.missing
    try:
        if found.path is not None:
            model, model_from = exported_model(network, found.path), str(found.path)
    except InputError as error:
        if options.model is not None:
            raise
        model_from = str(error)
    cores = 1 if options.scheduler is not None else max(1, len(os.sched_getaffinity(0)) // options.workers)
    job = Job(options.net, network.digest(), options.backend, steps, options.batch, cores, options.reference_samples)
    return Task(job, network, data, model, model_from)


def planned(options: argparse.Namespace, task: Task) -> str:
    """What ``run`` would do, in a few lines; errors as of ``deploy.compare.dry_run.plan``."""
    from deploy.compare.dry_run import plan

    return plan(task.job, task.network, task.whole, workers=options.workers, scheduler=options.scheduler)


def run(options: argparse.Namespace, task: Task) -> "tuple[Verdict, float]":
    """Runs the images on the backend: the verdict, and the seconds that it took; errors as of ``FAILURES``."""
    from deploy.compare.verify import verdict_of

    began = time.monotonic()
    tally = _with_progress(_tallies(options, task), len(task.data))
    seconds = time.monotonic() - began
    return verdict_of(task.network, tally, len(task.data)), seconds


def _tallies(options: argparse.Namespace, task: Task) -> Generator[Tally, None, None]:
    """Tallies of all samples, from this process, from others on this machine, or from a cluster."""
    if options.scheduler is not None:
        from deploy.compare.cluster import on_cluster

        return on_cluster(options.scheduler, task.job, task.whole)
    if options.workers > 1:
        from deploy.compare.workers import in_processes

        return in_processes(task.job, task.whole.split(options.workers))
    from deploy.compare.verify import compared

    return compared(task.job, task.network, task.whole)


def _with_progress(tallies: Generator[Tally, None, None], samples: int) -> Tally:
    """The sum of the tallies; shows images per second, the accuracy so far and the time left meanwhile."""
    from nqlava.command.progress import progress

    tally: Tally | None = None
    with closing(tallies), progress(samples, "images", "Lava") as bar:
        for part in tallies:
            tally = part if tally is None else tally + part
            bar.set_postfix(accuracy=f"{tally.accuracy:.2f} %", refresh=False)
            bar.update(part.samples)
    if tally is None:
        raise CoverageError(f"no sample was compared; expected: 0..{samples - 1}")
    return tally
