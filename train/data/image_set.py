"""Images in memory, as uint8 arrays with labels."""

import hashlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nqlava.errors import InputError
from train.choices import MAX_SEED

# Makes training images, uint8 (N, C, H, W) channels-last in memory, of uint8 (N, H, W, C) and their indices (N,); the
# generator is on the CPU.
Augment = Callable[[Tensor, Tensor, torch.Generator], Tensor]
Batches = Generator[tuple[Tensor, Tensor], None, None]  # images and labels

_GREY = (19595, 38470, 7471)  # shares of red, green and blue in 2¹⁶
_PART = 1000  # images at once
_MOST, _VALUES = 128, 2**20  # images that a network gets at once, and their values


class DataError(InputError):
    """Unusable image data: the message names the place and what is expected."""


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: int64 (N,), indices into ``classes``.
        classes: class names in label order.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as a network gets it."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images as engines take them: uint8 (N, C, H, W), a view."""
        pixels: NDArray[np.uint8] = self.images.numpy().transpose(0, 3, 1, 2)
        return pixels

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def with_channels(self, count: int) -> "ImageSet":
        """The images in grey where ``count`` is 1, as Pillow makes them (ITU-R 601); else themselves."""
        if count != 1 or self.images.shape[3] != 3:
            return self
        weights = torch.tensor(_GREY, device=self.device)
        grey = [(part.int() * weights).sum(3, keepdim=True) + 2**15 >> 16 for part in self.images.split(_PART)]
        return ImageSet(torch.cat(grey).to(torch.uint8), self.labels, self.classes)

    def subset(self, indices: Tensor) -> "ImageSet":
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def digest(self) -> str:
        """SHA-256 over classes, labels and images."""
        sha = hashlib.sha256(repr((self.classes, tuple(self.images.shape))).encode())
        for values in (self.labels, self.images):
            sha.update(values.cpu().contiguous().numpy())
        return sha.hexdigest()

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)

    def batches(self, size: int) -> Batches:
        """Images as uint8 (N, C, H, W), channels-last in memory, and labels, in order."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size].permute(0, 3, 1, 2), self.labels[start : start + size]

    def training_batches(self, order: Tensor, batch: int, generator: torch.Generator, augment: Augment) -> Batches:
        """Augmented images as uint8 (N, C, H, W) and labels, in the given order, in complete batches only.

        A batch is made when it is asked for, so that its draws from the generator come behind those that the caller
        made for the batches before.

        Args:
            order: indices, on the CPU.
            batch: N; what is left of ``order`` at the end is left out.
            generator: a CPU generator, for ``augment``.
            augment: makes training images of uint8 (N, H, W, C) and their indices.
        """
        for start in range(0, len(order) - batch + 1, batch):
            indices = order[start : start + batch]
            chosen = indices.to(self.device)
            yield augment(self.images[chosen], indices, generator), self.labels[chosen]

    def split(self, held_out: int, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(rest, held-out part), a random split decided by the seed."""
        rest, chosen = split_indices(len(self), held_out, seed)
        return self.subset(rest), self.subset(chosen)

    def sample(self, count: int, seed: int) -> "ImageSet":
        """``count`` images drawn without replacement, decided by the seed."""
        return self.subset(drawn(len(self), count, seed))


def at_once(shape: tuple[int, int, int], steps: int = 1) -> int:
    """Images (C, H, W) that a network gets at once, for so many steps: 128, or 6 of 3x224x224, so that memory holds
    the outputs of all its layers."""
    return max(1, min(_MOST, _VALUES // math.prod(shape)) // steps)


def drawn(size: int, count: int, seed: int) -> Tensor:
    """``count`` of the numbers 0 … size - 1, without replacement, decided by the seed."""
    if not 1 <= count <= size:
        raise DataError(f"samples is {count}; allowed: 1..{size}")
    if not 0 <= seed <= MAX_SEED:
        raise DataError(f"seed is {seed}; allowed: 0..{MAX_SEED}")
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]


def split_indices(count: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """(rest, held-out part) of 0 … count - 1 in random order, decided by the seed."""
    if not 1 <= held_out < count:
        raise DataError(f"validation: {held_out} images held out; allowed: 1..{count - 1}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:], order[:held_out]
