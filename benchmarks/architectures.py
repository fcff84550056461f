"""Which of torchvision's classifiers export as they are: from the module through the file to Lava, random weights.

    python -m benchmarks.architectures resnet18 mobilenet_v2

Without names all are tried. Each is behind Normalize, gets the statistics of two random images in its batch norm, is
converted without training, written, read and run in Lava on the two images at T = 2. The rows are a Markdown table.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from deploy import api
from export.convert import convert, normalised
from export.fold.problems import problems
from nqlava import netx
from train.model.models import IMAGENET_MEAN, IMAGENET_STD

_STEPS = 2


def classifier(name: str, images: Tensor) -> nn.Module:
    """A network of torchvision with random weights, whose batch norm has the statistics of some images."""
    torch.manual_seed(0)
    takes = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = normalised(
        getattr(torchvision.models, name)(weights=None, num_classes=10, **takes), IMAGENET_MEAN, IMAGENET_STD
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def row(name: str) -> str:
    """One line of the table."""
    size = 96 if name == "inception_v3" else 64
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    start = time.process_time()
    model = classifier(name, images)
    found = problems(model, (3, size, size))
    if found:
        return f"| {name} | refused in {len(found)} places | {found[0].partition('; allowed')[0]} | | |"
    network, _ = convert(model, images, steps=_STEPS)
    weights = sum(c.weight.size for layer in network.layers for c in layer.connections)
    with tempfile.TemporaryDirectory() as folder:
        netx.write(network, Path(folder) / "net.h5")
        exact = api.run_lava(Path(folder) / "net.h5", images.numpy(), torch.zeros(2).long().numpy(), steps=_STEPS).exact
    seconds = time.process_time() - start
    size_of = f"{len(network.layers)} layers | {weights / 1e6:.1f} M"
    return f"| {name} | {size_of} | {'exact' if exact else 'NOT EXACT'} | {seconds:.0f} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="in torchvision.models; all classifiers without any")
    names = parser.parse_args(argv).names or torchvision.models.list_models(module=torchvision.models)
    print("| network | exports | weights, or the first place | Lava, 2 images, T = 2 | s |\n|" + " --- |" * 5)
    for name in names:
        print(row(name), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
