"""The accuracy of the float SNN, to hold the deployed accuracy against."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from export.network import IntegerNetwork
from train.calibrate import evaluate
from train.checkpoint import load_model
from train.data import ImageSet


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


def float_accuracy(network: IntegerNetwork, model: Path | None, data: ImageSet, steps: int) -> Reference | None:
    """Run the float SNN on ``data``, or without ``model`` take the accuracies that the exporter stored for its T.

    None where neither is there: no model, and a file without accuracies or for another T.

    Raises:
        CheckpointError: ``model`` is not a model file.
        ValueError: ``model`` is not what the network was exported from, or what is stored is incomplete.
    """
    if model is None:
        if network.info.get("T") != steps:
            return None
        if "calibration_float_snn_accuracy" not in network.info:
            return None
        try:
            keys = ("float_snn", "ann", "integer_snn")
            snn, ann, integer = (float(network.info[f"calibration_{key}_accuracy"]) for key in keys)
            exported_steps, count = int(network.info["T"]), int(network.info["calibration_images"])
        except (KeyError, ValueError) as error:
            raise ValueError(f"info: {error}: accuracies incomplete; give the exported model with --model") from None
        return Reference(snn, ann, integer, "the calibration images at export", exported_steps, count)
    float_network, _ = load_model(model)
    if hashlib.sha256(model.read_bytes()).hexdigest() != network.info.get("source_sha256"):
        raise ValueError(f"{model}: not the model that the network was exported from; allowed: that file")
    result = evaluate(float_network, data, steps)
    return Reference(result.snn[-1], result.ann, None, "the same images", steps, len(data))
