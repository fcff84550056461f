"""The float SNN fires as SpikingJelly's IFNode does: the same spikes, in every layer at every step."""

import importlib.util
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from train.choices import Reset
from train.data.images import load
from train.loop.checkpoint import read_model
from train.model.activation import Neuron
from train.model.models import Network
from train.model.snn import neurons, simulate

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("spikingjelly") is None, reason="SpikingJelly is not installed"
)
PRETRAINED = Path("train/pretrained")
STEPS, IMAGES = 5, 4


class PeerNeuron(nn.Module):
    """IFNode in place of a layer of neurons: spikes of 0 and 1, times θ, at T steps folded into the batch."""

    def __init__(self, threshold: float, reset: Reset, initial: Tensor) -> None:
        from spikingjelly.activation_based.neuron import IFNode

        super().__init__()
        self.threshold, self.initial = threshold, initial
        self.node = IFNode(threshold, v_reset=None if reset == "soft" else 0.0, step_mode="m")
        self.spikes = torch.empty(0)

    def forward(self, current: Tensor) -> Tensor:
        self.node.reset()
        self.node.v = (
            (self.threshold * self.initial)
            .view(-1, *[1] * (current.dim() - 2))
            .expand_as(current[: len(current) // STEPS])
        )
        self.spikes = self.node(current.unflatten(0, (STEPS, -1)))
        output = (self.spikes * self.threshold).flatten(0, 1)
        return output.contiguous(memory_format=torch.channels_last) if output.dim() == 4 else output


def peer(network: Network) -> Network:
    """The network with the same weights and modules, but for its neurons."""
    copied = deepcopy(network)
    for module in copied.modules():
        for name, child in module.named_children():
            if isinstance(child, Neuron):
                setattr(module, name, PeerNeuron(float(child.threshold.detach()), child.reset, child.initial))
    return copied


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("vgg_small", {}),
        ("vgg_small", {"reset": "hard"}),
        ("vgg_small", {"initial": torch.tensor(0.5)}),
        ("resnet20", {}),
    ],
    ids=str,
)
def test_same_spikes_in_every_layer_at_every_step(model: str, changes: dict[str, Any]) -> None:
    """In float32: both call the same convolutions with the same shapes and layouts, so that they round alike."""
    network = read_model(PRETRAINED / f"{model}.pt").network
    images = load(["sample"], "test").sample(IMAGES, 0).images.permute(0, 3, 1, 2)
    found: list[Tensor] = []
    for neuron in neurons(network):
        for key, value in changes.items():
            setattr(neuron, key, value)
        neuron.register_forward_hook(lambda _m, _i, output: found.append(output.unflatten(0, (STEPS, -1)) > 0))
    scores = simulate(network, images, STEPS)
    other = peer(network)
    with torch.no_grad():
        expected = other(images.repeat(STEPS, 1, 1, 1)).unflatten(0, (STEPS, -1)).cumsum(0)
    layers = [module for module in other.modules() if isinstance(module, PeerNeuron)]
    assert len(found) == len(layers) == len(network.activations)
    for index, (ours, layer) in enumerate(zip(found, layers, strict=True)):
        counts = layer.spikes.flatten(1).sum(1)
        assert counts[-1] > 100, f"layer {index} is almost silent: {counts.tolist()} spikes by step"
        differing = (ours != layer.spikes.bool()).flatten(1).sum(1)
        assert not differing.any(), f"layer {index}: {differing.tolist()} spikes differ by step, of {counts.tolist()}"
    assert torch.equal(scores, expected / torch.arange(1, STEPS + 1).view(-1, 1, 1))
