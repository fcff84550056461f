"""Draw the figures of the NQ and RMP-SNN papers: ``python -m train.figures MODEL... --data FOLDER --out FOLDER``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path

from nqlava.command.files import check_output
from nqlava.command.parser import Parser, add_data
from nqlava.errors import InputError
from train.loop.recipe import check

FIGURES = ("residuals", "activation", "noise_factor", "training", "rmp", "activity")


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "train.figures",
        "Draw the figures of the NQ and RMP-SNN papers from trained models, with their numbers as CSV.",
        [
            "train.figures nq.pt qcfs.pt --data cifar10 --out figures/",
            "train.figures nq.pt --only residuals activity --T 8",
        ],
    )
    made.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="model file written by train.cifar")
    add_data(made, "images")
    made.add_argument(
        "--out", type=Path, default=Path("figures"), metavar="FOLDER", help="folder (default: %(default)s)"
    )
    made.add_argument(
        "--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE", help=", ".join(FIGURES)
    )
    made.add_argument(
        "--T",
        type=int,
        default=4,
        dest="steps",
        help="steps for residuals, activation and activity (default: %(default)s)",
    )
    made.add_argument("--reset-steps", type=int, default=64, help="largest T of rmp (default: %(default)s)")
    made.add_argument("--layer", type=int, help="activation drawn by activation, from 1 (default: the middle one)")
    made.add_argument("--samples", type=int, default=1000, help="images, drawn by the seed (default: %(default)s)")
    made.add_argument("--split", choices=["test", "train"], default="test", help="default: %(default)s")
    made.add_argument("--seed", type=int, default=0, help="decides which images (default: %(default)s)")
    return made


def _run(options: argparse.Namespace) -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("matplotlib is missing; install it with: pip install -e '.[figures]'") from None
    from train.data.images import load
    from train.drawings import Settings, draw, subjects, write

    check("induction_steps", options.steps, "--T")
    check("induction_steps", options.reset_steps, "--reset-steps")
    for name in options.only:
        for suffix in ("csv", "png"):
            check_output(options.out / f"{name}.{suffix}")
    data = load(options.data, options.split).sample(options.samples, options.seed)
    images = f"{len(data):,} {'training' if options.split == 'train' else 'test'} images"
    settings = Settings(data, images, options.steps, options.reset_steps, options.layer)
    networks = subjects(options.models, settings)
    print(
        f"{', '.join(map(str, options.models))}: {images} of {' '.join(options.data)}, T = {options.steps}, "
        f"seed {options.seed}; {', '.join(options.only)}",
        flush=True,
    )
    for name in dict.fromkeys(options.only):
        found = draw(name, networks, settings)
        if isinstance(found, str):
            print(f"{name}: skipped, {found}", flush=True)
            continue
        write(found, options.out, name)
        print(f"{options.out / name}.png, .csv", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
