"""Run a netx file in Lava and check it against the reference: ``python -m deploy.run_lava net.h5 --T 4``."""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ClusterError, CoverageError, LavaMissingError, LavaRunError, Loihi2UnavailableError
from deploy.images import add_arguments, channels_first, check_steps, load_for, steps_for
from deploy.job import Job, Part
from deploy.tally import Tally
from train.options import Parser

if TYPE_CHECKING:
    from export.network import IntegerNetwork

EXIT_EXACT, EXIT_MISMATCH, EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
_BACKENDS = ("cpu", "netx", "stock", "loihi2")


def parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "deploy.run_lava",
        "Run test images through a netx file in Lava and compare every spike of every layer at every step, "
        "and the read-out, with the exact integer engine.",
        [
            "deploy.run_lava net.h5",
            "deploy.run_lava net.h5 --T 4 --samples 1000 --data cifar10 --model model.pt --json result.json",
            "deploy.run_lava net.h5 --samples 10000 --data cifar10 --workers 4 --dry-run",
        ],
        "exit status: 0 exact; 1 a mismatch, or accuracy lost beyond the tolerance; 2 bad input; 3 Lava, a "
        "worker or the cluster failed; 130 interrupted",
    )
    parser.add_argument("net", type=Path, help="netx file written by export.to_netx")
    add_arguments(parser)
    parser.add_argument("--batch", type=int, default=64, help="images in one message (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
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
        choices=_BACKENDS,
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
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, low, high in (("samples", 1, 10_000_000), ("batch", 1, 4096), ("workers", 1, 1024)):
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"--{name} is {getattr(options, name)}; allowed: {low}..{high}")
    check_steps(options.steps)
    if options.scheduler is not None and importlib.util.find_spec("distributed") is None:
        raise ValueError("--scheduler needs Dask, which is not installed: pip install -e '.[dask]' -c constraints.txt")
    if options.tolerance is not None and not options.tolerance >= 0:
        raise ValueError(f"--tolerance is {options.tolerance}; allowed: 0 or more")


def _run(options: argparse.Namespace) -> int:
    _check(options)
    from deploy.cpu.machine import describe
    from deploy.files import write_json
    from deploy.reference import exported_accuracy, exported_model, measured_accuracy
    from deploy.run_report import entries, table
    from deploy.verify import verdict_of
    from export import netx
    from train.checkpoint import check_writable

    if options.json is not None:
        check_writable(options.json, inputs=[options.net, options.model])
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
    floating = exported_accuracy(network, steps) if model is None else None
    print(
        f"{options.net}: {len(network.layers)} layers, network {network.digest()[:16]}; "
        f"{len(data)} test images, T = {steps}, backend {options.backend}; kernels: {describe()}",
        flush=True,
    )
    print(
        f"images of {' '.join(options.data)}, seed {options.seed}; batch {options.batch}, "
        f"{options.scheduler or f'workers {options.workers}'}, tolerance "
        f"{'by the number of images' if options.tolerance is None else f'{options.tolerance:g} points'}",
        flush=True,
    )
    whole = Part(0, channels_first(data), data.labels.numpy())
    if options.dry_run:
        from deploy.dry_run import plan

        chosen = {key: getattr(options, key) for key in ("backend", "batch", "workers", "scheduler")}
        print(plan(options.net, network, whole.images, steps=steps, **chosen))
        return EXIT_EXACT
    began = time.monotonic()
    tally = _with_progress(_tallies(options, network, whole, steps), len(data))
    wall_seconds = time.monotonic() - began
    verdict = verdict_of(network, tally, len(data))
    print(table(verdict))
    if model is not None:
        floating = measured_accuracy(model, data, steps)
    drop, tolerance = 0.0, options.tolerance
    if floating is None:
        print(f"not compared with the float SNN: the file does not hold its accuracy at T={steps}; give --model")
    else:
        drop = floating.drop(verdict.deployed[-1])
        tolerance = floating.default_tolerance if tolerance is None else tolerance
        print(f"{floating.describe()}; lost {drop:+.2f} points (tolerance {tolerance:.2f})")
    print(
        f"Lava: {verdict.seconds:.1f} s with its start, {len(data) / verdict.seconds:.1f} images/s per network; "
        f"all with the comparison: {wall_seconds:.1f} s, {len(data) / wall_seconds:.1f} images/s"
    )
    good = verdict.exact and (floating is None or drop <= tolerance)
    if not verdict.exact:
        print(f"NOT EXACT: {sum(verdict.mismatches):,} mismatches; the first: {verdict.first}")
    elif not good:
        print(f"EXACT, but {drop:.2f} points below the float SNN; allowed: {tolerance:.2f}")
    else:
        print(f"EXACT: every spike and every read-out of {len(data)} images equals the reference")
    if options.json is not None:
        settings = {
            "net": str(options.net),
            "network_sha256": network.digest(),
            "backend": options.backend,
            "data": options.data,
            "seed": options.seed,
            "workers": options.workers,
            "scheduler": options.scheduler,
            "tolerance": tolerance,
        }
        write_json(options.json, settings | entries(verdict, floating, wall_seconds))
    return EXIT_EXACT if good else EXIT_MISMATCH


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


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    try:
        return _run(options)
    except (ValueError, OSError, LavaMissingError, Loihi2UnavailableError) as error:
        print(f"deploy.run_lava: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (LavaRunError, CoverageError, ClusterError) as error:
        print(f"deploy.run_lava: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("\ndeploy.run_lava: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
