"""Small float networks and image sets: non-square, with biases, batch norm, pooling and dropout."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from train.data.image_set import ImageSet
from train.model.activation import NQ
from train.model.models import BasicBlock, Form, Network, Normalize

SHAPE = (3, 8, 6)


def tiny(classes: int = 10, **form: Any) -> Network:
    """Two convolutions, a hidden and an output linear layer over 8x6 images; arguments as in train.model.models."""
    made = Form(**form)
    layers = [
        Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3)),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        made.neuron(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, (3, 2), padding=(1, 0)),
        nn.BatchNorm2d(6),
        made.neuron(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(48, 7),
        made.neuron(),
        nn.Linear(7, classes),
    ]
    return Network(layers, input_shape=SHAPE, levels=made.levels)


def tiny_residual(classes: int = 10, **form: Any) -> Network:
    """A convolution, a residual block with an identity and one with a projection, global pooling, linear layer."""
    made = Form(**form)
    layers = [
        Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3)),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        made.neuron(),
        BasicBlock(4, 4, 1, made),
        BasicBlock(4, 6, 2, made),
        nn.AvgPool2d((4, 3)),
        nn.Flatten(),
        nn.Linear(6, classes),
    ]
    return Network(layers, input_shape=SHAPE, levels=made.levels)


def random_residual(seed: int, *, classes: int = 5, levels: int = 4) -> Network:
    """``tiny_residual`` in evaluation mode with random parameters and statistics."""
    network = tiny_residual(classes, levels=levels)
    randomise(network, seed)
    return network


def random_tiny(seed: int, *, classes: int = 5, levels: int = 4) -> Network:
    """``tiny`` in evaluation mode with random parameters and statistics, whose neurons fire now and then."""
    network = tiny(classes, levels=levels)
    randomise(network, seed)
    return network


def randomise(network: nn.Module, seed: int) -> None:
    """Random parameters and batch-norm statistics; leaves the network in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.copy_(uniform(-1, 1, module.weight) * 3 / module.weight[0].numel() ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(uniform(-0.3, 0.5, module.bias))
            elif isinstance(module, nn.BatchNorm2d):
                if module.affine:
                    module.weight.copy_(uniform(0.5, 1.5, module.weight))
                    module.bias.copy_(uniform(-0.2, 0.5, module.bias))
                module.running_mean.copy_(uniform(-0.5, 0.5, module.running_mean))
                module.running_var.copy_(uniform(0.5, 2, module.running_var))
            elif isinstance(module, NQ):
                module.threshold.copy_(uniform(0.8, 2, module.threshold))
    network.eval()


def image_set(count: int, *, classes: int = 5, seed: int = 0) -> ImageSet:
    """Random 8x6 images, brighter or darker by class, with labels 0, 1, ... in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 120, (count, *SHAPE[1:], SHAPE[0]), generator=generator)
    images = (noise + (labels * (130 // classes))[:, None, None, None]).to(torch.uint8)
    return ImageSet(images, labels, tuple(f"class{i}" for i in range(classes)))


def write_folder(folder: Path, **splits: ImageSet) -> Path:
    """The images as ``<folder>/<split>/<class>/<number>.png``; the folder."""
    for split, data in splits.items():
        for index in range(len(data)):
            file = folder / split / data.classes[int(data.labels[index])] / f"{index:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.images[index].numpy()).save(file)
    return folder


def write_zip(path: Path, folder: Path) -> Path:
    """The folder as a zip archive; its path."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path
