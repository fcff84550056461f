"""The float SNN reference: the trained network with an IF neuron with soft reset in place of every NQ layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from train.activation import NQ
from train.models import Network


@torch.no_grad()
def simulate(
    network: Network, images: Tensor, steps: int, observe: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Class scores of the SNN after each of T steps.

    Layers run one after the other over all steps, which is the same as step by step, since nothing feeds back. The
    image is a constant current.

    Args:
        network: in evaluation mode.
        images: uint8 (B, C, H, W).
        steps: T.
        observe: called for every NQ layer with its index and its mean output θ·(spike count)/T, (B, ...).

    Returns:
        Mean of the classifier's output over steps 1 .. t, (T, B, K) for t = 1 .. T.
    """
    x, constant, index = images, True, 0
    batch = images.shape[0]
    for layer in network.layers:
        if not isinstance(layer, NQ):
            x = layer(x)
            continue
        current = x.float().expand(steps, *x.shape) if constant else x.float().view(steps, batch, *x.shape[1:])
        x = _integrate_and_fire(current, layer.threshold)
        if observe is not None:
            observe(index, x.mean(0))
        x = x.flatten(0, 1)
        constant = False
        index += 1
    scores = x.float().expand(steps, *x.shape) if constant else x.float().view(steps, batch, -1)
    counts = torch.arange(1, steps + 1, device=scores.device).view(-1, 1, 1)
    return scores.cumsum(0) / counts


def _integrate_and_fire(current: Tensor, threshold: Tensor) -> Tensor:
    """v(0) = θ/2; v ← v + z(t); spike iff v ≥ θ; v ← v − θ on a spike. Returns θ·spikes, (T, B, ...) like current."""
    steps, batch, *shape = current.shape
    layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format
    flat = torch.empty((steps * batch, *shape), dtype=current.dtype, device=current.device, memory_format=layout)
    output = flat.unflatten(0, (steps, batch))
    membrane = (threshold / 2).expand_as(current[0]).clone(memory_format=layout)
    for fired, z in zip(output, current, strict=True):
        membrane += z
        torch.ge(membrane, threshold, out=fired)
        fired *= threshold
        membrane -= fired
    return output
