"""torchvision's convolutional classifiers without gates, as they are: from the module through the file to Lava."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.architectures import classifier
from deploy import api
from export.convert import convert
from export.fold.problems import problems
from nqlava import netx, reference
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.testing.engines import assert_same

SHAPE = (3, 64, 64)
STEPS = 2
FAMILIES = (
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "squeezenet1_1", "googlenet", "mobilenet_v2", "mnasnet0_5",
    "shufflenet_v2_x0_5", "regnet_x_400mf",
)  # fmt: skip
"""One of each; the deeper ones have the same parts. densenet121 and inception_v3 take a minute each."""
GATED = {
    "regnet_y_400mf": "sigmoid",
    "mobilenet_v3_small": "hardswish",
    "efficientnet_b0": "silu",
    "convnext_tiny": "layer_norm",
}


def some_images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def integer_network(name: str, images: Tensor) -> IntegerNetwork:
    return convert(classifier(name, images), images, steps=STEPS)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_exports_as_it_is(name: str) -> None:
    images = some_images(2)
    network = integer_network(name, images)
    got = Engine(network).run(images, STEPS)
    assert_same([reference.run(network, image.numpy(), STEPS) for image in images], got)
    rates = [got.layer_spikes(index).mean() for index in range(len(got.shapes))]
    assert sum(rate > 0 for rate in rates) > 0.9 * len(rates)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_bit_exact_in_lava(tmp_path: Path, name: str) -> None:
    images = some_images(2)
    netx.write(integer_network(name, images), tmp_path / "net.h5")
    assert api.run_lava(tmp_path / "net.h5", images.numpy(), torch.zeros(2).long().numpy(), steps=STEPS).exact


@pytest.mark.slow
@pytest.mark.parametrize("name", GATED)
def test_gates_are_refused(name: str) -> None:
    found = problems(classifier(name, some_images(2)), SHAPE)
    assert len(found) > 3 and any(f": {GATED[name]}" in line and ".py:" in line for line in found)
