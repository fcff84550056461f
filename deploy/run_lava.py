"""Run a netx file in Lava and check it against the reference: ``python -m deploy.run_lava net.h5 --T 4``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.compare.settings import EXIT_EXACT, EXIT_MISMATCH, EXIT_STATUS, FAILURES, Settings, add_options
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
    settings = Settings.of(options)
    from deploy.compare.dry_run import plan
    from deploy.compare.float_accuracy import measure
    from deploy.compare.run import check_outputs, execute, prepare
    from deploy.compare.table import entries, heading, outcome, table
    from deploy.files import write_json

    if options.report is not None:
        from deploy.report.needs import require

        require("--report", settings.target)
    check_outputs(settings, options.config, options.json, options.report)
    run = prepare(settings)
    print(heading(run), flush=True)
    if options.dry_run:
        print(plan(run))
        return EXIT_EXACT
    verdict = execute(run)
    print(table(verdict))
    content, failure = None, None
    if options.report is not None:
        from deploy.report.write import make, write

        try:
            content = make(run, verdict, command)
        except Exception as error:  # after the verdict, which took the time
            failure = error
    measured = None if content is None else content.verdict
    verdict = measured or measure(run, verdict)
    print(outcome(verdict))
    if options.json is not None:
        write_json(options.json, entries(verdict, run.settings))
    if failure is not None:
        raise failure
    if content is not None:
        write(options.report, content)
        print(f"report: {options.report}")
    return EXIT_EXACT if verdict.passed else EXIT_MISMATCH


def main(argv: Sequence[str] | None = None) -> int:
    chosen = parser()
    return chosen.run(lambda options: _run(options, chosen.line(options)), argv, FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
