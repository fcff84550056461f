"""Other ways to run an integer network with the same results, in float32 PyTorch, to compare the engine's speed with.

Peers are made as their users would write them, minus what would only slow them down: batch norm is folded, average
pooling adds up windows instead of using the large kernels into which it was folded, an identity shortcut is a product
with one number per channel, and nothing is kept for gradients. All values are integers below 2²⁴, so float32 is exact
and the read-outs of a peer equal the engine's.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nqlava.merged import Merged, merge
from nqlava.network import IMAGE, IntegerNetwork, Layer

Wrap = Callable[[nn.Module], nn.Module]


class ChannelFactor(nn.Module):
    """An identity shortcut: one factor per channel, (O, 1, 1)."""

    def __init__(self, factor: NDArray[np.int64]) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32).reshape(-1, 1, 1))


class WindowSum(nn.Module):
    """Sums over windows of (y, x) positions, which is average pooling times their size."""

    def __init__(self, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.window, divisor_override=1)


def synapses(merged: Merged) -> nn.Module:
    """Connections that differ in their weights only, as one module: from (n, *input_shape) to their sum."""
    part, weight = merged.convolution, merged.weight.astype(np.int64) << merged.exponent
    if not merged.is_dense and part.window == (1, 1) and part.groups == len(weight) and part.diagonal is not None:
        return ChannelFactor(weight)
    values = torch.tensor(weight, dtype=torch.float32)
    modules: list[nn.Module] = [] if part.window == (1, 1) else [WindowSum(part.window)]
    if merged.is_dense:
        modules += [nn.Flatten(), nn.Linear(values[0].numel(), len(values))]
        values = values.flatten(1)
    else:
        geometry = (part.stride, part.padding, part.dilation, part.groups)
        modules.append(nn.Conv2d(weight.shape[1] * part.groups, weight.shape[0], weight.shape[2:], *geometry))
    modules[-1].weight = nn.Parameter(values)
    modules[-1].bias = None
    return nn.Sequential(*modules)


class Current(nn.Module):
    """I + b of one layer; the bias is added by a convolution or linear layer where it is one number per channel.

    Args:
        layer: the layer.
        shapes: shapes of its sources by name.
        wrap: what makes a stateless module take the inputs of this peer, such as (T, N, ...).
    """

    def __init__(self, layer: Layer, shapes: Mapping[str, tuple[int, ...]], wrap: Wrap = lambda module: module) -> None:
        super().__init__()
        parts = [(merged.source, synapses(merged)) for merged in merge(layer, shapes)]
        parts.sort(key=lambda part: isinstance(part[1], ChannelFactor))
        bias = torch.tensor(layer.bias, dtype=torch.float32)
        self.register_buffer("bias", None)
        if bias.ndim == 1 and not isinstance(parts[0][1], ChannelFactor):
            parts[0][1][-1].bias = nn.Parameter(bias)
        else:
            self.bias = bias.reshape(1, *bias.shape, *[1] * (3 - bias.ndim))
        self.sources = [source for source, _ in parts]
        self.parts = nn.ModuleList(part if isinstance(part, ChannelFactor) else wrap(part) for _, part in parts)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """I + b, (..., *output_shape), of inputs (..., *input_shape) by the name of the source."""
        total: Tensor | None = None
        for source, part in zip(self.sources, self.parts, strict=True):
            if not isinstance(part, ChannelFactor):
                total = part(inputs[source]) if total is None else total + part(inputs[source])
            elif total is None:
                total = inputs[source] * part.factor
            else:
                total = torch.addcmul(total, inputs[source], part.factor)
        return total if self.bias is None else total + self.bias


def one_number(values: NDArray[np.int32], what: str, layer: Layer) -> float:
    """The value that all neurons of a layer share; ValueError where they differ."""
    if (values != values[0]).any():
        raise ValueError(f"layer {layer.name}: {what} differs between channels; allowed: one number per layer")
    return float(values[0])


class Peer(nn.Module):
    """Runs a network over batches of images; subclasses say how one batch is run.

    Args:
        network: what to run; thresholds and initial potentials are one number per layer.
        wrap: as in ``Current``.

    Attributes:
        memory_format: of images and weights: torch.contiguous_format, or torch.channels_last.
    """

    def __init__(self, network: IntegerNetwork, wrap: Wrap = lambda module: module) -> None:
        super().__init__()
        self.network = network
        self.currents = nn.ModuleList(Current(layer, network.shape_of, wrap) for layer in network.layers)
        self.thresholds = [one_number(layer.threshold, "threshold", layer) for layer in network.layers[:-1]]
        self.initial = [one_number(layer.v0, "v0", layer) for layer in network.layers[:-1]]
        self.memory_format = torch.contiguous_format
        self.eval()

    def use(self, memory_format: torch.memory_format) -> None:
        """Store images and weights in this format from now on."""
        self.memory_format = memory_format
        self.to(memory_format=memory_format)

    def read_out_currents(self, images: Tensor, steps: int) -> Tensor:
        """I + b of the read-out at every step, float32 (T, n, K), of images (n, C, H, W), float32."""
        raise NotImplementedError

    def scores(self, images: NDArray[np.uint8], steps: int, batch: int) -> NDArray[np.int32]:
        """The read-out, (N, T, K), of images (N, C, H, W), as ``Engine.scores`` gives it."""
        found = []
        with torch.inference_mode(), torch.backends.nnpack.flags(enabled=False):  # NNPACK's Winograd would round
            for first in range(0, len(images), batch):
                part = torch.from_numpy(np.require(images[first : first + batch], requirements="W"))
                currents = self.read_out_currents(part.float().contiguous(memory_format=self.memory_format), steps)
                found.append(currents.to(torch.int32).cumsum(0).transpose(0, 1).numpy())
        return (np.concatenate(found) + self.network.layers[-1].v0).astype(np.int32)


class PlainPyTorch(Peer):
    """Eager PyTorch: the steps are folded into the batch, what arrives from the image is computed once."""

    def read_out_currents(self, images: Tensor, steps: int) -> Tensor:
        values = {IMAGE: images}
        for index, (layer, current) in enumerate(zip(self.network.layers, self.currents, strict=True)):
            constant = layer.sources == (IMAGE,)
            if IMAGE in layer.sources and not constant:
                values[IMAGE] = images.repeat(steps, 1, 1, 1)
            found = current({IMAGE: images} if constant else values)
            found = found.expand(steps, *found.shape) if constant else found.unflatten(0, (steps, -1))
            if layer.is_readout:
                return found
            values[layer.name] = self._fire(index, found).flatten(0, 1)
        raise AssertionError("the last layer of a network is its read-out")

    def _fire(self, index: int, current: Tensor) -> Tensor:
        """Spikes, float32, of the currents (T, n, *output_shape) of a layer."""
        threshold = self.thresholds[index]
        v = torch.full_like(current[0], self.initial[index])
        spikes = torch.empty((len(current), *v.shape))
        if v.ndim == 4:
            spikes = spikes.flatten(0, 1).contiguous(memory_format=self.memory_format).unflatten(0, (-1, len(v)))
        for step, fired in enumerate(spikes):
            v += current[step]
            torch.ge(v, threshold, out=fired)
            if self.network.layers[index].reset == "soft":
                v.sub_(fired, alpha=threshold)
            else:
                v.mul_(1 - fired)
        return spikes
