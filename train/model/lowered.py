"""A network as layers of neurons and linear maps between them: what is left of any classifier once it is lowered."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nqlava.errors import InputError, shown
from nqlava.network import IMAGE, Pair
from train.model.activation import NQ
from train.model.models import Network, Normalize

_MOST = 2**20  # layers, and every size of a map


@dataclass(frozen=True)
class Map:
    """A linear map from one source to the currents of a layer: means over windows, then a convolution without bias.

    Attributes:
        source: name of a layer, or "input" for the normalised image.
        shape: of the weight, (O, I/groups, kh, kw). A dense map has kh × kw equal to the size of the window means.
        window: (y, x) of the means; (1, 1) for none.
        stride, padding, dilation, groups: of the convolution.
        is_dense: whether the result is (O,) in place of (O, 1, 1).
        is_identity: whether it only passes values on, each with a factor; training leaves it as it is.
    """

    source: str
    shape: tuple[int, int, int, int]
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    is_dense: bool = False
    is_identity: bool = False

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair, int]:
        """(stride, padding, dilation, groups)."""
        return self.stride, self.padding, self.dilation, self.groups


Kind = Literal["neurons", "maximum", "read-out"]


@dataclass(frozen=True)
class Plan:
    """A layer without its numbers.

    Attributes:
        name: of the layer, by which maps take its spikes.
        maps: at least one.
        bias: shape, (O,), or (O, H, W) where it differs between positions.
        kind: what becomes of the current: neurons take it; or the layer is the largest of what its sources send, of
            those whose weight is not 0; or it is the read-out.
    """

    name: str
    maps: tuple[Map, ...]
    bias: tuple[int, ...]
    kind: Kind = "neurons"


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
        self.bias = nn.Parameter(torch.zeros(plan.bias), requires_grad=plan.kind != "maximum")

    def forward(self, *values: Tensor) -> Tensor:
        """The current, (N, O) or (N, O, H, W), of the values of the sources, in the order of the maps."""
        total: Tensor | None = None
        is_joined = self.bias.dim() == 1
        for m, module, x in zip(self.plan.maps, self.maps, values, strict=True):
            bias = self.bias if is_joined and total is None else None
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
            total = z if total is None else total + z
        assert total is not None
        return total if is_joined else total + self.bias


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

    Batch norm, pooling, concatenation and shortcuts have become parts of the maps. A converted network is trained in
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


def entries(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Plans as lists, dictionaries, texts and numbers, for a file."""
    return [asdict(plan) for plan in plans]


def plans_from(found: object) -> tuple[Plan, ...]:
    """The plans that ``entries`` wrote; InputError for what is none."""
    if not isinstance(found, list) or not 1 <= len(found) <= _MOST:
        raise InputError(f"layers is no list of 1 to {_MOST}")
    plans: list[Plan] = []
    names = {IMAGE}
    for index, entry in enumerate(found):
        try:
            maps = tuple(map(_map, entry["maps"]))
            plan = Plan(**{**entry, "maps": maps, "bias": _sizes(entry["bias"], (1, 3))})
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"layer {index} is no layer ({shown(error, 80)})") from None
        known = type(plan.name) is str and plan.name not in names
        sources = [m.source for m in plan.maps]
        if not known or not sources or not all(type(s) is str and s in names for s in sources):
            raise InputError(f"layer {index} has a name or sources that it cannot have")
        if plan.kind not in get_args(Kind) or (plan.kind == "read-out") is not (index == len(found) - 1):
            raise InputError(f"layer {index} is {shown(str(plan.kind), 20)}; allowed: a read-out at the end, alone")
        names.add(plan.name)
        plans.append(plan)
    return tuple(plans)


def _map(entry: Mapping[str, Any]) -> Map:
    m = Map(**entry)
    numbers = {key: _sizes(getattr(m, key), (2,), int(key != "padding")) for key in _PAIRS}
    if type(m.groups) is not int or not (m.is_dense in (True, False) and m.is_identity in (True, False)):
        raise ValueError("groups, is_dense or is_identity")
    outputs, inputs, height, width = _sizes(m.shape, (4,))
    if not 1 <= m.groups <= outputs or outputs % m.groups:
        raise ValueError("groups")
    return Map(
        m.source, (outputs, inputs, height, width), groups=m.groups, is_dense=m.is_dense, is_identity=m.is_identity,
        **numbers,
    )  # fmt: skip


_PAIRS = ("window", "stride", "padding", "dilation")


def _sizes(values: Any, counts: tuple[int, ...], least: int = 1) -> Any:
    """A tuple of integers."""
    found = tuple(values)
    if len(found) not in counts or not all(type(v) is int and least <= v <= _MOST for v in found):
        raise ValueError("sizes")
    return found
