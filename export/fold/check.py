"""Whether the traced and folded network receives what the module itself receives."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.fold.folded import Call, ExportError, FoldedLayer, FoldedNetwork
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
        model: what was lowered, in evaluation mode; its activations are NQ and RateReLU.
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
        received.append(z.detach().float().cpu().clone())
        spikes.append((torch.rand(z.shape, generator=generator) < 0.4).float())
        return (spikes[-1].to(z.device) * module.threshold.detach()).to(z.dtype)

    hooks = [neuron.register_forward_hook(fire) for neuron in neurons(model)]
    try:
        scores = model(images).float().cpu()
    finally:
        for hook in hooks:
            hook.remove()
    if len(received) != len(folded.calls):
        raise ExportError(
            f"forward: uses {len(received)} activations, and {len(folded.calls)} were traced; "
            "allowed: a fixed sequence of operations"
        )
    run = _Run(folded, images)
    for call, expected, fired in zip(folded.calls, received, spikes, strict=True):
        _compare(call.layers[0][0], run.received(call), expected)
        run.fire(call, fired)
    last = folded.layers[-1]
    found = run.current(last)
    _compare(last.name, getattr(torch, folded.softmax)(found, 1) if folded.softmax else found, scores)


def _compare(name: str, found: Tensor, expected: Tensor) -> None:
    found = found.reshape(expected.shape)
    error, largest = float((found - expected).abs().max()), float(expected.abs().max())
    if not error <= _TOLERANCE * max(largest, 1e-6):
        raise ExportError(
            f"{name}: receives other currents in the model than in what was traced, by up to {error:.3g} "
            f"of {largest:.3g}; allowed: modules that do what their forward says, and no tensor changed in place "
            "that is used again"
        )


class _Run:
    """The currents of the folded layers, given the spikes that the activations were replaced by."""

    def __init__(self, folded: FoldedNetwork, images: Tensor) -> None:
        self._folded, self._count = folded, len(images)
        self._layers = {layer.name: layer for layer in folded.layers}
        self._spikes = {IMAGE: pixels(images, folded, torch.float32)}

    def current(self, layer: FoldedLayer) -> Tensor:
        """What the layer receives, with its bias."""
        found = torch.from_numpy(layer.bias_map).float()
        for connection in layer.connections:
            if connection.source not in self._spikes:  # a maximum of spikes, which is no call
                self._spikes[connection.source] = (self.current(self._layers[connection.source]) > 0.5).float()
            spikes = self._spikes[connection.source]
            found = found + arriving(connection, effective(connection, self._folded), spikes)
        return found

    def received(self, call: Call) -> Tensor:
        """What the activation receives, (n, C, H, W)."""
        flat = torch.empty(self._count, prod(call.shape))
        for name, places in call.layers:
            flat[:, torch.from_numpy(places)] = self.current(self._layers[name]).expand(
                self._count, *self._layers[name].connections[0].output_shape
            ).flatten(1)  # fmt: skip
        found = flat.unflatten(1, call.shape)
        for pool in call.pools:
            found = F.max_pool2d(found, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        return found

    def fire(self, call: Call, spikes: Tensor) -> None:
        """Take these as the activation's spikes."""
        for name, places in call.outputs:
            shape = self._layers[name].connections[0].output_shape
            self._spikes[name] = spikes.flatten(1)[:, torch.from_numpy(places)].reshape(self._count, *shape)
