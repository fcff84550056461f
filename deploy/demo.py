"""The three commands in a row on the images shipped with the project: ``python -m deploy.demo``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nqlava.command.orphans import die_with_parent
from nqlava.command.parser import Parser
from nqlava.errors import FileError, InputError

PRETRAINED = Path("train/pretrained/vgg_small.pt")
_END_SECONDS = 4  # for a command to end by itself


def commands(out: Path, samples: int) -> list[list[str]]:
    """Command lines (without the interpreter) of fine-tuning, export and deployment.

    A fine-tuning that was interrupted, whose checkpoint is newer than the model file, is continued.
    """
    saved, trained = out / "vgg_small.pt.checkpoint", out / "vgg_small.pt"
    finished = trained.exists() and (not saved.exists() or trained.stat().st_mtime >= saved.stat().st_mtime)
    resume = " --resume" if saved.exists() and not finished else ""
    model, net, result = (shlex.quote(str(out / name)) for name in ("vgg_small.pt", "vgg_small.h5", "result.json"))
    lines = [
        f"train.cifar --init {PRETRAINED} --epochs 3 --batch 100 --learning-rate 0.002 --out {model}{resume}",
        f"export.to_netx {model} {net} --T 4",
        f"deploy.run_lava {net} --T 4 --samples {samples} --model {model} --json {result}",
    ]
    return [shlex.split(line) for line in lines]


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "deploy.demo",
        "Fine-tune, export and run in Lava a shipped network, on the images shipped with the project.",
        ["deploy.demo", "deploy.demo --samples 100 --out runs/demo"],
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="FOLDER",
        help="folder for the files (default: %(default)s)",
    )
    made.add_argument("--samples", type=int, default=1000, help="test images in Lava (default: %(default)s)")
    return made


def _run(options: argparse.Namespace) -> int:
    if not PRETRAINED.is_file():
        raise InputError(f"{PRETRAINED}: no such file; run it in the project's folder")
    if not 1 <= options.samples <= 1000:
        raise InputError(f"--samples is {options.samples}; allowed: 1..1000")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{options.out}: cannot be made: {error.strerror or error}") from None
    began = time.monotonic()
    for command in commands(options.out, options.samples):
        print("\n$ python -m " + shlex.join(command), flush=True)
        status = _run_command(command)
        if status:
            print(f"deploy.demo: python -m {command[0]} ended with status {status}", file=sys.stderr)
            return status
    result = json.loads((options.out / "result.json").read_text(encoding="utf-8"))
    print(f"\nAccuracy on {result['samples']} test images, T = {result['T']}:")
    rows = (
        ("ANN (noise-free NQ)", result["float"]["accuracy_ann"]),
        ("float SNN", result["float"]["accuracy_float_snn"]),
        ("integer SNN", result["accuracy_integer"][-1]),
        ("Lava", result["accuracy_lava"][-1]),
    )
    for name, value in rows:
        print(f"  {name:<20} {value:6.2f} %")
    mismatches = sum(result["mismatches"].values())
    print(f"  Lava against the integer SNN: {mismatches} mismatching spikes and read-outs")
    print(f"{time.monotonic() - began:.0f} s in all; the files are in {options.out}/")
    return 0


def _run_command(command: list[str]) -> int:
    """Its status; it does not outlive this process, and what ends this one early ends it too, tidily."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM)
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
