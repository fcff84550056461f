"""Whether the traced and folded network receives what the module itself receives."""

import torch
from torch import Tensor, nn

from export.fold.folded import ExportError, FoldedNetwork
from export.round.calibration import arriving, pixels
from export.round.quantize import effective
from nqlava.network import IMAGE
from train.model.snn import neurons

_TOLERANCE = 1e-3  # of the largest current of a layer: far above the rounding of float32, far below a lost operation


@torch.no_grad()
def check(model: nn.Module, folded: FoldedNetwork, images: Tensor) -> None:
    """Run the module with random spikes in place of its activations, and compare the current of every layer.

    Tracing sees operations, not values: what a module does besides (on strides, on aliases, in hooks, by code that
    looks at sizes) would be lost without a word. Random spikes reach layers that real ones hardly do, and keep an
    error in one layer from hiding those behind it.

    Args:
        model: what was lowered, in evaluation mode.
        folded: what it was lowered to.
        images: uint8 (n, C, H, W), a few.

    Raises:
        ExportError: a layer whose currents differ.
    """
    generator = torch.Generator().manual_seed(0)
    received: list[Tensor] = []
    spikes: list[Tensor] = []

    def fire(module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
        z = inputs[0]
        received.append(z.detach().double().cpu().clone())
        spikes.append((torch.rand(z.shape, generator=generator) < 0.4).double())
        return (spikes[-1].to(z.device) * module.threshold.detach()).to(z.dtype)

    hooks = [neuron.register_forward_hook(fire) for neuron in neurons(model)]
    try:
        received.append(model(images).double().cpu())
    finally:
        for hook in hooks:
            hook.remove()
    if len(received) != len(folded.layers):
        raise ExportError(
            f"forward: uses {len(received) - 1} activations, and {len(folded.layers) - 1} were traced; "
            "allowed: a fixed sequence of operations"
        )
    sources = {IMAGE: pixels(images, folded, torch.float64)}
    for layer, expected, fired in zip(folded.layers, received, [*spikes, torch.empty(0)], strict=True):
        found = torch.from_numpy(layer.bias).reshape(-1, *[1] * (expected.dim() - 2))
        for connection in layer.connections:
            found = found + arriving(connection, effective(connection, folded), sources[connection.source])
        error, largest = float((found - expected).abs().max()), float(expected.abs().max())
        if not error <= _TOLERANCE * max(largest, 1e-6):
            raise ExportError(
                f"{layer.name}: receives other currents in the model than in what was traced, by up to {error:.3g} "
                f"of {largest:.3g}; allowed: modules that do what their forward says, and no tensor changed in place "
                "that is used again"
            )
        sources[layer.name] = fired
