"""The float SNN reference: the trained network with IF neurons in place of every activation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from train.model.activation import Neuron
from train.model.models import Normalize


def neurons(module: nn.Module) -> list[Neuron]:
    """The activations of a network that become IF neurons, in the order in which they were added to it."""
    return [m for m in module.modules() if isinstance(m, Neuron)]


@contextmanager
def spiking(module: nn.Module, steps: int) -> Iterator[None]:
    """Turns the activations into IF neurons over T = ``steps`` steps while it is active."""
    found = neurons(module)
    try:
        for neuron in found:
            neuron.steps = steps
        yield
    finally:
        for neuron in found:
            neuron.steps = None


@contextmanager
def poisson_input(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Gives an SNN Poisson spikes in place of the constant current, while it is active (Han et al., CVPR 2020).

    At every step a normalised pixel x becomes sign(x)·m with probability |x|/m, else 0, so that its mean is x; m is the
    largest |x| that a pixel can have.

    Args:
        network: whose images train.model.models.Normalize normalises.
        generator: a CPU generator, of the spikes.
    """

    found = neurons(network)

    def encode(module: Normalize, _inputs: tuple[Tensor], current: Tensor) -> Tensor:
        if found[0].steps is None:
            return current
        drawn = torch.rand(current.shape, generator=generator).to(current.device)
        return torch.sign(current) * (drawn * module.largest < current.abs()) * module.largest

    hooks = [m.register_forward_hook(encode) for m in network.modules() if isinstance(m, Normalize)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def read_outs(network: nn.Module, images: Tensor, steps: int) -> Tensor:
    """Mean of the classifier's output over steps 1 .. t, (T, B, K) for t = 1 .. T; arguments as for simulate."""
    with spiking(network, steps):
        scores = network(images.repeat(steps, *[1] * (images.dim() - 1)))
    counts = torch.arange(1, steps + 1, device=scores.device).view(-1, 1, 1)
    return scores.float().unflatten(0, (steps, -1)).cumsum(0) / counts


@torch.no_grad()
def simulate(
    network: nn.Module, images: Tensor, steps: int, observe: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Class scores of the SNN after each of T steps.

    Layers run one after the other over all steps, which is the same as step by step, since nothing feeds back. The
    image is a constant current.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W), what the network takes.
        steps: T.
        observe: called for every layer of neurons with its index and its mean output θ·(spike count)/T, (B, ...).

    Returns:
        Mean of the classifier's output over steps 1 .. t, (T, B, K) for t = 1 .. T.
    """
    hooks = []
    if observe is not None:
        for index, neuron in enumerate(neurons(network)):

            def report(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor, index: int = index) -> None:
                observe(index, output.unflatten(0, (steps, -1)).mean(0))

            hooks.append(neuron.register_forward_hook(report))
    try:
        return read_outs(network, images, steps)
    finally:
        for hook in hooks:
            hook.remove()
