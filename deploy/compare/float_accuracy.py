"""The accuracy of the float SNN on the images that Lava ran."""

import hashlib
import math
import os
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from deploy.compare.verify import Verdict
from nqlava.command.files import open_regular, reading
from nqlava.errors import InputError, shown
from nqlava.network import IntegerNetwork
from train.data.images import ImageSet
from train.loop.checkpoint import load_model
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
    """

    ann: float
    snn: float
    lava: float
    steps: int
    count: int

    @property
    def lost(self) -> float:
        """Points lost from the float SNN to Lava."""
        return self.snn - self.lava

    @property
    def default_tolerance(self) -> float:
        """Points that may be lost: 0.5, and 30/√images for chance (two standard errors if 2 % of the images differ)."""
        return 0.5 + 30 / math.sqrt(self.count)

    def describe(self) -> str:
        return (
            f"on the same {self.count} images: ANN {self.ann:.2f} %, float SNN T={self.steps} {self.snn:.2f} %, "
            f"Lava {self.lava:.2f} %"
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


def find_model(net: Path, network: IntegerNetwork) -> ModelSearch:
    """The model file that the network was exported from: beside the netx file, where it was, or among those shipped.

    The netx file holds its path, relative to its own folder, and its SHA-256; only a file with that digest counts.
    """
    expected, source = network.info.get("source_sha256"), network.info.get("source")
    if not isinstance(expected, str):
        return ModelSearch(None, f"{net} was not exported from a model file")
    if not isinstance(source, str):
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
    """Of a regular file of at most _MOST bytes; OSError for another."""
    sha = hashlib.sha256()
    with open_regular(path, _MOST) as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()


def exported_model(network: IntegerNetwork, path: Path) -> Network:
    """The model that the network was exported from.

    Raises:
        CheckpointError: ``path`` is not a model file.
        InputError: it is another model, or does not fit the network.
    """
    model, content = load_model(path)
    if model.input_shape != network.input_shape or len(content["classes"]) != network.classes:
        raise InputError(f"{path}: takes other images or has other classes than the network; allowed: its own model")
    with reading(path):
        digest = _sha256(path)
    if digest != network.info.get("source_sha256"):
        raise InputError(f"{path}: not the model that the network was exported from; allowed: that file")
    return model


@torch.no_grad()
def measure(model: Network, data: ImageSet, verdict: Verdict, seconds: float | None) -> FloatAccuracy:
    """Runs ANN and float SNN on the first images of ``data``, over the T of the verdict.

    Args:
        model: in any mode; left in it.
        data: the images of the verdict.
        verdict: of their run in Lava.
        seconds: no batch starts after them; None for all images. The first batch always runs.
    """
    training, began = model.training, time.monotonic()
    model.eval()
    ann = snn = done = 0
    try:
        for images, labels in data.batches(_BATCH):
            ann += int((model(images).argmax(1) == labels).sum())
            snn += int((simulate(model, images, verdict.steps)[-1].argmax(1) == labels).sum())
            done += len(labels)
            if seconds is not None and time.monotonic() - began >= seconds:
                break
    finally:
        model.train(training)
    return accuracy_of(ann, snn, done, verdict)


def accuracy_of(ann: int, snn: int, count: int, verdict: Verdict) -> FloatAccuracy:
    """From the numbers of right classes among the first ``count`` images."""
    right = sum(islice(verdict.right, count))
    return FloatAccuracy(100 * ann / count, 100 * snn / count, 100 * right / count, verdict.steps, count)
