"""Calibration: the noise of NQ from the conversion error of each layer, and thresholds of plain ReLU networks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nqlava.errors import InputError
from train.data.image_set import at_once
from train.data.stream import Images
from train.model.activation import RateReLU
from train.model.models import Network
from train.model.snn import neurons, simulate


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
    network: nn.Module,
    data: Images,
    steps: int,
    *,
    batch: int | None = None,
    precision: torch.dtype = torch.float32,
    observe: Callable[[int, Tensor, Tensor], None] | None = None,
    observe_scores: Callable[[Tensor, Tensor], None] | None = None,
) -> Evaluation:
    """Run data once through the ANN and once through the T-step SNN (Huang et al., arXiv 2404.17456, noise induction).

    Args:
        network: left in the mode it was in.
        data: on the network's device.
        steps: T, the noise induction time step.
        batch: images at a time; by default as many as train.data.image_set.at_once says.
        precision: of the convolutions; membrane potentials are float32.
        observe: called for every activation and batch with its index, the ANN's output and the SNN's mean output
            θ·(spike count)/T, both (B, ...) in the unit of z.
        observe_scores: called for every batch with the class scores of the ANN, (B, K), and those of the SNN after
            1 .. T steps, (T, B, K).
    """
    batch = batch or at_once(data.shape, steps)
    training = network.training
    network.eval()
    variances: list[list[float]] = [[] for _ in neurons(network)]
    ann = torch.zeros((), dtype=torch.long)
    snn = torch.zeros(steps, dtype=torch.long)
    device_type = data.device.type
    try:
        for images, labels in data.batches(batch):
            with torch.autocast(device_type, torch.bfloat16, enabled=precision == torch.bfloat16):
                scores, outputs = _activations(network, images)

                def compare(index: int, rate: Tensor, outputs: list[list[Tensor]] = outputs) -> None:
                    output = outputs[index].pop(0).float()
                    variances[index].append(float((output - rate).var()))
                    if observe is not None:
                        observe(index, output, rate)

                over_time = simulate(network, images, steps, compare)
            if observe_scores is not None:
                observe_scores(scores, over_time)
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


def _activations(network: nn.Module, images: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Class scores, and per activation what it puts out, once for every time that it is used."""
    found = neurons(network)
    outputs: list[list[Tensor]] = [[] for _ in found]
    hooks = [
        neuron.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        for neuron, kept in zip(found, outputs, strict=True)
    ]
    try:
        return network(images), outputs
    finally:
        for hook in hooks:
            hook.remove()


def set_noise(network: Network, sigma: tuple[float, ...], factor: float = 1.0) -> None:
    """Store factor·σ_l in every NQ layer."""
    for layer, value in zip(network.activations, sigma, strict=True):
        layer.sigma.fill_(factor * value)


@torch.no_grad()
def accuracy(network: nn.Module, data: Images, *, precision: torch.dtype = torch.float32) -> float:
    """Percent of images that the network, in evaluation mode but not as an SNN, classifies correctly."""
    training = network.training
    network.eval()
    correct = 0
    try:
        for images, labels in data.batches(at_once(data.shape)):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
                correct += int((network(images).argmax(1) == labels).sum())
    finally:
        network.train(training)
    return 100 * correct / len(data)


def _require_separate(network: nn.Module, images: Tensor) -> None:
    """InputError where one activation is used several times: values for one place would be taken from another."""
    for index, outputs in enumerate(_activations(network, images[:1])[1]):
        if len(outputs) > 1:
            raise InputError(
                f"activation {index}: is used {len(outputs)} times; allowed: once, with a module of its own in every "
                "place (export.fold.prepare.prepare makes such a network)"
            )


@torch.no_grad()
def calibrate_potentials(network: nn.Module, images: Tensor, steps: int, rounds: int = 2) -> None:
    """v(0) of every channel of every layer of neurons, so that on average spikes carry what the activation did.

    Layer by layer, from the input on, several times over:

        v_c(0) ← clip(v_c(0) + T · (mean(a_c) − mean(θ·s_c)), 0, θ)

    with the means over images, positions and, of the spikes, the steps. Where input spikes come late or cancel each
    other over the steps, a neuron fires too little, and starts nearer to θ. It costs nothing in the deployed network.

    Args:
        network: in evaluation mode; its activations were added to it in the order in which they act.
        images: for calibration, (B, C, H, W), what the network takes.
        steps: T.
        rounds: times that every layer is visited.

    Raises:
        InputError: an activation that is used several times.
    """
    _require_separate(network, images)
    found = neurons(network)
    parts = images.split(max(1, 512 // steps))
    targets = [torch.zeros(()) for _ in found]
    for part in parts:
        for index, outputs in enumerate(_activations(network, part)[1]):
            targets[index] = targets[index] + _channel_sums(outputs[0]) / len(images)
    for index, neuron in list(enumerate(found)) * rounds:
        carried = torch.zeros(())

        def observe(layer: int, rate: Tensor, index: int = index) -> None:
            nonlocal carried
            if layer == index:
                carried = carried + _channel_sums(rate) / len(images)

        for part in parts:
            simulate(network, part, steps, observe)
        missing = (targets[index] - carried) * steps / neuron.threshold
        neuron.initial = (neuron.initial + missing).clamp(0, 1)


def _channel_sums(values: Tensor) -> Tensor:
    """Means over the positions, summed over the samples, per channel: (B, C, ...) to (C,)."""
    return values.float().flatten(2).mean(2).sum(0) if values.dim() > 2 else values.float().sum(0)


@torch.no_grad()
def balance_thresholds(network: nn.Module, images: Tensor, steps: int, factor: float = 1.0) -> None:
    """θ of every RateReLU, layer by layer: factor · the largest current seen while the layers before already spike.

    The threshold balancing of RMP-SNN (Han et al., CVPR 2020, section 4): θ_l = α · max over images, neurons and steps.

    Args:
        network: in evaluation mode; its activations were added to it in the order in which they act.
        images: for calibration, (B, C, H, W), what the network takes.
        steps: T.
        factor: α; below 1 it trades accuracy at many steps for accuracy at few.

    Raises:
        InputError: a layer that receives no positive current, or an activation that is used several times.
    """
    _require_separate(network, images)
    largest = 0.0

    def observe(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal largest
        largest = max(largest, float(inputs[0].max()))

    for index, neuron in enumerate(neurons(network)):
        if not isinstance(neuron, RateReLU):
            continue
        largest = 0.0
        hook = neuron.register_forward_pre_hook(observe)
        try:
            for part in images.split(max(1, 2048 // steps)):
                simulate(network, part, steps)
        finally:
            hook.remove()
        if not largest > 0:
            raise InputError(f"activation {index}: the largest current is {largest}; allowed: positive numbers")
        neuron.threshold.fill_(factor * largest)
