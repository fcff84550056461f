"""Train a CIFAR network with the NQ activation: ``python -m train.cifar --data FOLDER --out model.pt``."""

import sys
from collections.abc import Sequence

from train import command
from train.data import load
from train.recipe import Recipe

COMMAND = command.Command(
    name="train.cifar",
    description="Train an image classifier with the NQ activation, ready for conversion to an integer SNN.",
    example="python -m train.cifar --data cifar10-archives/ --epochs 40 --out runs/vgg_small.pt",
    default=Recipe(),
    sources="'sample' (1,000 images shipped with the project), 'cifar10' or 'cifar100' (download), or folders or zip "
    "archives of Tiny-ImageNet or with train/<class>/<image> and test/<class>/<image>, all images of one size",
    data=["sample"],
    load=lambda options, split: load(options.data, split),
)


def main(argv: Sequence[str] | None = None) -> int:
    return command.main(COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
