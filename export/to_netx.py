"""Export a trained model to an integer netx file: ``python -m export.to_netx model.pt net.h5``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nqlava.command.parser import Parser, add_data
from nqlava.errors import InputError
from nqlava.info import Info, Value
from train.shipped import NAMES, is_shipped, model_path

if TYPE_CHECKING:
    from export.round.quantize import Precision
    from export.round.rounding import Method


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "export.to_netx",
        "Export a trained model to an integer spiking network in a netx HDF5 file.",
        [
            "export.to_netx model.pt net.h5 --T 4 --data cifar10",
            "export.to_netx --pretrained resnet20 net.h5 --bits 4 --layer-bits layers.1=8",
            "export.to_netx model.pt net.h5 --dry-run",
        ],
    )
    made.add_argument("model", type=Path, nargs="?", help="model file written by train.cifar or train.imagenet")
    made.add_argument("net", type=Path, help="netx file to write")
    made.add_argument("--pretrained", choices=NAMES, help="a model that ships with the project, in place of MODEL")
    made.add_argument("--T", type=int, default=4, dest="steps", help="time steps (default: %(default)s)")
    made.add_argument("--bits", type=int, default=8, help="bits of the weights, 2 to 8 (default: %(default)s)")
    made.add_argument(
        "--layer-bits",
        nargs="+",
        default=[],
        metavar="LAYER=BITS",
        help="other bits for some layers, such as layers.1=8",
    )
    made.add_argument(
        "--granularity",
        choices=["channel", "layer"],
        default="channel",
        help="one weight scale per output channel or per layer (default: %(default)s)",
    )
    made.add_argument(
        "--rounding",
        choices=["nearest", "error"],
        help="round weights to the nearest integers, or to those of the least error of every layer's input current "
        "on the calibration images (default: nearest with 8 bits in every layer, error with fewer)",
    )
    for name, what in (
        ("scale-search", "choose weight scales by their squared error instead of from the largest weight"),
        ("bias-correction", "keep the mean input current of every channel on the calibration images"),
    ):
        made.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, help=f"{what} (default: with --rounding error)"
        )
    add_data(made, "training images, for calibration")
    made.add_argument("--calibration", type=int, default=500, help="calibration images (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="seed for choosing images (default: %(default)s)")
    made.add_argument(
        "--dry-run", action="store_true", help="check options, model and data, say what would be written, write nothing"
    )
    return made


def _layer_bits(entries: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in entries:
        name, _, bits = entry.rpartition("=")
        if not name or not bits.isdecimal():
            raise InputError(f"--layer-bits: {entry!r}; allowed: LAYER=BITS, such as layers.1=8")
        if name in found:
            raise InputError(f"--layer-bits: {name} is given twice; allowed: once")
        found[name] = int(bits)
    return found


def _method(options: argparse.Namespace, precision: "Precision") -> "Method":
    from export.round.rounding import Method

    few = min([precision.bits, *precision.layers.values()]) < 8
    feedback = few if options.rounding is None else options.rounding == "error"
    return Method(
        feedback=feedback,
        scale_search=feedback if options.scale_search is None else options.scale_search,
        bias_correction=feedback if options.bias_correction is None else options.bias_correction,
    )


def _run(options: argparse.Namespace) -> None:
    from export.convert import convert, planned
    from export.describe import describe, describe_plan
    from export.round.quantize import Precision
    from nqlava import netx
    from nqlava.command.files import check_folder, check_output
    from nqlava.netx_layout import require_info
    from train.data.sized import load_sized
    from train.loop.checkpoint import read_model

    Info().steps_or(options.steps)
    check_folder(options.net)
    path = model_path(options.model, options.pretrained)
    check_output(options.net, inputs=[path, *map(Path, options.data)])
    file = read_model(path)
    model = file.network
    _, height, width = model.input_shape
    images = load_sized(options.data, "train", (height, width))
    if not 1 <= options.calibration <= len(images):
        raise InputError(f"--calibration is {options.calibration}; allowed: 1..{len(images)}")
    calibration = images.sample(options.calibration, options.seed)
    if len(file.classes) != len(calibration.classes):
        raise InputError(f"data: {len(calibration.classes)} classes; allowed: {len(file.classes)} as the model")
    if calibration.classes != file.classes:
        raise InputError(
            f"data: classes are {', '.join(calibration.classes)}; allowed: {', '.join(file.classes)} as the model"
        )
    if calibration.shape != model.input_shape:
        raise InputError(f"data: images are {calibration.shape}; allowed: {model.input_shape} as the model")
    precision = Precision(options.bits, _layer_bits(options.layer_bits), options.granularity)
    method = _method(options, precision)
    origin = Info(
        source=path.name if is_shipped(path) else os.path.relpath(path.resolve(), options.net.resolve().parent),
        source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    notes: dict[str, Value] = {"L": model.levels, "architecture": file.architecture}
    require_info(options.net, replace(origin, classes=calibration.classes).entries())  # now, not after the work
    print(
        f"{path}: {file.architecture}, L = {model.levels}; T = {options.steps}, {precision.bits}-bit weights"
        f"{f' (besides {len(precision.layers)} layers)' if precision.layers else ''} per {precision.granularity}, "
        f"rounding {method}; {len(calibration)} calibration images of {' '.join(options.data)}, seed {options.seed}",
        flush=True,
    )
    if options.dry_run:
        print(describe_plan(planned(model, calibration, precision), options.net))
        return
    network, report = convert(
        model, calibration, steps=options.steps, precision=precision, method=method, origin=origin, notes=notes
    )
    netx.write(network, options.net)
    print(describe(report))
    print(f"wrote {options.net} ({options.net.stat().st_size:,} bytes, network {network.digest()[:16]})")


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
