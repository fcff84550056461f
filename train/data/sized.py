"""Images for a network, from files of any size: those that are drawn are decoded, to the size that it takes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from nqlava.network import Pair
from train.choices import Split
from train.data import cifar_python
from train.data.files import Files, list_files, say
from train.data.image_set import DataError, ImageSet, drawn
from train.data.images import MAX_BYTES, SAMPLE, load, look_at, places
from train.data.layout import some
from train.data.pixels import upright_size
from train.data.views import STREAMED, fitted

_LOOKED_AT = 200


@dataclass(frozen=True)
class SizedSet:
    """Image files of one split, of which only those that are drawn are decoded and held in memory.

    Attributes:
        files: the images. split: which they are.
        size: (H, W) of an image as a network gets it; others are resized (train.data.views.fitted).
        channels: 3, or 1 for grey.
        is_mixed: whether some of the images that were looked at have another size.
    """

    files: Files
    split: Split
    size: Pair
    channels: int = 3
    is_mixed: bool = False

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as a network gets it."""
        return self.channels, *self.size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.files.classes

    def with_channels(self, count: int) -> "SizedSet":
        """In grey where ``count`` is 1, as ImageSet.with_channels."""
        return replace(self, channels=1) if count == 1 else self

    def digest(self) -> str:
        """SHA-256 over classes, labels, names and size; the images are not read."""
        sha = hashlib.sha256(repr((self.classes, self.shape, len(self))).encode())
        for part in self.files.key():
            sha.update(part + b"\0")
        return sha.hexdigest()

    def sample(self, count: int, seed: int) -> ImageSet:
        """``count`` images drawn without replacement, decided by the seed.

        Raises:
            DataError: one of them cannot be decoded, or they are too many for the memory.
        """
        return self._decoded(drawn(len(self), count, seed))

    def whole(self) -> ImageSet:
        """All images, in order; errors as of ``sample``."""
        return self._decoded(torch.arange(len(self)))

    def _decoded(self, chosen: torch.Tensor) -> ImageSet:
        count, needed = len(chosen), len(chosen) * 3 * self.size[0] * self.size[1]
        if needed > MAX_BYTES:
            raise DataError(f"data: {count} images of {self.size} are {needed} bytes; allowed: {MAX_BYTES}, so fewer")
        where = some([str(path) for path in self.files.sources])
        if self.is_mixed:
            size = "x".join(map(str, self.size))
            say(f"data: {where}: {self.split}: images of other sizes are resized to {size}, from their middle")
        images = np.empty((count, *self.size, 3), dtype=np.uint8)
        for place, image in self.files.decoded(chosen.tolist(), self._view):
            images[place] = image
        labels = torch.from_numpy(self.files.labels)[chosen]
        found = ImageSet(torch.from_numpy(images), labels, self.classes)
        look_at(found, self.split, where)
        return found.with_channels(self.channels)

    def _view(self, file: IO[bytes], name: str) -> NDArray[np.uint8]:
        return fitted(file, *self.size, name)


def load_sized(sources: Sequence[str], split: Split, size: Pair | None = None) -> ImageSet | SizedSet:
    """The given split of a data set; sources, and errors, as of ``train.data.images.load``.

    The sample and CIFAR keep their size. Of other sources nothing is decoded yet.

    Args:
        sources, split: see there.
        size: (H, W) of the images; without it their own where those that are looked at have one of at most 224 x 224,
            else 224 x 224.
    """
    paths = places(sources)
    if paths == [SAMPLE] or any(map(cifar_python.is_source, paths)):
        return load(sources, split)
    files = list_files(paths, split)
    looked_at = np.linspace(0, len(files) - 1, min(_LOOKED_AT, len(files))).round().astype(int).tolist()
    sizes = {found for _, found in files.decoded(looked_at, upright_size)}
    if size is None:
        own = next(iter(sizes))
        size = own if len(sizes) == 1 and max(own) <= STREAMED else (STREAMED, STREAMED)
    return SizedSet(files, split, size, is_mixed=sizes != {size})
