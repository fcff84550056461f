"""Run a netx file in Lava and check it against the reference: ``python -m deploy.run_lava net.h5 --T 4``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.compare.options import (
    EXIT_EXACT,
    EXIT_STATUS,
    FAILURES,
    Outcome,
    add_options,
    check,
    check_outputs,
    load,
    planned,
    run,
)
from nqlava.command.parser import Parser


def parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "deploy.run_lava",
        "Run test images through a netx file in Lava and compare every spike of every layer at every step, "
        "and the read-out, with the exact integer engine, and both with the reference on the first images.",
        [
            "deploy.run_lava net.h5",
            "deploy.run_lava net.h5 --T 4 --samples 1000 --data cifar10 --model model.pt --json result.json",
            "deploy.run_lava net.h5 --samples 1000 --report report.html",
            "deploy.run_lava net.h5 --samples 10000 --data cifar10 --workers 4 --dry-run",
        ],
        EXIT_STATUS,
    )
    add_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="also write a page of HTML about the run to FILE (deploy.report)"
    )
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    check(options)
    from deploy.compare.float_accuracy import measure
    from deploy.compare.table import entries, table
    from deploy.files import write_json
    from nqlava.engine.cpu.machine import describe

    if options.report is not None:
        from deploy.report.needs import require

        require("--report")
    check_outputs(options, options.json, options.report)
    task = load(options)
    network, data = task.network, task.data
    print(
        f"{options.net}: {len(network.layers)} layers, network {network.digest()[:16]}; "
        f"{len(data)} test images, T = {task.job.steps}, backend {options.backend}; kernels: {describe()}",
        flush=True,
    )
    print(
        f"images of {' '.join(options.data)}, seed {options.seed}; batch {options.batch}, "
        f"{options.scheduler or f'workers {options.workers}'}, tolerance "
        f"{'by the number of images' if options.tolerance is None else f'{options.tolerance:g} points'}",
        flush=True,
    )
    if options.dry_run:
        print(planned(options, task))
        return EXIT_EXACT
    verdict, wall_seconds = run(options, task)
    print(table(verdict))
    content = None
    if options.report is not None:
        from deploy.report.write import make, write

        content = make(options, task, verdict, wall_seconds, command)
        floating = content.floating
    elif task.model is not None:
        floating = measure(task.model, data, verdict, None if options.model is not None else wall_seconds)
    else:
        floating = None
    outcome = Outcome(verdict, floating, task.model_from, options.tolerance)
    print(outcome.comparison())
    print(
        f"Lava: {verdict.seconds:.1f} s with its start, {len(data) / verdict.seconds:.1f} images/s per network; "
        f"all with the comparison: {wall_seconds:.1f} s, {len(data) / wall_seconds:.1f} images/s"
    )
    print(f"digest of the network, all spikes and all read-outs: {verdict.digest}")
    print(outcome)
    if options.json is not None:
        settings = {
            "net": str(options.net),
            "network_sha256": network.digest(),
            "backend": options.backend,
            "data": options.data,
            "seed": options.seed,
            "workers": options.workers,
            "scheduler": options.scheduler,
            "tolerance": outcome.allowed,
        }
        write_json(options.json, settings | entries(verdict, floating, wall_seconds))
    if content is not None:
        write(options.report, content)
        print(f"report: {options.report}")
    return outcome.status


def main(argv: Sequence[str] | None = None) -> int:
    chosen = parser()
    return chosen.run(lambda options: _run(options, chosen.line(options)), argv, FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
