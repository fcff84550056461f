"""Calibration images as users have them: image sets, arrays, lists of batches, and DataLoaders."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from export.fold.folded import ExportError
from train.data.image_set import ImageSet

_MOST = 500
"""Images that are taken from batches."""

Images: TypeAlias = ImageSet | np.ndarray | Tensor | Iterable[Any]


@dataclass(frozen=True)
class Given:
    """Images as uint8, and what is known of them.

    Attributes:
        images: with labels where they have some.
        labels: whether they have. classes: whether these have names.
        mean, std: of the normalisation that the model wants; None where it takes uint8.
    """

    images: ImageSet
    labels: bool
    classes: bool
    mean: Sequence[float] | None
    std: Sequence[float] | None


def image_set(images: Images, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Given:
    """Images as uint8, with the labels that they have.

    Args:
        images: an ImageSet; or uint8 (N, C, H, W); or batches, such as a DataLoader or a list of them, each images or
            images and labels, of which the first 500 images are taken. Images in floating point are from 0 to 1, or
            normalised by ``mean`` and ``std``, and become uint8 again.
        mean, std: per channel; without them those of a Normalize in the transform of a DataLoader's data set.

    Raises:
        ExportError: no images, or others than these.
    """
    if (mean is None) != (std is None):
        raise ExportError("mean and std: one is missing; allowed: both or none")
    if isinstance(images, ImageSet):
        return Given(images, True, True, mean, std)
    found = _normalisation(getattr(getattr(images, "dataset", None), "transform", None)) if mean is None else None
    mean, std = found or (mean, std)
    batches = [images] if isinstance(images, np.ndarray | Tensor) else images
    parts: list[Tensor] = []
    in_floats = False
    labels: list[Tensor] = []
    count = 0
    for batch in batches:
        part, *rest = batch if isinstance(batch, tuple | list) else [batch]
        given = torch.as_tensor(part)
        in_floats |= given.is_floating_point()
        parts.append(_bytes(given, mean, std))
        if rest:
            labels.append(torch.as_tensor(rest[0]).long().reshape(-1))
        count += len(parts[-1])
        if count >= _MOST and batches is images:
            break
    if not count:
        raise ExportError("images: there are none; allowed: some hundred, for calibration")
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ExportError(f"images: are of the shapes {shapes}; allowed: one")
    if mean is None and in_floats:  # the model takes x/255
        mean, std = [0.0] * shapes[0][0], [1.0] * shapes[0][0]
    joined = torch.cat(parts).permute(0, 2, 3, 1).contiguous()
    has_labels = sum(map(len, labels)) == count
    known = torch.cat(labels) if has_labels else torch.zeros(count, dtype=torch.long)
    most = _MOST if batches is images else count
    return Given(ImageSet(joined[:most], known[:most], ()), has_labels, False, mean, std)


def _bytes(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """uint8 (n, C, H, W)."""
    if images.dim() == 3:
        images = images[None]
    if images.dim() != 4 or not len(images):
        raise ExportError(f"images: are of the shape {tuple(images.shape)}; allowed: (N, C, H, W)")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ExportError(f"images: are {images.dtype}; allowed: uint8, or floats from 0 to 1")
    if mean is not None and std is not None:
        shift, width = (torch.tensor(v, dtype=images.dtype).view(-1, 1, 1) for v in (mean, std))
        if len(shift) not in (1, images.shape[1]):
            raise ExportError(f"mean: has {len(shift)} values; allowed: {images.shape[1]}, one per channel")
        images = images * width + shift
    levels = images * 255
    if not (levels.min() > -1 and levels.max() < 256):
        raise ExportError(
            f"images: are from {float(images.min()):.3g} to {float(images.max()):.3g}; allowed: uint8, from 0 to 1, or "
            "normalised by the given mean and std"
        )
    return levels.round().clamp(0, 255).to(torch.uint8)


def _normalisation(transform: Any) -> tuple[list[float], list[float]] | None:
    """Mean and std of the Normalize in a torchvision transform."""
    for one in getattr(transform, "transforms", [transform]):
        if type(one).__name__ == "Normalize" and hasattr(one, "mean") and hasattr(one, "std"):
            return [float(v) for v in one.mean], [float(v) for v in one.std]
    return None
