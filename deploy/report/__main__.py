"""A page of HTML about a netx file and its run in Lava: ``python -m deploy.report net.h5 --out report.html``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.compare.settings import EXIT_EXACT, EXIT_MISMATCH, EXIT_STATUS, FAILURES, Settings, add_options
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
    settings = Settings.of(options)
    from deploy.report.needs import require

    require("deploy.report", settings.target)
    from deploy.compare.dry_run import plan
    from deploy.compare.run import check_outputs, execute, prepare
    from deploy.compare.table import comparison
    from deploy.files import write_json
    from deploy.report.write import make, neuron, traces, write

    check_outputs(settings, options.config, options.out, options.json)
    if options.integer_only and (settings.backend != "cpu" or settings.workers != 1 or settings.scheduler is not None):
        raise InputError("--integer-only is given; allowed: without --backend, --workers and --scheduler")
    run = prepare(settings)
    if options.image is not None and not 0 <= options.image < len(run.data):
        raise InputError(f"--image is {options.image}; allowed: 0..{len(run.data) - 1}")
    chosen = [neuron(run.network, text) for text in options.neurons]
    print(
        f"{settings.net}: {len(run.network.layers)} layers, network {run.settings.digest[:16]}; {len(run.data)} "
        f"test images of {' '.join(settings.data)}, seed {settings.seed}, T = {run.settings.T}, "
        f"{'integer engine only' if options.integer_only else f'backend {settings.backend}'}",
        flush=True,
    )
    if options.dry_run:
        print("dry run: nothing was run" if options.integer_only else plan(run))
        return EXIT_EXACT
    verdict = None if options.integer_only else execute(run)
    if verdict is not None:
        print(verdict, flush=True)  # before the page is made, which may fail
    content = make(run, verdict, command, options.image)
    verdict = content.verdict
    print("not run in Lava" if verdict is None else f"{comparison(verdict)}\n{verdict}", flush=True)
    if options.json is not None:
        write_json(options.json, content.values())
    write(options.out, content, traces(content.measured.recordings, chosen) if chosen else None)
    print(f"report: {options.out}")
    return EXIT_EXACT if verdict is None or verdict.passed else EXIT_MISMATCH


def main(argv: Sequence[str] | None = None) -> int:
    chosen = parser()
    return chosen.run(lambda options: _run(options, chosen.line(options)), argv, FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
