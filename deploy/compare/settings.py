"""How a netx file is run and compared: options of deploy.run_lava and deploy.report, arguments of deploy.api."""

import argparse
import importlib.util
import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from deploy.errors import ClusterError, CoverageError, LavaMissingError, LavaRunError, Loihi2UnavailableError
from deploy.images import add_arguments
from nqlava.c.errors import ProgramError
from nqlava.errors import InputError

EXIT_EXACT, EXIT_MISMATCH, EXIT_BAD_INPUT, EXIT_FAILED = 0, 1, 2, 3
EXIT_STATUS = (
    "exit status: 0 exact; 1 a mismatch, or accuracy lost beyond the tolerance; 2 bad input; 3 Lava, a worker or the "
    "cluster failed; 70 an internal error; 130 interrupted, 143 ended by SIGTERM"
)
FAILURES: dict[type[Exception], int] = {
    LavaMissingError: EXIT_BAD_INPUT,
    Loihi2UnavailableError: EXIT_BAD_INPUT,
    LavaRunError: EXIT_FAILED,
    ProgramError: EXIT_FAILED,
    CoverageError: EXIT_FAILED,
    ClusterError: EXIT_FAILED,
}
"""Exit status by error, bad input aside."""
BACKENDS = ("cpu", "netx", "stock", "c", "loihi2")
_RANGES = {
    "samples": (1, 10_000_000),
    "batch": (1, 4096),
    "workers": (1, 1024),
    "reference_samples": (1, sys.maxsize),
}


@dataclass(frozen=True)
class Settings:
    """Everything that a run is asked to do; checked here, once. It can be sent to other processes.

    Attributes:
        net: the netx file.
        data: sources of the images, of which ``seed`` draws ``samples``.
        steps: T; None for the T in the file.
        batch: images in one message, for backend "cpu".
        backend: one of BACKENDS.
        workers: processes on this machine, each with its own Lava network.
        scheduler: address of a Dask cluster to run on; None for this machine.
        model: file of the exported model; None to look for it.
        tolerance: accuracy, in points, that may be lost against the float SNN; None for the default.
        reference_samples: images, from the first, that the reference judges; None for as many as it has time for.
        digest: of the network, once its file was read: a worker that finds another one in the file refuses it.

    Raises:
        InputError: a value that is not allowed.
    """

    net: Path
    data: tuple[str, ...] = ("sample",)
    samples: int = 100
    seed: int = 0
    steps: int | None = None
    batch: int = 64
    backend: str = "cpu"
    workers: int = 1
    scheduler: str | None = None
    model: Path | None = None
    tolerance: float | None = None
    reference_samples: int | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and low <= value <= high):
                raise InputError(f"{name.replace('_', '-')} is {value!r}; allowed: {low}..{high}")
        if self.backend not in BACKENDS:
            raise InputError(f"backend is {self.backend!r}; allowed: {', '.join(BACKENDS)}")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise InputError(f"tolerance is {self.tolerance}; allowed: 0 or more")

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Settings":
        """The settings that ``add_options`` read; InputError names the option."""
        if options.scheduler is not None and importlib.util.find_spec("distributed") is None:
            raise InputError("--scheduler needs Dask, not installed: pip install -e '.[dask]' -c constraints.txt")
        given = {one.name: getattr(options, one.name) for one in fields(cls) if hasattr(options, one.name)}
        try:
            return cls(**given | {"data": tuple(options.data)})
        except InputError as error:
            raise InputError(f"--{error}") from None

    @property
    def T(self) -> int:
        """The time steps, once the file was read (deploy.compare.run.prepare)."""
        assert self.steps is not None
        return self.steps

    @property
    def target(self) -> str:
        """What the backend runs the network in: "Lava" or "C"."""
        return "C" if self.backend == "c" else "Lava"

    @property
    def cores(self) -> int:
        """Cores for one Lava network and the engine beside it."""
        return 1 if self.scheduler is not None else max(1, len(os.sched_getaffinity(0)) // self.workers)


def _judged(text: str) -> int:
    if text == "all":
        return sys.maxsize
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be a whole number from 1, or all")
    return int(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``Settings.of`` reads, and --dry-run."""
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
        help="accuracy, in points, that may be lost against the float SNN (default: 0.5 and two standard errors of "
        "chance, but at least one image)",
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
        "image at a time; stock: neurons of Lava's own parts too; c: the program that export.to_c writes, "
        "without Lava; loihi2: a chip (default: %(default)s)",
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
        help="address of a Dask cluster whose workers run the images, such as tcp://10.0.0.1:8786; it must be trusted, "
        "since Dask exchanges pickles (docs/cluster.md)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check options, file and data, say what would run, and run nothing"
    )
