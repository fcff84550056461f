"""Crop, flip and cutout are what they say; each operation of a policy, and each policy, gives torchvision's pixels."""

import functools
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, TrivialAugmentWide
from torchvision.transforms import functional as F

import train.augment
from tests.tiny import image_set
from train.augment import POLICIES, augment
from train.data import ImageSet, load


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def sample() -> ImageSet:
    return load(["sample"], "train")


def photographs(count: int, height: int, width: int) -> Tensor:
    """Images of the sample, resized."""
    images = sample().sample(count, seed=0).images
    return F.resize(images.permute(0, 3, 1, 2), [height, width], antialias=True).permute(0, 2, 3, 1).contiguous()


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


@pytest.mark.parametrize("policy", POLICIES)
def test_augmentation_is_decided_by_the_generator_alone(policy: str) -> None:
    images = image_set(60).images
    before, state = images.clone(), torch.get_rng_state()
    first, second, other = (augment(images, seeded(s), cutout=3, policy=policy) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.sampled_from(POLICIES), st.integers(0, 3))
def test_any_size_is_kept(shape: tuple[int, int, int], policy: str, seed: int) -> None:
    count, height, width = shape
    images = torch.randint(256, (*shape, 3), generator=seeded(seed), dtype=torch.uint8)
    out = augment(images, seeded(seed), cutout=2, policy=policy)
    assert out.shape == (count, 3, height, width) and out.dtype == torch.uint8
    assert out.permute(0, 2, 3, 1).is_contiguous()


def sheared(images: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return F.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])


def moved(images: Tensor, x: float, y: float) -> Tensor:
    return F.affine(images, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])


REFERENCES: dict[str, tuple[str, Callable[[Tensor, float], Tensor]]] = {
    "shear_x": ("ShearX", lambda images, m: sheared(images, m, 0)),
    "shear_y": ("ShearY", lambda images, m: sheared(images, 0, m)),
    "translate_x": ("TranslateX", lambda images, m: moved(images, m, 0)),
    "translate_y": ("TranslateY", lambda images, m: moved(images, 0, m)),
    "rotate": ("Rotate", F.rotate),
    "brightness": ("Brightness", lambda images, m: F.adjust_brightness(images, 1 + m)),
    "colour": ("Color", lambda images, m: F.adjust_saturation(images, 1 + m)),
    "contrast": ("Contrast", lambda images, m: F.adjust_contrast(images, 1 + m)),
    "sharpness": ("Sharpness", lambda images, m: F.adjust_sharpness(images, 1 + m)),
    "posterize": ("Posterize", lambda images, m: F.posterize(images, int(m))),
    "solarize": ("Solarize", F.solarize),
    "autocontrast": ("AutoContrast", lambda images, _: F.autocontrast(images)),
    "equalize": ("Equalize", lambda images, _: F.equalize(images)),
    "invert": ("Invert", lambda images, _: F.invert(images)),
}
"""By our names: torchvision's name, and what it computes of (N, C, H, W) with one magnitude."""


def magnitudes(space: dict[str, tuple[Tensor, bool]], name: str) -> list[float]:
    """All that torchvision's policy draws for an operation."""
    values, signed = space[name]
    found = values.double().reshape(-1).tolist()
    return found + [-value for value in found] if signed else found


@pytest.mark.parametrize("size", [(32, 32), (8, 6), (64, 64), (2, 5)], ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_operations_equal_torchvisions(name: str, size: tuple[int, int]) -> None:
    """On every image with every magnitude of both policies, all in one batch."""
    images = photographs(2, *size)
    images[0, :, :, 1] = 77  # a channel of one value
    theirs, reference = REFERENCES[name]
    wide, auto = TrivialAugmentWide(), AutoAugment(AutoAugmentPolicy.CIFAR10)
    spaces = wide._augmentation_space(31), auto._augmentation_space(10, size)
    strengths = [m for space in spaces if theirs in space for m in magnitudes(space, theirs)]
    expected = torch.cat([reference(images.permute(0, 3, 1, 2), m) for m in strengths]).permute(0, 2, 3, 1)
    found = getattr(train.augment, name)(
        images.repeat(len(strengths), 1, 1, 1),
        torch.tensor(strengths, dtype=torch.float64).repeat_interleave(len(images)),
    )
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected)


class Fixed(AutoAugment):
    """Torchvision's policy for CIFAR-10 with the choices given."""

    def __init__(self, pair: int, chances: tuple[float, ...], signs: tuple[int, ...]) -> None:
        super().__init__(AutoAugmentPolicy.CIFAR10)
        self.choice = pair, torch.tensor(chances), torch.tensor(signs)

    def get_params(self, transform_num: int) -> tuple[int, Tensor, Tensor]:
        return self.choice


def trivial_outcomes(images: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(probability, result) of all that TrivialAugment-Wide may draw."""
    space = TrivialAugmentWide()._augmentation_space(31)
    yield 1 / 14, images
    for theirs, reference in REFERENCES.values():
        if theirs in space:
            strengths = magnitudes(space, theirs)
            yield from ((1 / 14 / len(strengths), reference(images, m)) for m in strengths)


def auto_outcomes(images: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(probability, result) of all that AutoAugment may draw for CIFAR-10."""
    pairs = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    choices = [(2.0, 0), (0.0, 0), (0.0, 1)]  # (chance drawn, sign): not applied, backwards, forwards
    for pair, first, second in itertools.product(range(len(pairs)), choices, choices):
        chances, signs = zip(first, second, strict=True)
        shares = [p / 2 if chance == 0 else 1 - p for chance, (_, p, _) in zip(chances, pairs[pair], strict=True)]
        yield math.prod(shares) / len(pairs), Fixed(pair, chances, signs)(images)


@pytest.mark.parametrize("outcomes", [trivial_outcomes, auto_outcomes])
def test_policies_draw_what_torchvisions_draw(outcomes: Callable[[Tensor], Iterator[tuple[float, Tensor]]]) -> None:
    """Every result is one of torchvision's for this image, as often as there (chi-squared test, seed fixed)."""
    images, count = photographs(3, 20, 16), 5000
    images = torch.cat([images, images.flip(2)], 2)  # so that flips change nothing
    policy = outcomes.__name__.removesuffix("_outcomes")
    results = augment(images.repeat(count, 1, 1, 1), seeded(0), pad=0, policy=policy)
    expected: list[Counter[bytes]] = [Counter() for _ in images]
    for probability, batch in outcomes(images.permute(0, 3, 1, 2)):
        for outcome, image in zip(expected, batch, strict=True):
            outcome[image.numpy().tobytes()] += count * probability
    for outcome, same in zip(expected, results.unflatten(0, (count, len(images))).unbind(1), strict=True):
        found = Counter(image.numpy().tobytes() for image in same)
        possible = {key: often for key, often in outcome.items() if often > 0}
        assert found.keys() <= possible.keys()
        distance = sum((found[key] - often) ** 2 / often for key, often in possible.items())
        assert distance < len(possible) + 5 * (2 * len(possible)) ** 0.5


def test_pairs_of_auto_are_torchvisions() -> None:
    ours = [[(REFERENCES[f.__name__][0], chance, place) for f, chance, place in pair] for pair in train.augment._AUTO]
    policies = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    assert ours == [[(name, chance, place or 0) for name, chance, place in pair] for pair in policies]


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
        ({"policy": "random"}, "policy is random; allowed: none, trivial, auto"),
        ({"policy": "auto"}, "images have 1 channels; allowed: 3 with policy auto"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    images = torch.zeros(2, 8, 6, 1, dtype=torch.uint8)
    with pytest.raises(ValueError) as caught:
        augment(images, seeded(0), **options)
    assert str(caught.value) == message
