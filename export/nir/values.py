"""Checked values of the nodes of a NIR graph."""

import math
from collections.abc import Mapping
from typing import NoReturn

import nir
import numpy as np
from numpy.typing import NDArray

from nqlava.errors import InputError, shown
from nqlava.network import MEMBRANE_MAX, Pair

Array = NDArray[np.float64]


class GraphError(InputError):
    """A graph that is no integer network: the message names the node, what it is and what is allowed."""


class CheckedNodes:
    """What the methods return has been checked; they raise GraphError. ``name`` is that of a node.

    Args:
        nodes: by name.
        own: whether export.to_nir made the graph, and its metadata count.
    """

    def __init__(self, nodes: Mapping[str, nir.NIRNode], own: bool) -> None:
        self.nodes, self.own = nodes, own

    def fail(self, name: str, key: str, value: object, allowed: str) -> NoReturn:
        kind = type(self.nodes[name]).__name__
        raise GraphError(f"node {name} ({kind}): {key} is {shown(value, 200)}; allowed: {allowed}")

    def channels(self, name: str, key: str, value: object, shape: tuple[int, ...]) -> Array:
        """A value per channel, (O,), from one for all, or from one per neuron that is the same within a channel."""
        found = self.finite(name, key, value)
        if found.size == 1:
            return np.full(shape[:1], found.flat[0])
        if found.size != math.prod(shape) or [n for n in found.shape if n != 1] != [n for n in shape if n != 1]:
            self.fail(name, key, f"of shape {found.shape}", f"{shape}, or one value")
        found = found.reshape(shape[0], -1)
        if (found != found[:, :1]).any():
            self.fail(name, key, "different within a channel", "one value per channel")
        return found[:, 0]

    def finite(self, name: str, key: str, value: object) -> Array:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            self.fail(
                name, key, "not finite" if array.dtype.kind == "f" else f"of type {array.dtype}", "finite numbers"
            )
        return array.astype(np.float64)

    def whole(self, name: str, key: str, value: object) -> NDArray[np.int32]:
        """Integers within the range of a membrane potential."""
        array = self.finite(name, key, value)
        wrong = array[(array != np.rint(array)) | (np.abs(array) > MEMBRANE_MAX)]
        if wrong.size:
            self.fail(name, key, wrong.flat[0], f"integers of magnitude 0..{MEMBRANE_MAX}")
        return array.astype(np.int32)

    def number(self, name: str, key: str, low: int, high: int) -> int:
        """An integer in the metadata of a node."""
        found = integers(self.nodes[name].metadata.get(key))
        if found is None or len(found) != 1 or not low <= found[0] <= high:
            self.fail(name, f"metadata {key}", self.nodes[name].metadata.get(key), f"{low}..{high}")
        return found[0]


def plain(value: object) -> object:
    """A single value as Python's own, to compare it; None for an array of several."""
    if not isinstance(value, np.ndarray | np.generic):
        return value
    return value.item() if value.size == 1 else None


def integers(value: object) -> tuple[int, ...] | None:
    """The values, of any shape; None where they are no integers."""
    array = np.asarray(value)
    return tuple(map(int, array.reshape(-1))) if array.dtype.kind in "iu" else None


def pair(value: object) -> Pair | None:
    """(y, x) from two integers or from one for both; None for anything else."""
    found = integers(value)
    if found is None or len(found) not in (1, 2):
        return None
    return found[0], found[-1]
