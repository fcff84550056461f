"""The accuracy of the float SNN on the images that Lava ran."""

import hashlib
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.compare.run import Run
from deploy.compare.verdict import Verdict
from nqlava.command.files import open_regular, reading
from nqlava.errors import InputError, shown
from nqlava.info import Info
from nqlava.network import IntegerNetwork
from train.loop.checkpoint import read_model
from train.model.models import Network
from train.model.snn import simulate
from train.shipped import NAMES, pretrained

_BATCH = 32
_MOST = 2**32  # bytes of a model file


@dataclass(frozen=True)
class FloatAccuracy:
    """Accuracies in percent, all on the same images, the first ``count`` of the run.

    Attributes:
        ann, snn: of the noise-free ANN, and of the float SNN after T steps.
        lava: of the network in Lava after T steps.
        steps: T.
        count: number of these images.
        differing: on how many of them one of float SNN and Lava is right and the other wrong.
        allowed: points that may be lost; None for 0.5 and two standard errors of chance, 2·√differing images.
        target: what the network ran in, in the place of Lava.
    """

    ann: float
    snn: float
    lava: float
    steps: int
    count: int
    differing: int
    allowed: float | None = None
    target: str = "Lava"

    @property
    def lost(self) -> float:
        """Points lost from the float SNN to Lava."""
        return self.snn - self.lava

    @property
    def tolerance(self) -> float:
        """Points that may be lost; by default never less than those of a single image, rounding included."""
        least = max(0.5 + 200 * math.sqrt(self.differing) / self.count, 100 / self.count + 1e-9)
        return least if self.allowed is None else self.allowed

    @property
    def kept(self) -> bool:
        """Whether no more than the tolerance is lost."""
        return self.lost <= self.tolerance

    def __str__(self) -> str:
        change = f"{abs(self.lost):.2f} points {'lost' if self.lost >= 0 else 'gained'}"
        return (
            f"on the same {self.count} images: ANN {self.ann:.2f} %, float SNN T={self.steps} {self.snn:.2f} %, "
            f"{self.target} {self.lava:.2f} %; {change} (tolerance {self.tolerance:.2f})"
        )


@dataclass(frozen=True)
class ModelSearch:
    """Where the model file of a network was looked for.

    Attributes:
        path: the file; None where it was not found.
        missing: why not, in words; empty where it was found.
    """

    path: Path | None
    missing: str = ""


def find_model(net: Path, info: Info) -> ModelSearch:
    """The model file that the network was exported from: beside the netx file, where it was, or among those shipped.

    The netx file holds its path, relative to its own folder, and its SHA-256; only a file with that digest counts.
    """
    expected, source = info.source_sha256, info.source
    if expected is None:
        return ModelSearch(None, f"{net} was not exported from a model file")
    if source is None:
        return ModelSearch(None, f"{net} does not say where its model file was; name it with --model")
    name = os.path.basename(source)
    folders = dict.fromkeys([net.parent, net.resolve().parent])
    places = [folder / place for folder in folders for place in (name, source)]
    places += [pretrained(known) for known in NAMES if f"{known}.pt" == name]
    for path in places:
        try:
            if _sha256(path) == expected:
                return ModelSearch(path)
        except OSError:
            continue
    missing = f"its model file, {shown(name)} with SHA-256 {shown(expected, 16)}, is not there"
    return ModelSearch(None, f"{missing}; name it with --model")


def _sha256(path: Path) -> str:
    """SHA-256 of a regular file of at most _MOST bytes; OSError for another."""
    sha = hashlib.sha256()
    with open_regular(path, _MOST) as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()


def exported_model(network: IntegerNetwork, info: Info, path: Path) -> Network:
    """The model that the network was exported from.

    Raises:
        CheckpointError: ``path`` is not a model file.
        InputError: it is another model, or does not fit the network.
    """
    model = read_model(path)
    if model.network.input_shape != network.input_shape or len(model.classes) != network.classes:
        raise InputError(f"{path}: takes other images or has other classes than the network; allowed: its own model")
    with reading(path):
        digest = _sha256(path)
    if digest != info.source_sha256:
        raise InputError(f"{path}: not the model that the network was exported from; allowed: that file")
    return model.network


@torch.no_grad()
def measure(run: Run, verdict: Verdict) -> Verdict:
    """The verdict with the accuracy of ANN and float SNN on the first images of the run, over its T.

    Without a model nothing changes. A model that the settings name runs on all images; one that was found, until it has
    taken as long as Lava, but on one batch at least.
    """
    if run.model is None:
        return verdict
    seconds = None if run.settings.model is not None else verdict.wall_seconds
    began, ann, snn = time.monotonic(), [], []
    for images, labels in run.data.batches(_BATCH):
        ann.append((run.model(images).argmax(1) == labels).numpy())
        snn.append((simulate(run.model, images, run.settings.T)[-1].argmax(1) == labels).numpy())
        if seconds is not None and time.monotonic() - began >= seconds:
            break
    return with_float(verdict, np.concatenate(ann), np.concatenate(snn), run.settings.tolerance)


def with_float(verdict: Verdict, ann: NDArray[np.bool_], snn: NDArray[np.bool_], tolerance: float | None) -> Verdict:
    """The verdict with the accuracies of ANN and float SNN, which are right on these of the first images."""
    count, lava = len(snn), np.frombuffer(verdict.right, np.bool_)[: len(snn)]
    floating = FloatAccuracy(
        100 * float(ann.mean()),
        100 * float(snn.mean()),
        100 * float(lava.mean()),
        verdict.steps,
        count,
        int((snn != lava).sum()),
        tolerance,
        verdict.target,
    )
    return replace(verdict, floating=floating)
