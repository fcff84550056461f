"""Random pictures of several sizes."""

import numpy as np
from PIL import Image

SIZES = ((40, 30), (31, 64), (20, 20), (90, 33))


def picture(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).convert(mode)
