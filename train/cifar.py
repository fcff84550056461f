"""Train a CIFAR network with the NQ activation: ``python -m train.cifar --data FOLDER --out model.pt``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nqlava.command.parser import SOURCES
from train import command
from train.choices import Split
from train.loop.recipe import Recipe

if TYPE_CHECKING:
    from train.data.image_set import ImageSet


def _load(options: argparse.Namespace, split: Split) -> "ImageSet":
    from train.data.images import load

    return load(options.data, split)


COMMAND = command.Command(
    name="train.cifar",
    description="Train an image classifier with the NQ activation, ready for conversion to an integer SNN.",
    examples=[
        "train.cifar --data cifar10 --out vgg_small.pt",
        "train.cifar --data my-images/ --model resnet20 --epochs 200 --out mine.pt --dry-run",
        "train.cifar --data cifar10 --config recipe.toml --tensorboard runs/",
    ],
    default=Recipe(),
    sources=SOURCES,
    data=["sample"],
    load=_load,
)


def main(argv: Sequence[str] | None = None) -> int:
    return command.main(COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
