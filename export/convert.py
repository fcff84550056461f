"""Converts a trained network to an integer network and compares both on calibration images, for ``export.to_netx``."""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from export.fold.check import check
from export.fold.folded import ExportError, FoldedNetwork
from export.fold.lower import lower
from export.fold.prepare import Maximum, prepare
from export.names import renamed
from export.report import MembraneRange, Report
from export.round.calibration import output_errors
from export.round.quantize import Precision, quantize
from export.round.rounding import NEAREST, CalibratedRounding, Method
from export.thresholds import set_thresholds
from nqlava import netx
from nqlava.bounds import worst_case
from nqlava.engine.integer import Engine
from nqlava.info import Info, Value
from nqlava.network import IntegerNetwork
from train.data.image_set import ImageSet
from train.loop.calibrate import evaluate
from train.model.models import Network

_CHECK_IMAGES = 2  # on which the lowering is checked
_GROWN = 1.5  # times the weights of its modules that a layer has when it is told
_SHOWN = 5
_ERROR_IMAGES = 128  # calibration images on which the error of the layers' currents is measured


def convert(
    model: nn.Module,
    calibration: ImageSet,
    *,
    steps: int,
    precision: Precision | None = None,
    method: Method | None = None,
    origin: Info | None = None,
    notes: Mapping[str, Value] | None = None,
    maximum: Maximum = "rates",
) -> tuple[IntegerNetwork, Report]:
    """Lower a trained network to integers and compare it with the float SNN on calibration images.

    Args:
        model: any module that ``export.fold.lower`` can trace, in evaluation mode; it takes uint8 images (N, C, H, W).
            ReLUs get the thresholds of ``export.thresholds``.
        calibration: images on the CPU.
        steps: T, stored in the file as the default of deployment; bounds and accuracies are for it.
        precision: bits of the weights and what shares a scale; 8 bits and one scale per channel without it.
        method: how weights are rounded, on the calibration images where it needs some; to the nearest without it.
        origin: the model file, as far as it is one. notes: more entries for the network's info.
        maximum: what becomes of max pooling (export.fold.prepare).

    Raises:
        ExportError, NetworkError: the model cannot be expressed.
    """
    precision, method = precision or Precision(), method or NEAREST
    images = calibration.images.permute(0, 3, 1, 2).contiguous()
    model, folded = _lowered(model, images, maximum)
    classes = len(folded.layers[-1].bias)
    if classes != len(calibration.classes):
        raise ExportError(
            f"model: has {classes} outputs; allowed: {len(calibration.classes)}, the classes of the images"
        )
    rounding = CalibratedRounding(folded, images, steps, method) if method.is_calibrated else None
    network, scales = quantize(folded, precision=precision, rounding=rounding)
    named = renamed(network)
    engine = Engine(network)
    predicted = torch.from_numpy(engine.classify(images, steps)[:, -1])
    floating = evaluate(model, calibration, steps)
    integer = float((predicted == calibration.labels).double().mean() * 100)
    ranges = tuple(
        MembraneRange(layer.name, bound, low, high)
        for layer, bound, (low, high) in zip(
            named.layers, worst_case(network, steps), engine.membrane_ranges(images, steps), strict=True
        )
    )
    errors = output_errors(folded, network, scales, images[:_ERROR_IMAGES], steps)
    rows = tuple(
        (
            layer.name,
            "x".join(map(str, shape)),
            f"{sum(c.weight.size for c in layer.connections):,}",
            str(max(c.bits for c in layer.connections)),
            f"{scale.min():.3g}..{scale.max():.3g}",
            "read-out" if layer.threshold is None else f"{layer.threshold.min()}..{layer.threshold.max()}",
            f"{found.worst:,}",
            f"{found.low:,}..{found.high:,}",
            f"{100 * error:.2g} %",
        )
        for layer, shape, scale, found, error in zip(named.layers, network.shapes, scales, ranges, errors, strict=True)
    )
    stored: dict[str, Value] = {
        **replace(origin or Info(), steps=steps, classes=calibration.classes).entries(),
        "mean": json.dumps(folded.mean.tolist()),
        "std": json.dumps(folded.std.tolist()),
        "granularity": precision.granularity,
        "weight_bits": precision.bits,
        "layer_bits": json.dumps(dict(precision.layers)),
        "rounding": str(method),
        "calibration_images": len(calibration),
        "calibration_sha256": calibration.digest(),
        **{f"version_{package}": version(package) for package in ("torch", "numpy", "h5py")},
        **(notes or {}),
    }
    report = Report(rows, floating.ann, floating.snn[-1], integer, ranges, str(method), remarks(folded))
    return IntegerNetwork(named.input_shape, named.layers, stored), report


def _lowered(model: nn.Module, images: Tensor, maximum: Maximum) -> tuple[nn.Module, FoldedNetwork]:
    """The network as it can be calibrated and run as an SNN, and what it becomes; ReLUs get thresholds from images."""
    shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]
    folded = lower(model, shape)
    prepared = model if isinstance(model, Network) else prepare(model, shape, maximum=maximum)
    if not folded.is_prepared or any(layer.is_maximum for layer in folded.layers):
        set_thresholds(prepared, images)
        model, folded = prepared, lower(prepared, shape)
    check(model, folded, images[:_CHECK_IMAGES])
    return prepared, folded


def remarks(folded: FoldedNetwork) -> tuple[str, ...]:
    """What was left out, and layers that have more weights than the modules that were multiplied out to them."""
    found = [f"{folded.softmax} at the end is left out: the largest score stays the largest"] if folded.softmax else []
    grown = [
        (layer.name, sum(c.weight.size for c in layer.connections if not c.is_identity), layer.parameters)
        for layer in folded.layers
        if not layer.is_maximum
    ]
    more = [(name, made, of) for name, made, of in grown if of and made > _GROWN * of]
    if more:
        shown = ", ".join(f"{name} {made:,} of {of:,}" for name, made, of in more[:_SHOWN])
        found.append(
            f"without an activation between them, modules are multiplied out; layers with more weights than their "
            f"modules: {shown}{f' and {len(more) - _SHOWN} more' if len(more) > _SHOWN else ''}"
        )
    if maxima := sum(layer.is_maximum for layer in folded.layers):
        found.append(f"{maxima} layers take the maximum of spikes step by step, which exceeds that of their rates")
    return tuple(found)


def plan(model: nn.Module, calibration: ImageSet, precision: Precision, out: Path) -> str:
    """What would be written, as text; weights are not calibrated for it. Errors as of ``convert``."""
    _, folded = _lowered(model, calibration.images.permute(0, 3, 1, 2).contiguous(), "rates")
    network = renamed(quantize(folded, precision=precision)[0])
    with tempfile.TemporaryDirectory() as folder:
        netx.write(network, Path(folder) / "net.h5")  # so that what cannot be written is found now
    weights = sum(connection.weight.size for layer in network.layers for connection in layer.connections)
    neurons = sum(math.prod(shape) for shape in network.shapes)
    return (
        f"network: {len(network.layers)} layers, {neurons:,} neurons, {weights:,} weights\n"
        f"writes: {out}, netx version {netx.version_of(network)}{', replacing it' if out.exists() else ''}\n"
        "dry run: nothing was written"
    )
