"""Random changes of training images, drawn per image.

Crop, flip and cutout are computed for whole batches on the images' device; torchvision's policies change one image
after the other on the CPU.
"""

import torch
from torch import Tensor

from nqlava.errors import InputError
from train.choices import POLICIES, Border, Policy


def augment(
    images: Tensor,
    generator: torch.Generator,
    *,
    pad: int = 4,
    border: Border = "zero",
    mirrored: Tensor | None = None,
    cutout: int = 0,
    policy: Policy = "none",
) -> Tensor:
    """Random crop after padding and horizontal flip, then the policy, then cutout.

    Args:
        images: uint8 (N, H, W, C).
        generator: a CPU generator, the source of all randomness.
        pad: pixels of padding on each side.
        border: padding with zeros, or with the image reflected at its outermost pixels.
        mirrored: bool (N,), which images to flip; None for a random half.
        cutout: side of a square set to zero at a random place (it may reach over the edge); 0 for none.
        policy: ``"trivial"`` is torchvision's TrivialAugmentWide (Müller and Hutter, ICCV 2021, arXiv 2103.10158),
            ``"auto"`` its AutoAugment for CIFAR-10 (Cubuk et al., CVPR 2019, arXiv 1805.09501). Both need C = 3, move
            by the nearest pixel, and fill with zero.

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
    if border == "reflect" and pad >= min(height, width):
        raise InputError(f"pad is {pad}; allowed with border reflect: less than {min(height, width)}, the image's side")
    if policy not in POLICIES:
        raise InputError(f"policy is {policy}; allowed: {', '.join(POLICIES)}")
    if policy != "none" and channels != 3:
        raise InputError(f"images have {channels} channels; allowed: 3 with policy {policy}")

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, (count, *shape), generator=generator).to(device)

    rows = draw(2 * pad + 1, 1) + torch.arange(height, device=device)
    columns = draw(2 * pad + 1, 1) + torch.arange(width, device=device)
    flipped = draw(2, 1).bool() if mirrored is None else mirrored.view(-1, 1).to(device)
    columns = torch.where(flipped, columns.flip(1), columns)
    if border == "reflect":
        rows, columns = _reflected(rows - pad, height), _reflected(columns - pad, width)
        padded = images
    else:
        padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
    rows += padded.shape[1] * torch.arange(count, device=device)[:, None]
    places = rows[:, :, None] * padded.shape[2] + columns[:, None, :]
    out = padded.flatten(0, 2).index_select(0, places.flatten()).view_as(images)
    if policy != "none":
        out = _changed(out, policy, generator)
    if cutout:
        top, left = draw(height, 1) - cutout // 2, draw(width, 1) - cutout // 2
        y, x = torch.arange(height, device=device), torch.arange(width, device=device)
        hidden = ((y >= top) & (y < top + cutout))[:, :, None] & ((x >= left) & (x < left + cutout))[:, None, :]
        out[hidden] = 0
    return out.permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places from 1 − size to 2·size − 2, those outside 0 … size − 1 reflected at the outermost pixels."""
    return (size - 1) - ((size - 1) - places.abs()).abs()


def alternating(count: int, seed: int, epoch: int) -> Tensor:
    """Which images are mirrored in an epoch, bool (count,): each one in every other epoch (Jordan, arXiv 2404.00498).

    Half of them, drawn by the seed, begin with it. So in two epochs the network sees every image from both sides.
    """
    first = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed)).bool()
    return first ^ bool(epoch % 2)


def _changed(images: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """The images, uint8 (N, H, W, 3), each changed by the policy."""
    from torchvision.transforms import v2  # takes a while to import

    change = v2.TrivialAugmentWide() if policy == "trivial" else v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator of the CPU
        torch.default_generator.manual_seed(seed)
        changed = [change(image) for image in images.permute(0, 3, 1, 2).cpu()]
    return torch.stack(changed).permute(0, 2, 3, 1).contiguous().to(images.device)
