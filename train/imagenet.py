"""Train on a set too large for memory: ``python -m train.imagenet --data FOLDER --out model.pt``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nqlava.errors import InputError
from train import command
from train.choices import Split
from train.loop.recipe import Recipe

if TYPE_CHECKING:
    from train.data.stream import StreamedSet


def _load(options: argparse.Namespace, split: Split) -> "StreamedSet":
    from train.data.tree import look_at, open_tree

    if len(options.data) > 1:
        raise InputError(f"--data is {' '.join(options.data)}; allowed: one folder")
    data = open_tree(options.data[0], split, workers=options.workers)
    look_at(data)
    return data


COMMAND = command.Command(
    name="train.imagenet",
    description="Train a network for 224x224 images, decoded while it trains, ready for conversion to an integer SNN.",
    examples=[
        "train.imagenet --data imagenet/ --out resnet34.pt --dry-run",
        "torchrun --nproc-per-node 8 -m train.imagenet --data imagenet/ --out resnet34.pt",
    ],
    default=Recipe(
        model="resnet34_imagenet", epochs=120, learning_rate=0.1, weight_decay=1e-4, cutout=0, validation=10_000
    ),
    sources="a folder with train/<class>/<image> and val/<class>/<image>, images of any size",
    data=[],
    load=_load,
    workers=4,
)


def main(argv: Sequence[str] | None = None) -> int:
    return command.main(COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
