"""What a lowered network is made of, without its numbers: layers, and the geometry of the maps between them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nqlava.errors import InputError, shown
from nqlava.network import IMAGE, Pair

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
        is_normalised: whether batch norm follows every map but identities. A bias (O,) is then 0, and not trained.
    """

    name: str
    maps: tuple[Map, ...]
    bias: tuple[int, ...]
    kind: Kind = "neurons"
    is_normalised: bool = False

    @property
    def learns(self) -> bool:
        """Whether neurons follow weights that training changes."""
        return self.kind == "neurons" and not all(m.is_identity for m in self.maps)


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
        if type(plan.is_normalised) is not bool or (plan.is_normalised and not plan.learns):
            raise InputError(f"layer {index} is normalised; allowed: layers of neurons with weights")
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
