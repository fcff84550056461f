"""The networks that are timed: exported from trained models, or from untrained ones whose layers all spike."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.fold.lower import lower
from export.round.quantize import Precision, quantize
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer
from train.data.images import load
from train.loop.checkpoint import read_model
from train.model.models import MODELS
from train.model.snn import neurons

_STATISTICS = 64  # images behind the batch-norm statistics of untrained models


def sample_images(count: int) -> NDArray[np.uint8]:
    """``count`` of the test images shipped with the project, repeated where there are fewer: (N, C, H, W)."""
    images = load(["sample"], "test").pixels
    return np.resize(images, (count, *images.shape[1:]))


def exported(name: str, checkpoints: Mapping[str, Path]) -> IntegerNetwork:
    """A model of train.model.models with 8-bit weights and one scale per layer, from its checkpoint or untrained."""
    if name in checkpoints:
        found = read_model(checkpoints[name])
        model = found.network
        if found.architecture != name:
            raise ValueError(f"--checkpoint {name}: holds {found.architecture}; allowed: {name}")
        for neuron in neurons(model):  # what it is compared with has one v0 per layer
            neuron.initial = neuron.initial.mean()
    else:
        torch.manual_seed(0)
        model = MODELS[name](threshold=2.0).train()
        for module in model.modules():  # batch-norm statistics of real images, so that every layer spikes
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            model(torch.from_numpy(sample_images(_STATISTICS)))
        model.eval()
    return quantize(lower(model, model.input_shape), precision=Precision(granularity="layer"))[0]


def uniform(width: int, depth: int) -> IntegerNetwork:
    """``depth`` 3x3 convolutions of ``width`` channels at 16 x 16 positions, the first of stride 2, and a read-out."""
    rng = np.random.default_rng(0)
    layers = []
    for index in range(depth):
        source, inputs = (layers[-1].name, width) if layers else (IMAGE, 3)
        weight = rng.integers(-127, 128, (width, inputs, 3, 3)).astype(np.int8)
        threshold = int(64 * np.sqrt(weight[0].size) * (1 if layers else 128))  # about one in ten neurons spikes
        connection = Connection(source, weight, stride=(1, 1) if layers else (2, 2), padding=(1, 1))
        layers.append(
            Layer(
                f"layer{index}",
                (connection,),
                bias=np.zeros(width, np.int32),
                threshold=np.full(width, threshold, np.int32),
                v0=np.full(width, threshold // 2, np.int32),
            )
        )
    weight = rng.integers(-127, 128, (10, width * 16 * 16)).astype(np.int8)
    zeros = np.zeros(10, np.int32)
    layers.append(Layer("readout", (Connection(layers[-1].name, weight),), bias=zeros, threshold=None, v0=zeros))
    return IntegerNetwork((3, 32, 32), tuple(layers))
