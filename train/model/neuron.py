"""The integrate-and-fire neuron in floating point."""

import torch
from torch import Tensor

from train.choices import Reset


def integrate_and_fire(current: Tensor, threshold: Tensor, initial: Tensor, reset: Reset) -> Tensor:
    """v(0) = initial·θ; v ← v + z(t); spike iff v ≥ θ; at a spike v ← v − θ (soft reset) or v ← 0 (hard reset).

    Args:
        current: z, float32 or float64 (T, B, ...).
        threshold: θ, a scalar or one per channel (C,).
        initial: v(0) / θ, a scalar or one per channel (C,).
        reset: see above.

    Returns:
        θ·spikes, of the shape of ``current``.
    """
    steps, batch, *shape = current.shape
    layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format
    flat = torch.empty((steps * batch, *shape), dtype=current.dtype, device=current.device, memory_format=layout)
    output = flat.unflatten(0, (steps, batch))
    threshold, start = (
        value.view(-1, *[1] * (len(shape) - 1)) if value.dim() else value for value in (threshold, threshold * initial)
    )
    membrane = start.expand_as(current[0]).clone(memory_format=layout)
    for fired, z in zip(output, current, strict=True):
        membrane += z
        torch.ge(membrane, threshold, out=fired)
        if reset == "hard":
            membrane *= 1 - fired
        fired *= threshold
        if reset == "soft":
            membrane -= fired
    return output
