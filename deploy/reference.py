"""The accuracy of the float SNN, to hold the deployed accuracy against."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from export.network import IntegerNetwork
from train.calibrate import evaluate
from train.checkpoint import load_model
from train.data import ImageSet
from train.models import Network


@dataclass(frozen=True)
class Reference:
    """Accuracies in percent.

    Attributes:
        snn, ann: of the float SNN after T steps and of the noise-free ANN.
        integer: of the integer SNN on the same images; None where they are the deployed images.
        images: which images: "the same images" or "the calibration images at export".
        steps: T of the SNNs.
        count: number of these images.
    """

    snn: float
    ann: float
    integer: float | None
    images: str
    steps: int
    count: int

    @property
    def default_tolerance(self) -> float:
        """Points that may be lost: 0.5, and 30/√images for chance (two standard errors if 2 % of the images differ)."""
        return 0.5 + 30 / math.sqrt(self.count)

    def drop(self, deployed: float) -> float:
        """Points lost from the float SNN to the integers, on one and the same set of images."""
        return self.snn - (deployed if self.integer is None else self.integer)

    def describe(self) -> str:
        return f"on {self.images}: ANN {self.ann:.2f} %, float SNN T={self.steps} {self.snn:.2f} %" + (
            "" if self.integer is None else f", integer SNN {self.integer:.2f} %"
        )


def exported_accuracy(network: IntegerNetwork, steps: int) -> Reference | None:
    """The accuracies that the exporter stored; None where the file has none, or has them for another T.

    Raises:
        ValueError: what is stored is incomplete.
    """
    if network.info.get("T") != steps or "calibration_float_snn_accuracy" not in network.info:
        return None
    try:
        keys = ("float_snn", "ann", "integer_snn")
        snn, ann, integer = (float(network.info[f"calibration_{key}_accuracy"]) for key in keys)
        exported_steps, count = int(network.info["T"]), int(network.info["calibration_images"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"info: {error}: accuracies incomplete; give the exported model with --model") from None
    return Reference(snn, ann, integer, "the calibration images at export", exported_steps, count)


def exported_model(network: IntegerNetwork, path: Path) -> Network:
    """The model that the network was exported from.

    Raises:
        CheckpointError: ``path`` is not a model file.
        ValueError: it is another model.
    """
    model, _ = load_model(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != network.info.get("source_sha256"):
        raise ValueError(f"{path}: not the model that the network was exported from; allowed: that file")
    return model


def measured_accuracy(model: Network, data: ImageSet, steps: int) -> Reference:
    """Runs the float SNN on ``data``."""
    result = evaluate(model, data, steps)
    return Reference(result.snn[-1], result.ann, None, "the same images", steps, len(data))
