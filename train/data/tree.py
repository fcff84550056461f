"""Trees of images too large for memory, listed and looked at before they are streamed."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from train.choices import MAX_SIDE, Split
from train.data.files import say
from train.data.image_set import DataError
from train.data.images import contrast
from train.data.layout import arrange, united
from train.data.pixels import opened_image
from train.data.sources import Folder, named
from train.data.stream import MAX_WORKERS, StreamedSet
from train.data.views import STREAMED, view

_SMALL = 200
"""Bytes: pointers of Git LFS, empty files and messages in place of an image have fewer, and hardly an image has."""
_LOOKED_AT = 16


def open_tree(path: Path | str, split: Split, size: int = STREAMED, *, workers: int = 4) -> StreamedSet:
    """The given split of ``<path>/train/<class>/<image>`` and ``<path>/val/<class>/<image>``.

    What is left out is named on standard error.

    Args:
        path: folder of the splits.
        split: ``"train"``, or ``"test"`` for the first of test, testing, val, valid and validation with class folders.
        size: side of the square images that a network gets, in pixels.
        workers: processes that decode; with 0 this one does.

    Raises:
        DataError: no such tree, a class without images or that only one of the splits has, a small file that is no
            image, size or workers not allowed.
    """
    for name, value, low, high in (("size", size, 1, MAX_SIDE), ("workers", workers, 0, MAX_WORKERS)):
        if not low <= value <= high:
            raise DataError(f"{name} is {value}; allowed: {low}..{high}")
    (root, *others) = named(Path(path))
    if others or not root.is_dir():
        raise DataError(f"data: {root} is a file; allowed: a folder, so unpack an archive, or train.cifar")
    source = Folder(root)
    parts = arrange(source.names, source.read, str(root))
    classes = united([parts], split, [str(root)], source.shown)
    listed = parts[split]
    if left_out := listed.reasons():
        say(f"data: {root}: {split}: {len(listed.images):,} images are listed; left out: {left_out}")
    images = sorted(listed.images)
    folder = root / images[0][1].partition("/")[0]
    names = [name.partition("/")[2] for _, name in images]
    numbers = {name: number for number, name in enumerate(classes)}
    return StreamedSet(
        folder=folder,
        paths=np.array([os.fsencode(name) for name in names]),
        sizes=np.array(_sizes(folder, names), dtype=np.int64),
        labels=torch.tensor([numbers[label] for label, _ in images]),
        classes=tuple(classes),
        size=size,
        workers=workers,
        device=torch.device("cpu"),
    )


def _sizes(folder: Path, names: Sequence[str]) -> list[int]:
    """Bytes of the files."""
    sizes = []
    for name in names:
        path = folder / name
        try:
            size = os.stat(path).st_size
            if size < _SMALL:
                with opened_image(path, str(path)):
                    pass
        except OSError as error:
            raise DataError(f"data: {path} is not readable ({error.strerror})") from None
        sizes.append(size)
    return sizes


def look_at(data: StreamedSet) -> None:
    """Decodes a few images, evenly spread, so that what is wrong with all of them shows before the training.

    Raises:
        DataError: one of them cannot be decoded.
    """
    chosen = np.linspace(0, len(data) - 1, min(_LOOKED_AT, len(data))).round().astype(int)
    views = [view(data.folder / os.fsdecode(data.paths[index]), data.size) for index in chosen]
    low, high = min(int(v.min()) for v in views), max(int(v.max()) for v in views)
    if found := contrast(low, high):
        say(f"data: {data.folder}: all pixels of {len(views)} images that were looked at are {found}")
