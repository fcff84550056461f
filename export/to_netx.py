"""Export a trained model to an integer netx file: ``python -m export.to_netx model.pt net.h5``."""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from deploy.integer import IntegerEngine
from export import netx
from export.bounds import worst_case
from export.lower import lower
from export.network import MEMBRANE_MAX, IntegerNetwork
from export.quantize import Precision, quantize
from train.calibrate import evaluate
from train.checkpoint import check_writable, load_model
from train.data import ImageSet, load


@dataclass(frozen=True)
class Report:
    """What export.to_netx prints.

    Attributes:
        rows: per layer its name, output shape, weights, range of Δ and of θ, worst-case |u| and calibrated range of u.
        ann, float_snn, integer_snn: accuracy in percent on the calibration images, the SNNs after T steps.
        saturating: names of the layers whose worst case exceeds 24 bits.
    """

    rows: tuple[tuple[str, ...], ...]
    ann: float
    float_snn: float
    integer_snn: float
    saturating: tuple[str, ...]


def convert(
    model: nn.Module,
    calibration: ImageSet,
    *,
    steps: int,
    precision: Precision | None = None,
    info: dict[str, str | int | float] | None = None,
) -> tuple[IntegerNetwork, Report]:
    """Lower a trained network to integers and compare it with the float SNN on calibration images.

    Args:
        model: any module that ``export.lower`` can trace, in evaluation mode; it takes uint8 images (N, C, H, W).
        calibration: images on the CPU.
        steps: T, stored in the file as the default of deployment; bounds and accuracies are for it.
        precision: bits of the weights and what shares a scale; 8 bits and one scale per channel without it.
        info: more entries for the network's info.

    Raises:
        ExportError, NetworkError: the model cannot be expressed.
    """
    precision = precision or Precision()
    shape = (calibration.images.shape[3], *calibration.images.shape[1:3])
    folded = lower(model, shape)
    network, scales = quantize(folded, precision=precision)
    images = calibration.images.permute(0, 3, 1, 2).contiguous()
    engine = IntegerEngine(network)
    predicted = torch.from_numpy(engine.classify(images, steps)[:, -1])
    ranges = engine.membrane_ranges(images, steps)
    floating = evaluate(model, calibration, steps)
    integer = float((predicted == calibration.labels).double().mean() * 100)
    bounds = worst_case(network, steps)
    rows = tuple(
        (
            layer.name,
            "x".join(map(str, shape)),
            f"{sum(c.weight.size for c in layer.connections):,}",
            str(max(c.bits for c in layer.connections)),
            f"{scale.min():.3g}..{scale.max():.3g}",
            "read-out" if layer.threshold is None else f"{layer.threshold.min()}..{layer.threshold.max()}",
            f"{bound:,}",
            f"{low:,}..{high:,}",
        )
        for layer, shape, scale, bound, (low, high) in zip(
            network.layers, network.shapes, scales, bounds, ranges, strict=True
        )
    )
    stored: dict[str, str | int | float] = {
        "T": steps,
        "classes": json.dumps(calibration.classes),
        "mean": json.dumps(folded.mean.tolist()),
        "std": json.dumps(folded.std.tolist()),
        "granularity": precision.granularity,
        "calibration_images": len(calibration),
        "calibration_ann_accuracy": floating.ann,
        "calibration_float_snn_accuracy": floating.snn[-1],
        "calibration_integer_snn_accuracy": integer,
        **{f"version_{package}": version(package) for package in ("torch", "numpy", "h5py")},
        **(info or {}),
    }
    saturating = tuple(layer.name for layer, bound in zip(network.layers, bounds, strict=True) if bound > MEMBRANE_MAX)
    report = Report(rows, floating.ann, floating.snn[-1], integer, saturating)
    return IntegerNetwork(network.input_shape, network.layers, stored), report


def _print(report: Report, steps: int, count: int) -> None:
    header = ("layer", "output", "weights", "bits", "scale Δ", "threshold θ", f"worst |u|, T={steps}", "calibrated u")
    widths = [max(len(row[i]) for row in (header, *report.rows)) for i in range(len(header))]
    for row in (header, *report.rows):
        cells = (text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells).rstrip())
    if report.saturating:
        print(f"24 bits may saturate for some image in: {', '.join(report.saturating)}")
    else:
        print(f"no layer can saturate at 24 bits (limit {MEMBRANE_MAX:,}) within {steps} steps")
    print(
        f"{count} calibration images: ANN {report.ann:.2f} %, float SNN T={steps} {report.float_snn:.2f} %, "
        f"integer SNN T={steps} {report.integer_snn:.2f} %"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.to_netx",
        description="Export a trained model to an integer spiking network in a netx HDF5 file.",
        epilog="example: python -m export.to_netx runs/vgg_small.pt runs/vgg_small.h5 --T 4",
    )
    parser.add_argument("model", type=Path, help="model file written by train.cifar")
    parser.add_argument("net", type=Path, help="netx file to write")
    parser.add_argument("--T", type=int, default=4, dest="steps", help="time steps (default: %(default)s)")
    parser.add_argument("--bits", type=int, default=8, help="of the weights, 2 to 8 (default: %(default)s)")
    parser.add_argument(
        "--layer-bits",
        nargs="+",
        default=[],
        metavar="LAYER=BITS",
        help="other bits for some layers, such as layers.1=8",
    )
    parser.add_argument(
        "--granularity",
        choices=["channel", "layer"],
        default="channel",
        help="one weight scale per output channel or per layer (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=["sample"],
        metavar="SOURCE",
        help="where the calibration images come from (training split): 'sample', 'cifar10', folders or zip archives "
        "(default: sample)",
    )
    parser.add_argument("--calibration", type=int, default=500, help="calibration images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")
    return parser


def _layer_bits(entries: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in entries:
        name, _, bits = entry.rpartition("=")
        if not name or not bits.isdecimal():
            raise ValueError(f"--layer-bits: {entry!r}; allowed: LAYER=BITS, such as layers.1=8")
        found[name] = int(bits)
    return found


def _run(options: argparse.Namespace) -> None:
    if not 1 <= options.steps <= 4096:
        raise ValueError(f"--T is {options.steps}; allowed: 1..4096")
    if not options.net.absolute().parent.is_dir():
        raise ValueError(f"{options.net.parent}: no such folder")
    check_writable(options.net, inputs=[options.model])
    model, content = load_model(options.model)
    images = load(options.data, "train")
    if not 1 <= options.calibration <= len(images):
        raise ValueError(f"--calibration is {options.calibration}; allowed: 1..{len(images)}")
    calibration = images.sample(options.calibration, options.seed)
    if len(content["classes"]) != len(calibration.classes):
        raise ValueError(f"data: {len(calibration.classes)} classes; allowed: {len(content['classes'])} as the model")
    if list(calibration.classes) != content["classes"]:
        raise ValueError(
            f"data: classes are {', '.join(calibration.classes)}; allowed: {', '.join(content['classes'])} as the model"
        )
    shape = (calibration.images.shape[3], *calibration.images.shape[1:3])
    if shape != model.input_shape:
        raise ValueError(f"data: images are {shape}; allowed: {model.input_shape} as the model")
    precision = Precision(options.bits, _layer_bits(options.layer_bits), options.granularity)
    info = {
        "L": content["levels"],
        "architecture": content["architecture"],
        "source_sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
    }
    network, report = convert(model, calibration, steps=options.steps, precision=precision, info=info)
    netx.write(network, options.net)
    _print(report, options.steps, len(calibration))
    print(f"wrote {options.net} ({options.net.stat().st_size:,} bytes, network {network.digest()[:16]})")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except (ValueError, OSError) as error:
        print(f"export.to_netx: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nexport.to_netx: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
