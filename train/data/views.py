"""Square views of images of any size: the middle for evaluation, a random part for training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data.image_set import DataError
from train.data.pixels import decoding, opened_image, rgb, swaps_sides

MAX_PIXELS = 2**26
STREAMED = 224
"""Side of the images on which train.imagenet trains."""
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]


def view(file: Path, size: int, random: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """RGB uint8 (size, size, 3): the middle of an image, or, given a generator, a random crop of it, maybe mirrored.

    Raises:
        DataError: the file is no image, or a damaged or too large one.
    """

    def box(width: int, height: int) -> Box:
        return _middle(width, height, size) if random is None else _crop(width, height, random)

    made = _cut(file, str(file), (size, size), box)
    if random is not None and random.random() < 0.5:
        made = made.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(made)


def fitted(file: Path | IO[bytes], height: int, width: int, name: str | None = None) -> NDArray[np.uint8]:
    """RGB uint8 (height, width, 3) of an image of any size, for a network of this input; errors as of ``view``.

    An image of just this size stays as it is. Of others a square is the middle that ``view`` gives; any other size is
    the largest part in the middle with this ratio of sides, resized.

    Args:
        file: the image. name: of it, in messages.
        height, width: of what the network takes.
    """

    def box(wide: int, high: int) -> Box:
        if (high, wide) == (height, width):
            return 0, 0, wide, high
        if height == width:
            return _middle(wide, high, height)
        scale = min(wide / width, high / height)
        left, top = (wide - scale * width) / 2, (high - scale * height) / 2
        return left, top, left + scale * width, top + scale * height

    return np.asarray(_cut(file, str(file) if name is None else name, (width, height), box))


def _cut(file: Path | IO[bytes], name: str, size: tuple[int, int], box: Callable[[int, int], Box]) -> Image.Image:
    """The part of an image that ``box`` gives for its width and height, resized to (width, height), in mode RGB."""
    with opened_image(file, name) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"data: {name} is {image.size}; allowed: up to {MAX_PIXELS} pixels")
        with decoding(name):
            swapped = swaps_sides(image)
            stored = image.size
            width, height = stored[::-1] if swapped else stored
            left, top, right, bottom = box(width, height)
            # A JPEG decodes at 1/2, 1/4 or 1/8 of its size where that leaves the box no smaller than what comes out.
            least = (math.ceil(width * size[0] / (right - left)), math.ceil(height * size[1] / (bottom - top)))
            drafted = image.draft(None, least[::-1] if swapped else least)
            scale = drafted[1][2] / stored[0] if drafted else 1.0
            part = (left * scale, top * scale, right * scale, bottom * scale)
            return rgb(image, name).resize(size, Image.Resampling.BILINEAR, box=part)


def _middle(width: int, height: int, size: int) -> Box:
    """Left, top, right, bottom of what a resize of the shorter side to 256/224 of ``size`` and a central crop leave.

    The numbers are those of torchvision's Resize and CenterCrop.
    """
    shorter = round(size * 256 / 224)
    resized = [int(shorter * side / min(width, height)) for side in (width, height)]
    left, top = (round((side - size) / 2) for side in resized)
    return (
        left * width / resized[0],
        top * height / resized[1],
        (left + size) * width / resized[0],
        (top + size) * height / resized[1],
    )


def _crop(width: int, height: int, random: np.random.Generator) -> Box:
    """Left, top, right, bottom of a random part, drawn as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = width * height * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(random.integers(width - wide, endpoint=True))
            top = int(random.integers(height - high, endpoint=True))
            return left, top, left + wide, top + high
    wide, high = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high
