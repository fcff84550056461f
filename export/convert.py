"""Converts a trained network to an integer network, and compares both on images."""

import json
import math
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from export.calibrate.calibrate import Loss, calibrate
from export.calibrate.forward import quantized_scores
from export.fold.activations import CappedReLU
from export.fold.check import check
from export.fold.folded import ExportError, FoldedNetwork
from export.fold.lower import lower
from export.fold.module import as_folded, as_module
from export.fold.prepare import Maximum, activations, prepare
from export.images import Images, image_set
from export.names import renamed, stored_names
from export.outputs import with_outputs
from export.report import Conversion, LayerReport, Report
from export.round.calibration import output_errors
from export.round.quantize import Precision, quantize
from export.round.rounding import NEAREST, CalibratedRounding, Method
from nqlava import netx
from nqlava.bounds import worst_case
from nqlava.engine.integer import Engine
from nqlava.info import Info, Value
from nqlava.network import IntegerNetwork
from train.data.image_set import ImageSet, at_once
from train.loop.calibrate import accuracy, evaluate
from train.model.activation import NQ
from train.model.lowered import Lowered
from train.model.models import Network, Normalize

_CHECK_IMAGES = 2  # on which the lowering is checked
_GROWN = 1.5  # times the weights of its modules that a layer has when the report names it
_TIMES = 5  # T's of which accuracies are reported


@dataclass(frozen=True)
class Trainable:
    """A converted network in a form that can be trained further.

    Attributes:
        module: NQ activations with L = T levels, θ = 1 and calibrated v(0); training changes it in place.
        original: the network that it was. has_relu: whether ReLUs were replaced.
        losses: per layer, on the calibration images; scores: of the SNN there, (N, K); none of both after training.
        unused, softmax: what was left out, as in export.report.
    """

    module: Lowered
    original: nn.Module
    has_relu: bool
    losses: tuple[Loss, ...] = ()
    scores: Tensor | None = None
    unused: tuple[str, ...] = ()
    softmax: str = ""
    grown: tuple[tuple[str, int, int], ...] = ()


def trainable(
    model: nn.Module,
    images: Images,
    *,
    steps: int = 4,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Sequence[int] | None = None,
) -> Trainable:
    """A network as ``convert`` calibrates it for T steps, for a training of your own; ``convert`` takes the result.

    Args, errors: as of ``convert``.
    """
    given = image_set(images, mean, std)
    images = given.images.images.permute(0, 3, 1, 2).contiguous()
    model = with_outputs(normalised(model, given.mean, given.std), outputs, given.images.shape)
    prepared, folded, caps = lowered(model, images, "rates")
    return _trainable(prepared, folded, caps, images, steps)


def _trainable(
    original: nn.Module, folded: FoldedNetwork, caps: Mapping[str, float], images: Tensor, steps: int
) -> Trainable:
    left_out = (folded.unused, folded.softmax, _grown(folded))
    if not caps:
        return Trainable(as_module(folded, steps), original, False, (), None, *left_out)
    made = calibrate(folded, caps, images, steps)
    return Trainable(as_module(made.folded, steps), original, True, made.losses, made.snn[-1], *left_out)


def convert(
    model: nn.Module | Trainable,
    images: Images,
    *,
    steps: int = 4,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    precision: Precision | None = None,
    method: Method | None = None,
    origin: Info | None = None,
    notes: Mapping[str, Value] | None = None,
    maximum: Maximum = "rates",
    others: ImageSet | None = None,
    outputs: Sequence[int] | None = None,
) -> tuple[IntegerNetwork, Report]:
    """A trained classifier as an integer spiking network, and how much of its accuracy is left.

    The network is lowered to integers. Layers that replace ReLUs are calibrated without training
    (``export.calibrate.calibrate``); NQ keeps its thresholds.

    Args:
        model: any module that ``export.fold.lower`` can trace, in evaluation mode; or what ``trainable`` made of it.
        images: for calibration, some hundred; see ``export.images.image_set``.
        steps: T, stored in the file as the default of deployment; calibration, bounds and accuracies are for it.
        mean, std: per channel, where the model takes normalised images, (x/255 − mean) / std; those of a Normalize in
            the transform of a DataLoader's data set count too. Without them it takes uint8 images (N, C, H, W).
        precision: bits of the weights and what shares a scale; 8 bits and one scale per channel without it.
        method: how weights are rounded, on the calibration images where it needs some; to the nearest without it.
        origin: the model file, as far as it is one. notes: more entries for the network's info.
        maximum: what becomes of max pooling (export.fold.prepare).
        others: images on which the loss of a ReLU network is told, in place of those for calibration.
        outputs: numbers of the outputs that are the classes of the images, in their order; all without it.

    Raises:
        ExportError, NetworkError: the model cannot be expressed.
    """
    precision, method = precision or Precision(), method or NEAREST
    given = image_set(images, mean, std)
    calibration = given.images
    images = calibration.images.permute(0, 3, 1, 2).contiguous()
    made = None
    if isinstance(model, Trainable):
        made, prepared = model, model.original
        _, folded, _ = lowered(model.module, images, maximum)
    else:
        model = with_outputs(normalised(model, given.mean, given.std), outputs, calibration.shape)
        prepared, folded, caps = lowered(model, images, maximum)
        if caps:
            made = _trainable(prepared, folded, caps, images, steps)
            folded = as_folded(made.module)
    classes = len(folded.layers[-1].bias)
    if not given.classes:
        calibration = _labelled(calibration, prepared, classes, given.labels)
    if classes != (wanted := len(calibration.classes)):
        some = f", or outputs (--outputs) to name {wanted} of them" if classes > wanted else ""
        raise ExportError(f"model: has {classes} outputs; allowed: {wanted}, the classes of the images{some}")
    rounding = CalibratedRounding(folded, images, steps, method) if method.is_calibrated else None
    network, scales = quantize(folded, precision=precision, rounding=rounding)
    named = renamed(network)
    engine = Engine(network)
    predicted = torch.from_numpy(engine.classify(images, steps)[:, -1])
    conversion = (
        None if made is None or not made.has_relu else _conversion(made, folded, engine, calibration, others, steps)
    )
    if made is not None and made.scores is not None and len(made.scores) == len(calibration):
        snn = _share(made.scores, calibration)
    else:
        snn = evaluate(prepared if made is None else made.module, calibration, steps).snn[-1]
    ann = accuracy(prepared, calibration)
    integer = float((predicted == calibration.labels).double().mean() * 100)
    layers = tuple(
        LayerReport(
            layer.name,
            shape,
            weights=sum(c.weight.size for c in layer.connections),
            bits=max(c.bits for c in layer.connections),
            scale=(float(scale.min()), float(scale.max())),
            threshold=None if layer.threshold is None else (int(layer.threshold.min()), int(layer.threshold.max())),
            worst=worst,
            low=low,
            high=high,
            error=error,
        )
        for layer, shape, scale, worst, (low, high), error in zip(
            named.layers,
            network.shapes,
            scales,
            worst_case(network, steps),
            engine.membrane_ranges(images, steps),
            output_errors(folded, network, scales, images[: at_once(calibration.shape)], steps),
            strict=True,
        )
    )
    stored: dict[str, Value] = {
        **replace(
            origin or Info(),
            steps=steps,
            classes=calibration.classes if given.classes else None,
            original_accuracy=None if conversion is None or not given.labels else conversion.relu,
        ).entries(),
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
    report = Report(
        layers,
        steps,
        len(calibration),
        ann,
        snn,
        integer,
        str(method),
        unused=folded.unused if made is None else made.unused,
        softmax=folded.softmax if made is None else made.softmax,
        grown=_grown(folded) if made is None else made.grown,
        maxima=sum(layer.is_maximum for layer in folded.layers),
        conversion=conversion,
    )
    return IntegerNetwork(named.input_shape, named.layers, stored), report


def normalised(model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> nn.Module:
    """The model behind Normalize; itself where both are None."""
    if mean is None or std is None:
        return model
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=model)).eval()


def lowered(model: nn.Module, images: Tensor, maximum: Maximum) -> tuple[nn.Module, FoldedNetwork, dict[str, float]]:
    """The network as it can be run as an SNN, what it becomes, and the cap of every layer that replaces a ReLU."""
    shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]
    if isinstance(model, Lowered):
        folded = as_folded(model)
        check(model, folded, images[:_CHECK_IMAGES])
        return model, folded, {}
    folded = lower(model, shape)
    prepared = model if isinstance(model, Network) else prepare(model, shape, maximum=maximum)
    caps: dict[str, float] = {}
    if not folded.is_prepared or any(layer.is_maximum for layer in folded.layers):
        folded = replace(lower(prepared, shape), unused=folded.unused)
        for neuron, call in zip(activations(prepared), folded.calls, strict=True):
            if not isinstance(neuron, NQ):
                cap = neuron.cap if isinstance(neuron, CappedReLU) else math.inf
                caps.update((name, cap) for name, _ in call.layers)
    check(prepared, folded, images[:_CHECK_IMAGES])
    return prepared, folded, caps


@torch.no_grad()
def _labelled(data: ImageSet, model: nn.Module, classes: int, labels: bool) -> ImageSet:
    """Images with numbers as the names of their classes, and where they have no labels, those that the model gives."""
    found = data.labels
    if not labels:
        found = torch.cat([model(images).argmax(1) for images, _ in data.batches(at_once(data.shape))])
    return ImageSet(data.images, found, tuple(str(number) for number in range(classes)))


def _share(scores: Tensor, data: ImageSet) -> float:
    """Accuracy in percent of scores (N, K)."""
    return float((scores.argmax(1) == data.labels).double().mean() * 100)


@torch.no_grad()
def _conversion(
    made: Trainable, folded: FoldedNetwork, engine: Engine, calibration: ImageSet, others: ImageSet | None, steps: int
) -> Conversion:
    """What a ReLU network loses on its way to the integer SNN, on other images than those for calibration."""
    data = calibration if others is None else others
    kind = "calibration images" if others is None else "other images"
    relu = torch.cat([made.original(images) for images, _ in data.batches(at_once(data.shape))])
    quantized = quantized_scores(folded, data.images.permute(0, 3, 1, 2), steps)
    times = [t for t in (2**k for k in range(13)) if t <= 2 * steps]
    times = sorted({*times[-_TIMES:], steps})
    classes = torch.from_numpy(engine.classify(data.pixels.copy(), times[-1]))
    accuracies = {t: float((classes[:, t - 1] == data.labels).double().mean() * 100) for t in times}
    names = stored_names(layer.name for layer in folded.layers)
    losses = tuple(replace(loss, name=names[loss.name]) for loss in made.losses)
    return Conversion(len(data), kind, _share(relu, data), _share(quantized, data), accuracies, losses)


def _grown(folded: FoldedNetwork) -> tuple[tuple[str, int, int], ...]:
    """Name, weights, and weights of the modules, of layers that have many more weights than their modules."""
    found = [
        (layer.name, sum(c.weight.size for c in layer.connections if not c.is_identity), layer.parameters)
        for layer in folded.layers
        if not layer.is_maximum
    ]
    return tuple((name, made, of) for name, made, of in found if of and made > _GROWN * of)


def planned(model: nn.Module, calibration: ImageSet, precision: Precision) -> IntegerNetwork:
    """The network that ``convert`` would make, but for the calibration of its weights; errors as of ``convert``."""
    _, folded, _ = lowered(model, calibration.images.permute(0, 3, 1, 2).contiguous(), "rates")
    network = renamed(quantize(folded, precision=precision)[0])
    with tempfile.TemporaryDirectory() as folder:
        netx.write(network, Path(folder) / "net.h5")  # so that what cannot be written is found now
    return network
