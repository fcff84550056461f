"""Thresholds and initial potentials of a trained ReLU network, from images and without training."""

import torch
from torch import Tensor, nn

from export.fold.activations import CappedReLU
from export.fold.prepare import activations
from train.model.activation import NQ, Neuron

_SHARE = 0.999  # of the values of an activation that its threshold is at least
_IMAGES = 32  # at once
_SAMPLE = 2**16  # values of an activation kept of each part


@torch.no_grad()
def set_thresholds(model: nn.Module, images: Tensor) -> None:
    """θ of every ReLU is the 99.9 % quantile of its outputs, at most its cap, and v(0) = θ/2.

    A spike stands for θ and comes at most once a step, so that larger outputs are cut; smaller thresholds would cut
    more of them, larger ones would make the rates of most neurons coarse. NQ keeps its own.

    Args:
        model: of ``export.fold.prepare.prepare``.
        images: uint8 (N, C, H, W).
    """
    outputs: dict[Neuron, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)

    def keep(module: Neuron, _inputs: tuple[Tensor], output: Tensor) -> None:
        flat = output.flatten()
        if len(flat) > _SAMPLE:
            flat = flat[torch.randint(len(flat), (_SAMPLE,), generator=generator)]
        outputs.setdefault(module, []).append(flat.float())

    found = [neuron for neuron in activations(model) if not isinstance(neuron, NQ)]
    hooks = [neuron.register_forward_hook(keep) for neuron in found]
    try:
        for part in images.split(_IMAGES):
            model(part)
    finally:
        for hook in hooks:
            hook.remove()
    for neuron, kept in outputs.items():
        values = torch.cat(kept).sort().values
        largest = float(values[min(len(values) - 1, int(_SHARE * len(values)))])
        if not largest > 0:
            largest = float(values[-1]) if values[-1] > 0 else 1.0
        neuron.threshold.fill_(min(largest, neuron.cap) if isinstance(neuron, CappedReLU) else largest)
        neuron.initial.fill_(0.5)
