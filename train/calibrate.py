"""Noise induction: the standard deviation of each layer's conversion error becomes the noise of the next epoch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.data import ImageSet
from train.models import Network
from train.snn import neurons, simulate


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent on one image set, and the gap between ANN and SNN per activation.

    Attributes:
        ann: accuracy of the noise-free quantized network.
        snn: accuracy of the SNN after 1 .. T steps.
        sigma: σ_l = √(mean over batches of var(gap_l)), gap_l = ANN output − θ·rate over T steps, in the unit of z.
            With T = L it is 0 (but for rounding) in the first layer, whose current is constant: there the rate over L
            steps is the quantized activation.
    """

    ann: float
    snn: tuple[float, ...]
    sigma: tuple[float, ...]


@torch.no_grad()
def evaluate(
    network: nn.Module, data: ImageSet, steps: int, *, batch: int | None = None, precision: torch.dtype = torch.float32
) -> Evaluation:
    """Run data once through the ANN and once through the T-step SNN (Huang et al., arXiv 2404.17456, noise induction).

    Args:
        network: left in the mode it was in.
        data: on the network's device.
        steps: T, the noise induction time step.
        batch: images at a time; by default as many as keep steps · batch at 128.
        precision: of the convolutions; membrane potentials are float32.
    """
    batch = batch or max(1, 128 // steps)
    training = network.training
    network.eval()
    variances: list[list[float]] = [[] for _ in neurons(network)]
    ann = torch.zeros((), dtype=torch.long)
    snn = torch.zeros(steps, dtype=torch.long)
    device_type = data.images.device.type
    try:
        for images, labels in data.batches(batch):
            with torch.autocast(device_type, torch.bfloat16, enabled=precision == torch.bfloat16):
                scores, outputs = _activations(network, images)

                def observe(index: int, rate: Tensor, outputs: list[Tensor] = outputs) -> None:
                    variances[index].append(float((outputs[index].float() - rate).var()))

                over_time = simulate(network, images, steps, observe)
            ann += (scores.argmax(1) == labels).sum().cpu()
            snn += (over_time.argmax(2) == labels).sum(1).cpu()
    finally:
        network.train(training)
    percent = 100 / len(data)
    return Evaluation(
        ann=float(ann) * percent,
        snn=tuple((snn * percent).tolist()),
        sigma=tuple((sum(v) / len(v)) ** 0.5 for v in variances),
    )


def _activations(network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Class scores and the outputs of the activations, in order."""
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: outputs.append(out)) for layer in neurons(network)]
    try:
        return network(images), outputs
    finally:
        for hook in hooks:
            hook.remove()


def set_noise(network: Network, sigma: tuple[float, ...], factor: float = 1.0) -> None:
    """Store factor·σ_l in every NQ layer."""
    for layer, value in zip(network.activations, sigma, strict=True):
        layer.sigma.fill_(factor * value)
