"""A page of HTML about a netx file and its run in Lava: ``python -m deploy.report net.h5 --out report.html``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.compare.options import (
    EXIT_EXACT,
    EXIT_STATUS,
    FAILURES,
    add_options,
    check,
    check_outputs,
    load,
    planned,
    run,
)
from nqlava.command.parser import Parser
from nqlava.errors import InputError


def parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "deploy.report",
        "Run test images through a netx file in Lava, compare with the exact integer engine and the reference, and "
        "write one page of HTML: the verdict, accuracy of every stage, images, spikes, activity, ranges, fit on chips, "
        "and how to reproduce it.",
        [
            "deploy.report net.h5 --out report.html --model model.pt",
            "deploy.report net.h5 --samples 1000 --data cifar10 --model model.pt --json report.json",
            "deploy.report net.h5 --integer-only --image 7 --neurons layers.1:0,3,4 layers.1:0,3,5",
        ],
        EXIT_STATUS,
    )
    add_options(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="page to write (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers of the page to FILE")
    parser.add_argument("--integer-only", action="store_true", help="do not run Lava, and say so")
    parser.add_argument(
        "--image", type=int, help="number of the image whose spikes are drawn (default: the first that is wrong)"
    )
    parser.add_argument(
        "--neurons",
        nargs="+",
        default=[],
        metavar="NEURON",
        help="whose membrane potentials are drawn: LAYER:C,Y,X or LAYER:N (default: some that spike every other step)",
    )
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    check(options)
    from deploy.report.needs import require

    require("deploy.report")
    from deploy.files import write_json
    from deploy.report.write import make, neuron, traces, write

    check_outputs(options, options.out, options.json)
    if options.integer_only and (options.backend != "cpu" or options.workers != 1 or options.scheduler is not None):
        raise InputError("--integer-only is given; allowed: without --backend, --workers and --scheduler")
    task = load(options)
    if options.image is not None and not 0 <= options.image < len(task.data):
        raise InputError(f"--image is {options.image}; allowed: 0..{len(task.data) - 1}")
    chosen = [neuron(task.network, text) for text in options.neurons]
    print(
        f"{options.net}: {len(task.network.layers)} layers, network {task.network.digest()[:16]}; {len(task.data)} "
        f"test images of {' '.join(options.data)}, seed {options.seed}, T = {task.job.steps}, "
        f"{'integer engine only' if options.integer_only else f'backend {options.backend}'}",
        flush=True,
    )
    if options.dry_run:
        print("dry run: nothing was run" if options.integer_only else planned(options, task))
        return EXIT_EXACT
    verdict, seconds = (None, 0.0) if options.integer_only else run(options, task)
    content = make(options, task, verdict, seconds, command, options.image)
    outcome = content.outcome
    print("not run in Lava" if outcome is None else f"{outcome.comparison()}\n{outcome}", flush=True)
    if options.json is not None:
        write_json(options.json, content.values())
    write(options.out, content, traces(content.measured.recordings, chosen) if chosen else None)
    print(f"report: {options.out}")
    return EXIT_EXACT if outcome is None else outcome.status


def main(argv: Sequence[str] | None = None) -> int:
    chosen = parser()
    return chosen.run(lambda options: _run(options, chosen.line(options)), argv, FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
