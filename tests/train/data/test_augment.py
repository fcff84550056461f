"""Crop, flip and cutout are what they say; the policies are torchvision's, decided by the generator alone."""

import functools
import hashlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from tests.tiny import image_set
from train.choices import POLICIES, Policy
from train.data.augment import alternating, augment
from train.data.image_set import ImageSet
from train.data.images import load

AUTO = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


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


def test_a_reflected_border_is_that_of_numpy() -> None:
    """NumPy's "reflect": the outermost pixel is not repeated."""
    images = image_set(40).images
    out = augment(images, seeded(0), pad=5, border="reflect", mirrored=torch.zeros(40, dtype=torch.bool)).numpy()
    zeros = augment(images, seeded(0), pad=5, mirrored=torch.zeros(40, dtype=torch.bool)).numpy()
    for image, result, other in zip(images.numpy(), out, zeros, strict=True):
        padded = np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="reflect").transpose(2, 0, 1)
        blank = np.pad(image, ((5, 5), (5, 5), (0, 0))).transpose(2, 0, 1)
        places = [
            (y, x)
            for y, x in itertools.product(range(11), range(11))
            if np.array_equal(padded[:, y : y + 8, x : x + 6], result)
        ]
        assert any(np.array_equal(blank[:, y : y + 8, x : x + 6], other) for y, x in places), "the same shift"


def test_the_images_named_are_mirrored() -> None:
    images = image_set(30).images
    mirrored = torch.arange(30) % 3 == 0
    out = augment(images, seeded(0), pad=0, mirrored=mirrored).permute(0, 2, 3, 1)
    assert torch.equal(out[mirrored], images[mirrored].flip(2)) and torch.equal(out[~mirrored], images[~mirrored])


def test_alternating_mirrors_each_image_in_every_other_epoch() -> None:
    flips = torch.stack([alternating(400, 7, epoch) for epoch in range(5)])
    assert (flips[1:] != flips[:-1]).all() and torch.equal(flips[0], flips[4])
    assert 150 < int(flips[0].sum()) < 250
    assert not torch.equal(flips[0], alternating(400, 8, 0))


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


@pytest.mark.parametrize("policy", POLICIES)
def test_augmentation_is_decided_by_the_generator_alone(policy: Policy) -> None:
    images = image_set(60).images
    before, state = images.clone(), torch.get_rng_state()
    first, second, other = (augment(images, seeded(s), cutout=3, policy=policy) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.sampled_from(POLICIES), st.integers(0, 3))
def test_any_size_is_kept(shape: tuple[int, int, int], policy: Policy, seed: int) -> None:
    count, height, width = shape
    images = torch.randint(256, (*shape, 3), generator=seeded(seed), dtype=torch.uint8)
    out = augment(images, seeded(seed), cutout=2, policy=policy)
    assert out.shape == (count, 3, height, width) and out.dtype == torch.uint8
    assert out.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize(("policy", "reference"), [("trivial", v2.TrivialAugmentWide()), ("auto", AUTO)])
def test_policies_are_torchvisions(policy: Policy, reference: Callable[[Tensor], Tensor]) -> None:
    """With the global generator seeded by the next draw of ours, after those of crop and flip."""
    images = sample().images[:60]
    generator = seeded(5)
    expected = augment(images, generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.stack([reference(image) for image in expected])
    found = augment(images, seeded(5), policy=policy)
    assert torch.equal(found, expected) and not torch.equal(found, augment(images, seeded(5)))


def test_cutout_comes_last() -> None:
    images = torch.full((100, 8, 6, 3), 255, dtype=torch.uint8)
    for policy in POLICIES:
        whole, cut = (augment(images, seeded(0), cutout=side, policy=policy) for side in (0, 4))
        changed = (whole != cut).any(1)
        assert changed.sum((1, 2)).max() == 16 and not cut.permute(0, 2, 3, 1)[changed].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutout": -1}, "cutout is -1; allowed: numbers of at least 0"),
        ({"pad": -2}, "pad is -2; allowed: numbers of at least 0"),
        ({"pad": 6, "border": "reflect"}, "pad is 6; allowed with border reflect: less than 6, the image's side"),
        ({"policy": "random"}, "policy is random; allowed: none, trivial, auto"),
        ({"policy": "auto"}, "images have 1 channels; allowed: 3 with policy auto"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    images = torch.zeros(2, 8, 6, 1, dtype=torch.uint8)
    with pytest.raises(ValueError) as caught:
        augment(images, seeded(0), **options)
    assert str(caught.value) == message
