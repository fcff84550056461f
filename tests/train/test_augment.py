"""Crop, flip and cutout are what they say, and stay what they were."""

import functools
import hashlib
import itertools

import numpy as np
import pytest
import torch

from tests.tiny import image_set
from train.augment import augment
from train.data import ImageSet, load


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def sample() -> ImageSet:
    return load(["sample"], "train")


@pytest.mark.parametrize("pad", [0, 2])
def test_augmented_images_are_crops_or_their_mirror_images(pad: int) -> None:
    images = image_set(40).images
    out = augment(images, seeded(0), pad=pad).numpy()
    assert out.shape == (40, 3, 8, 6) and out.dtype == np.uint8
    found = set()
    for image, result in zip(images.numpy(), out.transpose(0, 2, 3, 1), strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        for y, x, mirror in itertools.product(range(2 * pad + 1), range(2 * pad + 1), (1, -1)):
            if np.array_equal(padded[y : y + 8, x : x + 6][:, ::mirror], result):
                found.add((y, x, mirror))
                break
        else:
            pytest.fail("neither a crop nor its mirror image")
    assert len({mirror for _, _, mirror in found}) == 2
    if pad:
        assert len({y for y, _, _ in found}) == len({x for _, x, _ in found}) == 5


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_blackens_one_square(side: int) -> None:
    images = torch.full((200, 8, 6, 3), 255, dtype=torch.uint8)
    out = augment(images, seeded(0), pad=0, cutout=side)
    areas = set()
    for image in out.numpy():
        hidden = (image == 0).all(0)
        assert ((image == 0).any(0) == hidden).all()
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        assert hidden.sum() == len(rows) * len(columns) <= side**2
        assert np.ptp(rows) == len(rows) - 1 < side and np.ptp(columns) == len(columns) - 1 < side
        areas.add(int(hidden.sum()))
    assert max(areas) == side**2


@pytest.mark.parametrize(
    ("pad", "cutout", "seed", "digest", "following"),
    [
        (4, 0, 0, "5ed6cd2b47627017", 279849899689),
        (4, 8, 1, "320ab17323a2aa09", 253730214780),
        (0, 5, 2, "31d675fc3cb163ec", 751415934705),
        (2, 40, 3, "31f511c150d5d6c4", 561745896463),
    ],
)
def test_recorded_augmentation(pad: int, cutout: int, seed: int, digest: str, following: int) -> None:
    """The pixels, and the number that the generator gives next, stay what they were: trainings repeat."""
    generator = seeded(seed)
    out = augment(sample().images[:256], generator, pad=pad, cutout=cutout).permute(0, 2, 3, 1)
    assert out.is_contiguous()
    assert hashlib.sha256(out.numpy()).hexdigest()[:16] == digest
    assert int(torch.randint(2**40, (1,), generator=generator)) == following


def test_augmentation_is_decided_by_the_generator() -> None:
    images = image_set(6).images
    first, second, other = (augment(images, seeded(s), cutout=3) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
