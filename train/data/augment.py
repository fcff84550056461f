"""Random changes of training images, drawn per image.

Crop, flip and cutout are computed for whole batches on the images' device; torchvision's policies change one image
after the other on the CPU.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from nqlava.errors import InputError

Policy = Literal["none", "trivial", "auto"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


def augment(
    images: Tensor, generator: torch.Generator, *, pad: int = 4, cutout: int = 0, policy: Policy = "none"
) -> Tensor:
    """Random crop after zero padding and horizontal flip, then the policy, then cutout.

    Args:
        images: uint8 (N, H, W, C).
        generator: a CPU generator, the source of all randomness.
        pad: pixels of padding on each side.
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
    if policy != "none":
        out = _changed(out, policy, generator)
    if cutout:
        top, left = draw(height, 1) - cutout // 2, draw(width, 1) - cutout // 2
        y, x = torch.arange(height, device=device), torch.arange(width, device=device)
        hidden = ((y >= top) & (y < top + cutout))[:, :, None] & ((x >= left) & (x < left + cutout))[:, None, :]
        out[hidden] = 0
    return out.permute(0, 3, 1, 2)


def _changed(images: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """The images, uint8 (N, H, W, 3), each changed by the policy."""
    from torchvision.transforms import v2  # takes a while to import

    change = v2.TrivialAugmentWide() if policy == "trivial" else v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator of the CPU
        torch.default_generator.manual_seed(seed)
        changed = [change(image) for image in images.permute(0, 3, 1, 2).cpu()]
    return torch.stack(changed).permute(0, 2, 3, 1).contiguous().to(images.device)
