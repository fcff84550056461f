"""VGG-16 with untrained weights, from the PyTorch module through the file to Lava."""

from pathlib import Path

import numpy as np
import torch

from deploy.lava import build
from deploy.verify import verify
from export import netx
from export.fold import fold
from export.quantize import quantize
from train.data import load
from train.models import vgg16


def test_vgg16_is_bit_exact_in_lava(tmp_path: Path) -> None:
    data = load(["sample"], "test").sample(4, seed=0)
    images = data.images.permute(0, 3, 1, 2).contiguous()
    torch.manual_seed(0)
    model = vgg16(threshold=2.0).train()
    with torch.no_grad():
        for _ in range(20):  # batch-norm statistics of real images, so that every layer spikes
            model(images)
    network, _ = quantize(fold(model.eval()), model.input_shape)
    netx.write(network, tmp_path / "vgg16.h5")
    stored = netx.read(tmp_path / "vgg16.h5")
    assert stored.digest() == network.digest()
    verdict = verify(stored, images.numpy(), data.labels.numpy(), build.run(stored, images.numpy(), 4, batch=4))
    assert verdict.mismatches == (0,) * 16
    assert len(np.unique(verdict.spike_rates)) == 15 and all(0.0005 < rate < 0.5 for rate in verdict.spike_rates)
