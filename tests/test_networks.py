"""The papers' networks with untrained weights, from the PyTorch module through the file to Lava."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from deploy.compare.part import Part
from deploy.lava import build
from export.fold.lower import lower
from export.round.quantize import quantize
from nqlava import netx
from tests.parts import verify
from train.data.images import load
from train.model.models import Network, resnet18, resnet20, resnet34, vgg16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "layers", "steps"), [(vgg16, 16, 4), (resnet18, 18, 3), (resnet20, 20, 4), (resnet34, 34, 2)]
)
def test_bit_exact_in_lava(tmp_path: Path, make: Callable[..., Network], layers: int, steps: int) -> None:
    data = load(["sample"], "test").sample(2, seed=0)
    images = data.images.permute(0, 3, 1, 2).contiguous()
    torch.manual_seed(0)
    model = make(threshold=2.0).train()
    for module in model.modules():  # batch-norm statistics of real images, so that every layer spikes
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(images)
    network, _ = quantize(lower(model.eval(), model.input_shape))
    netx.write(network, tmp_path / "net.h5")
    stored = netx.read(tmp_path / "net.h5")
    assert stored.digest() == network.digest() and stored.depth == layers
    part = Part(0, data.pixels, data.labels.numpy())
    verdict = verify(stored, part, steps, build.run(stored, images.numpy(), steps, batch=1, membranes=2))
    assert verdict.mismatches == (0,) * layers
    assert all(0.0005 < rate < 0.5 for rate in verdict.spike_rates)
