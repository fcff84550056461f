"""Training with weights rounded to a few bits: on the grid of the exporter's round-to-nearest."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nqlava.errors import InputError
from train.model.models import Network, Normalize

_MATRICES = (nn.Conv2d, nn.Linear)
_REACH = {2: 1.224, 3: 1.953, 4: 2.473, 5: 2.899, 6: 3.270, 7: 3.608, 8: 3.921}
"""Largest weight over root mean square, by bits, at which Gaussian weights are rounded with the least squared error."""


class _Round(torch.autograd.Function):
    """step · clip(round(w / step), ±limit); the gradient passes straight through (Bengio et al., arXiv 1308.3432)."""

    @staticmethod
    def forward(_ctx, weight: Tensor, step: Tensor, limit: int) -> Tensor:
        return torch.clamp(torch.round(weight / step), -limit, limit) * step

    @staticmethod
    def backward(_ctx, grad: Tensor):
        return grad, None, None


class FakeQuantize(nn.Module):
    """A weight as the exporter will round it: ŵ = Δ · clip(round(w / Δ), ±n), n = 2^(bits − 1) − 1.

    n · Δ = min(max|w|, c · √mean(w²)), where c minimises the squared error of Gaussian weights (Max, IRE Transactions
    on Information Theory 1960). Mean and maximum are over an output channel, or over all of the read-out, whose outputs
    are compared with each other. Some weight always becomes ±n, so the exporter finds the same Δ, as max|ŵ| / n.
    Batch norm and spike amplitudes multiply a channel, or the whole layer, by one number, and Δ with it: rounding here
    and after folding gives the same integers. The image's standard deviations differ between *input* channels, so the
    first layer is rounded as w / d, which is what acts on the pixels.

    Args:
        bits: of the weights, 2 … 8.
        shared: whether one Δ serves all output channels.
        deviation: d, of the shape (1, I, 1, 1), where the layer takes the normalised image.
    """

    deviation: Tensor | None

    def __init__(self, bits: int, *, shared: bool, deviation: Tensor | None = None) -> None:
        super().__init__()
        self.limit = 2 ** (bits - 1) - 1
        self.reach = _REACH[bits]
        self.shared = shared
        self.register_buffer("deviation", deviation, persistent=False)

    def step(self, weight: Tensor) -> Tensor:
        """Δ (O, 1, ...), or (1, 1, ...) where it is shared, of weights in the unit in which they are rounded."""
        weight = weight.detach()
        axes = tuple(range(0 if self.shared else 1, weight.dim()))
        largest = weight.abs().amax(axes, keepdim=True)
        largest = torch.minimum(largest, self.reach * weight.square().mean(axes, keepdim=True).sqrt())
        return torch.where(largest > 0, largest, 1.0) / self.limit

    def forward(self, weight: Tensor) -> Tensor:
        """ŵ, of the shape of the weight."""
        if self.deviation is None:
            return _Round.apply(weight, self.step(weight), self.limit)
        scaled = weight / self.deviation
        return _Round.apply(scaled, self.step(scaled), self.limit) * self.deviation


def matrices(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Convolutions and linear layers by path, in order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _MATRICES)}


def attach(network: Network, bits: int, layers: Mapping[str, int] | None = None) -> None:
    """Round the weights of every convolution and linear layer in the forward pass, until ``bake``.

    Args:
        network: behind Normalize comes a convolution; the last linear layer is the read-out.
        bits: of the weights, 2 … 8.
        layers: other bits for some layers, by path.

    Raises:
        InputError: bits for a layer that is not there.
    """
    found = matrices(network)
    for name in layers or {}:
        if name not in found:
            raise InputError(f"bits of {name}: no such layer; allowed: {', '.join(found)}")
    normalize = next(module for module in network.modules() if isinstance(module, Normalize))
    first, last = next(iter(found)), next(reversed(found))
    for name, module in found.items():
        deviation = normalize.std if name == first else None
        rounding = FakeQuantize((layers or {}).get(name, bits), shared=name == last, deviation=deviation)
        parametrize.register_parametrization(module, "weight", rounding)


def bake(network: Network) -> None:
    """Make the rounded weights the weights of the network."""
    for module in matrices(network).values():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
