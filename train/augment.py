"""Random crop, flip and cutout of training images."""

import torch
from torch import Tensor


def augment(images: Tensor, generator: torch.Generator, *, pad: int = 4, cutout: int = 0) -> Tensor:
    """Random crop after zero padding, horizontal flip, and cutout, drawn per image; one gather for the whole batch.

    Args:
        images: uint8 (N, H, W, C).
        generator: a CPU generator.
        pad: pixels of padding on each side.
        cutout: side of a square set to zero at a random place (it may reach over the edge); 0 for none.

    Returns:
        uint8 (N, C, H, W), channels-last in memory.
    """
    count, height, width, _ = images.shape
    device = images.device

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, (count, *shape), generator=generator).to(device)

    padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
    rows = draw(2 * pad + 1, 1) + torch.arange(height, device=device)
    columns = draw(2 * pad + 1, 1) + torch.arange(width, device=device)
    columns = torch.where(draw(2, 1).bool(), columns.flip(1), columns)
    sample = torch.arange(count, device=device)[:, None, None]
    out = padded[sample, rows[:, :, None], columns[:, None, :]]
    if cutout:
        top, left = draw(height, 1) - cutout // 2, draw(width, 1) - cutout // 2
        y, x = torch.arange(height, device=device), torch.arange(width, device=device)
        hidden = ((y >= top) & (y < top + cutout))[:, :, None] & ((x >= left) & (x < left + cutout))[:, None, :]
        out[hidden] = 0
    return out.permute(0, 3, 1, 2)
