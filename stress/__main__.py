"""python -m stress: one kind of stress run, with a summary table."""

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path

from benchmarks import machine, markdown
from nqlava.command.files import replacing
from nqlava.command.parser import Parser
from nqlava.errors import FileError, InputError
from stress import agreement, kills, reading, soak
from stress.sandbox import enter

Run = Callable[[float, int, Path], tuple[Mapping[str, object], list[str]]]
"""Seconds, seed and folder of a run; its figures, and a line for each failure."""
KINDS: dict[str, Run] = {"agreement": agreement.run, "damage": reading.run, "kills": kills.run, "soak": soak.run}


def main(args: Sequence[str] | None = None) -> int:
    """Command line, see --help. Returns 0 if all held, 1 if something failed, 2 for bad input."""
    parser = Parser(
        "stress",
        "Compare random networks in every engine, read damaged files, interrupt commands, or deploy for an hour.",
        ["stress agreement --minutes 10", "stress damage --seed 1 --out runs/damage"],
        notes="FOLDER gets KIND.md, the summary that is printed too, and a folder KIND with files of what failed.",
    )
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing new begins (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/stress"), metavar="FOLDER", help="default: runs/stress")
    return parser.run(_run, args)


def _run(options: Namespace) -> int:
    if not 0 < options.minutes < inf:
        raise InputError(f"--minutes {options.minutes}; allowed: above 0")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}; allowed: 0 and above")
    folder = options.out / options.kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {error.strerror or error}") from None
    figures, failures = KINDS[options.kind](60 * options.minutes, options.seed, folder)
    text = summary(options, figures, failures)
    with replacing(options.out / f"{options.kind}.md") as stream:
        stream.write(text.encode())
    print(text, end="")
    return 1 if failures else 0


def summary(options: Namespace, figures: Mapping[str, object], failures: Sequence[str]) -> str:
    """Figures and failures in Markdown."""
    what = f"{options.kind}, {options.minutes:g} minutes, seed {options.seed}"
    rows = [(key, f"{value:,}" if isinstance(value, int) else str(value)) for key, value in figures.items()]
    text = f"{what}: {machine.line(machine.describe(), 'torch')}\n\n" + markdown.table(("figure", "value"), rows)
    return text + "".join(f"\n- FAILED: {line}" for line in failures) + "\n" * bool(failures)


if __name__ == "__main__":
    enter(["stress", *sys.argv[1:]])
    sys.exit(main())
