"""A network as layers of neurons and linear maps between them: what is left of any classifier once it is lowered."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nqlava.network import IMAGE
from train.model.activation import NQ
from train.model.models import Network, Normalize
from train.model.plan import Map, Plan
from train.model.snn import simulate


class Current(nn.Module):
    """What a layer receives: the sum of its maps, and its bias."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.maps = nn.ModuleList(
            nn.Conv2d(m.shape[1] * m.groups, m.shape[0], m.shape[2:], *m.geometry, bias=False) for m in plan.maps
        )
        for m, module in zip(plan.maps, self.maps, strict=True):
            module.weight.requires_grad_(not m.is_identity and plan.kind != "maximum")
        self._is_joined = len(plan.bias) == 1  # with the first map
        is_trained = plan.kind != "maximum" and not (plan.is_normalised and self._is_joined)
        self.bias = nn.Parameter(torch.zeros(plan.bias), requires_grad=is_trained)
        self.norms = nn.ModuleList(map(_norm, plan.maps)) if plan.is_normalised else None

    def forward(self, *values: Tensor) -> Tensor:
        """The current, (N, O) or (N, O, H, W), of the values of the sources, in the order of the maps."""
        total: Tensor | None = None
        for index, (m, module, x) in enumerate(zip(self.plan.maps, self.maps, values, strict=True)):
            bias = self.bias if self._is_joined and total is None and self.norms is None else None
            if x.dim() == 2:
                x = x[:, :, None, None]
            if m.window != (1, 1):
                x = F.avg_pool2d(x, m.window)
            weight: Any = module.weight
            if self.plan.kind == "maximum":
                z = _largest(m, weight, x)
                total = z if total is None else torch.maximum(total, z)
                continue
            if m.is_dense:
                z = F.linear(x.flatten(1), weight.flatten(1), bias)
            else:
                z = F.conv2d(x, weight, bias, *m.geometry)
            if self.norms is not None:
                z = self.norms[index](z)
            total = z if total is None else total + z
        assert total is not None
        return total if self._is_joined else total + self.bias


def _norm(m: Map) -> nn.Module:
    if m.is_identity:
        return nn.Identity()
    return nn.BatchNorm1d(m.shape[0]) if m.is_dense else nn.BatchNorm2d(m.shape[0])


def _largest(m: Map, weight: Tensor, x: Tensor) -> Tensor:
    """The largest value, or 0, of those that a map takes with a weight, (N, O, H, W); it has no window."""
    values = F.unfold(x, m.shape[2:], m.dilation, m.padding, m.stride).unflatten(1, (m.groups, 1, -1))
    taken = (weight != 0).flatten(1).unflatten(0, (m.groups, -1)).unsqueeze(-1)  # (groups, O / groups, inputs, 1)
    found = torch.where(taken, values, 0.0).amax(3).flatten(1, 2)
    size = [
        (extent + 2 * p - d * (k - 1) - 1) // s + 1
        for extent, p, d, k, s in zip(x.shape[2:], m.padding, m.dilation, m.shape[2:], m.stride, strict=True)
    ]
    return found.unflatten(2, size)


class Lowered(Network):
    """A classifier in which every activation is NQ, and all that stands between two of them is one linear map.

    Pooling, concatenation and shortcuts have become parts of the maps, and so has batch norm, unless for further
    training there is new one (``to_be_trained``). A converted network is trained in
    this form, and stored in it: its file needs none of the user's code (export.fold.module makes it, and takes it
    apart).

    Args:
        plans: the layers in order, the read-out last.
        input_shape: (C, H, W) of an image.
        levels: L.
        mean, std: per channel, of the normalisation of x/255.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        input_shape: tuple[int, int, int],
        levels: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        parts: list[nn.Module] = [
            nn.ModuleList([Current(p), *([NQ(levels, 1.0)] if p.kind == "neurons" else [])]) for p in plans
        ]
        super().__init__([Normalize(mean, std), *parts], input_shape=input_shape, levels=levels)
        self.plans = tuple(plans)

    def parts(self) -> list[tuple[Plan, Current, NQ | None]]:
        """The layers in order, with their modules."""
        found: Any = zip(self.plans, list(self.layers)[1:], strict=True)
        return [(plan, part[0], part[1] if len(part) > 1 else None) for plan, part in found]

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        values = {IMAGE: self.layers[0](images)}
        last = {m.source: plan.name for plan in self.plans for m in plan.maps}
        for plan, current, neuron in self.parts():
            z = current(*(values[m.source] for m in plan.maps))
            if plan.kind == "read-out":
                return z
            values[plan.name] = z if neuron is None else neuron(z)
            for source in {m.source for m in plan.maps if last[m.source] == plan.name}:
                del values[source]
        raise AssertionError("a network without a read-out")


def to_be_trained(network: Lowered, images: Tensor, steps: int, *, spikes: bool) -> Lowered:
    """A copy with v(0) = θ/2, as training has it, and with batch norm behind its maps.

    What its neurons lose or gain by the other v(0) over T steps is in their biases then. Batch norm changes nothing
    yet, for images like these.

    Args:
        network: in evaluation mode.
        images: uint8 (N, C, H, W), some hundred, for the statistics of batch norm.
        steps: T. spikes: whether they are normalised, over T steps, or the activations.
    """
    made = copy.deepcopy(network)
    with torch.no_grad():
        for _, current, neuron in made.parts():
            if neuron is not None:
                change = (neuron.initial - neuron.usual) * neuron.threshold / steps
                neuron.initial = torch.full_like(neuron.threshold, neuron.usual)
                target: Any = current.bias
                if current.norms is not None and target.dim() == 1:
                    target = _first_norm(current).bias
                target.add_(change.reshape(-1, *[1] * (target.dim() - 1)) if change.dim() else change)
    if any(plan.is_normalised for plan in made.plans):
        return made
    return _normalised(made, images, steps if spikes else 0)


def _first_norm(current: Current) -> Any:
    return next(norm for norm in current.norms or () if not isinstance(norm, nn.Identity))


@torch.no_grad()
def _normalised(network: Lowered, images: Tensor, steps: int) -> Lowered:
    """The network with batch norm; T of the spikes whose statistics it takes, 0 for those of the activations."""
    plans = [replace(plan, is_normalised=plan.learns) for plan in network.plans]
    normalize: Any = network.layers[0]
    mean, std = normalize.mean.flatten().tolist(), normalize.std.flatten().tolist()
    made = Lowered(plans, input_shape=network.input_shape, levels=network.levels, mean=mean, std=std).eval()
    made.load_state_dict(network.state_dict(), strict=False)
    for _, current, _ in made.parts():
        if current.norms is not None and current.bias.dim() == 1:
            _first_norm(current).bias.copy_(current.bias)
            current.bias.zero_()
    sums: dict[nn.Module, Tensor] = {}

    def observe(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        z = inputs[0].float().transpose(0, 1).flatten(1)
        found = torch.stack([torch.full((len(z),), z.shape[1]), z.sum(1), z.square().sum(1)]).double()
        sums[norm] = sums.get(norm, torch.zeros(())) + found

    norms: list[Any] = [m for m in made.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.running_var.fill_(1 - norm.eps)
    hooks = [norm.register_forward_pre_hook(observe) for norm in norms]
    for part in images.split(max(1, 128 // max(1, steps))):
        simulate(made, part, steps) if steps else made(part)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        count, total, squares = sums[norm]
        average = total / count
        variance = (squares / count - average.square()).clamp(min=0)
        norm.running_mean.copy_(average)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(average)
    return made
