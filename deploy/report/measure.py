"""What the report shows beside the comparison with Lava: measured with the exact integer engine and the float model."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.compare.run import Run
from deploy.fit.activity import measure as measure_activity
from deploy.fit.examine import examine
from deploy.fit.report import Report as Fit
from deploy.fit.wiring import wire
from deploy.report.recording import Recording, record
from nqlava.bounds import worst_case
from nqlava.command.progress import progress
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from train.curves import LayerCurves
from train.curves import measure as measure_curves
from train.data.image_set import ImageSet
from train.model.models import Network

RECORDED_STEPS = 64
"""Steps of one image that are recorded at most."""


@dataclass(frozen=True)
class Floating:
    """The float model on the same images.

    Attributes:
        ann: int64 (N,), class by the ANN.
        snn: int64 (N, T), class by the float SNN after each step.
        curves: per activation, the residual error among them.
    """

    ann: NDArray[np.int64]
    snn: NDArray[np.int64]
    curves: tuple[LayerCurves, ...]


@dataclass(frozen=True)
class Measured:
    """Attributes:
    classes: int64 (N, T), class by the integer engine after each step.
    potentials: per layer, least and largest u of all neurons, images and steps, and 0.
    bounds: per layer, a bound on |u| for any image.
    fit: what deploy.fit says, the activity on all images included.
    image: number of the image that was recorded.
    recordings: of it, per layer, over the first min(T, 64) steps.
    floating: None without a model.
    """

    classes: NDArray[np.int64]
    potentials: tuple[tuple[int, int], ...]
    bounds: tuple[int, ...]
    fit: Fit
    image: int
    recordings: tuple[Recording, ...]
    floating: Floating | None


def measure(run: Run, image: int | None = None) -> Measured:
    """Runs all images over T.

    Args:
        run: network, images, T, and the model that the network was exported from.
        image: number of the image to record; by default the first that the integer network gets wrong, else the first.

    Raises:
        InputError: there is no such image.
    """
    network, data, steps = run.network, run.data, run.settings.T
    if image is not None and not 0 <= image < len(data):
        raise InputError(f"--image is {image}; allowed: 0..{len(data) - 1}")
    images, engine = data.pixels, Engine(network)
    classes = engine.classify(images, steps)
    if image is None:
        image = int((classes[:, -1] != data.labels.numpy()).argmax())
    wired = wire(network)
    with progress(len(data), "images", "spikes") as bar:
        activity = measure_activity(network, wired, images, steps, bar.update)
    return Measured(
        classes=classes,
        potentials=engine.membrane_ranges(images, steps),
        bounds=worst_case(network, steps),
        fit=examine(str(run.settings.net), network, wired, activity, run.settings.data),
        image=image,
        recordings=record(network, images[image], min(steps, RECORDED_STEPS)),
        floating=None if run.model is None else run_model(run.model, data, steps),
    )


def run_model(model: Network, data: ImageSet, steps: int) -> Floating:
    """The classes that the ANN and the float SNN choose, and the residual errors."""
    ann: list[Tensor] = []
    snn: list[Tensor] = []

    with progress(len(data), "images", "float SNN") as bar:

        def classify(scores: Tensor, over_time: Tensor) -> None:
            ann.append(scores.argmax(1))
            snn.append(over_time.argmax(2).T)
            bar.update(len(scores))

        _, curves = measure_curves(model, data, steps, classify)
    return Floating(torch.cat(ann).numpy(), torch.cat(snn).numpy(), tuple(curves))
