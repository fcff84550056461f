"""Random changes of training images, drawn per image and computed for a whole batch on the images' device.

Besides crop, flip and cutout there are two policies of the literature: TrivialAugment-Wide and CIFAR-10's AutoAugment.
Their operations, magnitudes and pixels are those of torchvision's classes for tensors. An operation takes images, uint8
(N, H, W, 3), and magnitudes, float64 (N,) on the CPU, one per image.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from nqlava.errors import InputError

Policy = Literal["none", "trivial", "auto"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


def augment(
    images: Tensor, generator: torch.Generator, *, pad: int = 4, cutout: int = 0, policy: str = "none"
) -> Tensor:
    """Random crop after zero padding and horizontal flip, then the policy, then cutout.

    Args:
        images: uint8 (N, H, W, C).
        generator: a CPU generator, the source of all randomness.
        pad: pixels of padding on each side.
        cutout: side of a square set to zero at a random place (it may reach over the edge); 0 for none.
        policy: ``"trivial"`` is TrivialAugment-Wide (Müller and Hutter, ICCV 2021, arXiv 2103.10158): one of 14
            operations and one of 31 magnitudes. ``"auto"`` is AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR
            2019, arXiv 1805.09501): one of 25 pairs of operations, each with its magnitude and probability. Both need
            C = 3, move by the nearest pixel, and fill with zero.

    Returns:
        uint8 (N, C, H, W), channels-last in memory.

    Raises:
        InputError: where an argument is not allowed, or a policy gets images without three channels.
    """
    count, height, width, channels = images.shape
    device = images.device
    for name, value in (("pad", pad), ("cutout", cutout)):
        if value < 0:
            raise InputError(f"{name} is {value}; allowed: numbers of at least 0")
    if policy not in POLICIES:
        raise InputError(f"policy is {policy}; allowed: {', '.join(POLICIES)}")
    if policy != "none" and channels != 3:
        raise InputError(f"images have {channels} channels; allowed: 3 with policy {policy}")

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, (count, *shape), generator=generator).to(device)

    padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
    rows = draw(2 * pad + 1, 1) + torch.arange(height, device=device)
    columns = draw(2 * pad + 1, 1) + torch.arange(width, device=device)
    columns = torch.where(draw(2, 1).bool(), columns.flip(1), columns)
    rows += (height + 2 * pad) * torch.arange(count, device=device)[:, None]
    places = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]
    out = padded.flatten(0, 2).index_select(0, places.flatten()).view_as(images)
    if policy == "trivial":
        _trivial(out, generator)
    elif policy == "auto":
        _auto(out, generator)
    if cutout:
        top, left = draw(height, 1) - cutout // 2, draw(width, 1) - cutout // 2
        y, x = torch.arange(height, device=device), torch.arange(width, device=device)
        hidden = ((y >= top) & (y < top + cutout))[:, :, None] & ((x >= left) & (x < left + cutout))[:, None, :]
        out[hidden] = 0
    return out.permute(0, 3, 1, 2)


def shear_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Rows move left by the magnitude times their distance from the top edge."""
    matrix = _unmoved(images)
    matrix[:, 0, 1] = magnitude
    matrix[:, 0, 2] = magnitude * images.shape[1] / 2
    return _warp(images, matrix)


def shear_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Columns move up by the magnitude times their distance from the left edge."""
    matrix = _unmoved(images)
    matrix[:, 1, 0] = magnitude
    matrix[:, 1, 2] = magnitude * images.shape[2] / 2
    return _warp(images, matrix)


def translate_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """To the right by the magnitude in pixels, rounded towards zero."""
    matrix = _unmoved(images)
    matrix[:, 0, 2] = -magnitude.trunc()
    return _warp(images, matrix)


def translate_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Down by the magnitude in pixels, rounded towards zero."""
    matrix = _unmoved(images)
    matrix[:, 1, 2] = -magnitude.trunc()
    return _warp(images, matrix)


def rotate(images: Tensor, magnitude: Tensor) -> Tensor:
    """Counter-clockwise around the centre by the magnitude in degrees."""
    matrix = _unmoved(images)
    angle = magnitude * (math.pi / 180)
    matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos(), -angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = angle.sin(), angle.cos()
    return _warp(images, matrix)


def brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from black (above 0) or towards it."""
    return _blend(images, torch.zeros((), device=images.device), magnitude)


def colour(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from the grey image (above 0) or towards it."""
    return _blend(images, _grey(images), magnitude)


def contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from the mean of the grey image (above 0) or towards it."""
    return _blend(images, _grey(images).float().mean((1, 2, 3), keepdim=True), magnitude)


def sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from the smoothed image (above 0) or towards it; images with a side below 3 stay as they are.

    Smooth is round((Σ of 3 × 3 pixels + 4 · the pixel in the middle) / 13), and the pixel itself at the edge.
    """
    if min(images.shape[1:3]) < 3:
        return images
    pixels = images.to(torch.int16)
    columns = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:] + 4 * pixels[:, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, 1:-1, 1:-1] = (total + 6) // 13
    return _blend(images, smooth, magnitude)


def posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Only the highest bits are kept, as many as the magnitude says."""
    return images & _each((256 - 2 ** (8 - magnitude)).to(torch.uint8), images)


def solarize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Pixels of at least the magnitude are inverted."""
    return torch.where(images >= _each(magnitude.float(), images), 255 - images, images)


def autocontrast(images: Tensor, _magnitude: Tensor) -> Tensor:
    """Each channel stretched so that its darkest pixel becomes 0 and its brightest 255."""
    darkest, brightest = (pixels.float() for pixels in torch.aminmax(images.flatten(1, 2), dim=1))
    flat = darkest == brightest
    darkest = torch.where(flat, 0.0, darkest)
    scale = torch.where(flat, 1.0, 255 / (brightest - darkest))
    return ((images - darkest[:, None, None]) * scale[:, None, None]).clamp(0, 255).to(torch.uint8)


def equalize(images: Tensor, _magnitude: Tensor) -> Tensor:
    """Each channel's histogram flattened: x becomes min(255, ⌊(pixels below x + ⌊s/2⌋) / s⌋).

    s = ⌊(pixels below the brightest value) / 255⌋; a channel with s = 0 stays as it is.
    """
    count, height, width, channels = images.shape
    first = 256 * torch.arange(count * channels, device=images.device)  # entry of the channel's value 0
    entries = (images + first.view(count, 1, 1, channels)).flatten()
    histogram = entries.bincount(minlength=256 * count * channels).view(-1, 256)
    brightest = images.amax((1, 2)).view(-1, 1).long()
    step = (height * width - histogram.gather(1, brightest)) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device)).to(torch.uint8)
    return table.flatten().index_select(0, entries).view_as(images)


def invert(images: Tensor, _magnitude: Tensor) -> Tensor:
    """255 - x."""
    return 255 - images


OPERATIONS = (
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    colour,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
    invert,
)
_SIGNED = OPERATIONS[:9]

_AUTO = (
    ((invert, 0.1, 0), (contrast, 0.2, 6)),
    ((rotate, 0.7, 2), (translate_x, 0.3, 9)),
    ((sharpness, 0.8, 1), (sharpness, 0.9, 3)),
    ((shear_y, 0.5, 8), (translate_y, 0.7, 9)),
    ((autocontrast, 0.5, 0), (equalize, 0.9, 0)),
    ((shear_y, 0.2, 7), (posterize, 0.3, 7)),
    ((colour, 0.4, 3), (brightness, 0.6, 7)),
    ((sharpness, 0.3, 9), (brightness, 0.7, 9)),
    ((equalize, 0.6, 0), (equalize, 0.5, 0)),
    ((contrast, 0.6, 7), (sharpness, 0.6, 5)),
    ((colour, 0.7, 7), (translate_x, 0.5, 8)),
    ((equalize, 0.3, 0), (autocontrast, 0.4, 0)),
    ((translate_y, 0.4, 3), (sharpness, 0.2, 6)),
    ((brightness, 0.9, 6), (colour, 0.2, 8)),
    ((solarize, 0.5, 2), (invert, 0.0, 0)),
    ((equalize, 0.2, 0), (autocontrast, 0.6, 0)),
    ((equalize, 0.2, 0), (equalize, 0.6, 0)),
    ((colour, 0.9, 9), (equalize, 0.6, 0)),
    ((autocontrast, 0.8, 0), (solarize, 0.2, 8)),
    ((brightness, 0.1, 3), (colour, 0.7, 0)),
    ((solarize, 0.4, 5), (autocontrast, 0.9, 0)),
    ((translate_y, 0.9, 9), (translate_y, 0.7, 9)),
    ((autocontrast, 0.9, 0), (solarize, 0.8, 3)),
    ((equalize, 0.8, 0), (invert, 0.1, 0)),
    ((translate_y, 0.7, 9), (autocontrast, 0.9, 0)),
)
"""Pairs of (operation, probability, bin of its magnitude); the second one acts on what the first one leaves."""


def _trivial(images: Tensor, generator: torch.Generator) -> None:
    """TrivialAugment-Wide in place."""
    count = len(images)
    bins = _bins(31, shear=0.99, right=32.0, down=32.0, angle=135.0, blend=0.99, bits=6)
    operation = torch.randint(-1, len(OPERATIONS) - 1, (count,), generator=generator)  # -1: none; without invert
    magnitude = bins[operation, torch.randint(31, (count,), generator=generator)]
    _apply(images, operation, magnitude, torch.randint(2, (count,), generator=generator).bool())


def _auto(images: Tensor, generator: torch.Generator) -> None:
    """AutoAugment's policy for CIFAR-10 in place."""
    count, height, width, _ = images.shape
    reach = 150 / 331
    bins = _bins(10, shear=0.3, right=reach * width, down=reach * height, angle=30.0, blend=0.9, bits=4)
    pair = torch.randint(len(_AUTO), (count,), generator=generator)
    chance = torch.rand((count, 2), generator=generator)
    negative = torch.randint(2, (count, 2), generator=generator).bool()
    for place in (0, 1):
        operations, probabilities, chosen = zip(*(entry[place] for entry in _AUTO), strict=True)
        operation = torch.tensor([OPERATIONS.index(function) for function in operations])[pair]
        magnitude = bins[operation, torch.tensor(chosen)[pair]]
        operation = torch.where(chance[:, place] <= torch.tensor(probabilities)[pair], operation, -1)
        _apply(images, operation, magnitude, negative[:, place])


def _bins(count: int, *, shear: float, right: float, down: float, angle: float, blend: float, bits: int) -> Tensor:
    """Magnitudes, float64 (operation, bin), from the weakest to the strongest, given here; posterize loses ``bits``."""
    strongest = (shear, shear, right, down, angle, blend, blend, blend, blend)
    rows = [torch.linspace(0, limit, count) for limit in strongest]
    rows.append(8 - (torch.arange(count) / ((count - 1) / bits)).round())
    rows.append(torch.linspace(255, 0, count))
    rows += [torch.zeros(count)] * (len(OPERATIONS) - len(rows))
    return torch.stack(rows).double()


def _apply(images: Tensor, operation: Tensor, magnitude: Tensor, negative: Tensor) -> None:
    """Change every image in place by the operation of its number (-1: none); all images of one number at once."""
    magnitude = torch.where(negative & (operation < len(_SIGNED)), -magnitude, magnitude)
    for number, function in enumerate(OPERATIONS):
        chosen = (operation == number).nonzero()[:, 0]
        if len(chosen):
            group = chosen.to(images.device)
            images.index_copy_(0, group, function(images.index_select(0, group), magnitude[chosen]))


def _each(values: Tensor, images: Tensor) -> Tensor:
    """One value per image, (N, 1, 1, 1) on the images' device."""
    return values.view(-1, 1, 1, 1).to(images.device)


def _blend(images: Tensor, other: Tensor, magnitude: Tensor) -> Tensor:
    """r · images + (1 - r) · other, r = 1 + magnitude, clipped and rounded down."""
    ratio = 1 + magnitude
    mixed = _each(ratio.float(), images) * images + _each((1 - ratio).float(), images) * other
    return mixed.clamp(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """⌊0.2989 · red + 0.587 · green + 0.114 · blue⌋, uint8 (N, H, W, 1)."""
    red, green, blue = images.split(1, dim=3)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)


def _unmoved(images: Tensor) -> Tensor:
    """The matrix of ``_warp`` that leaves every image as it is, float64 (N, 2, 3)."""
    return torch.eye(2, 3, dtype=torch.float64).repeat(len(images), 1, 1)


def _warp(images: Tensor, matrix: Tensor) -> Tensor:
    """out(x, y) = image(matrix · (x, y, 1)), the nearest pixel, or 0 outside; x and y in pixels from the centre."""
    count, height, width, _ = images.shape
    device = images.device
    x = (torch.arange(width, device=device) - (width - 1) / 2).repeat(height)
    y = (torch.arange(height, device=device) - (height - 1) / 2).repeat_interleave(width)
    points = torch.stack([x, y, torch.ones_like(x)], 1).expand(count, -1, -1)
    edge = torch.tensor([width / 2, height / 2])  # where grid_sample's coordinates are 1
    grid = points.bmm((matrix.float().transpose(1, 2) / edge).to(device)).view(count, height, width, 2)
    pixels = images.permute(0, 3, 1, 2).float()
    moved = torch.nn.functional.grid_sample(pixels, grid, mode="nearest", align_corners=False)
    return moved.permute(0, 2, 3, 1).to(torch.uint8)
