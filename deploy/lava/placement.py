"""Which layers share an operating-system process."""

from itertools import accumulate

import numpy as np

from nqlava.network import IntegerNetwork, Layer

_NEURON, _WEIGHT = 1750, 120
"""Multiply-accumulates that take as long as one neuron, and as fetching one weight: measured with int8 kernels on AMX
(lab/performance.md)."""


def place(network: IntegerNetwork, processes: int, batch: int) -> list[slice]:
    """Consecutive layers in at most so many groups, so that the group with the most work has as little as possible.

    Args:
        network: whose layers are placed.
        processes: number of groups, at most.
        batch: samples in one message, for which weights are fetched once.
    """
    costs = [_cost(layer, network, batch) for layer in network.layers]
    low, high = max(costs), sum(costs)
    while low < high:  # the least limit under which the groups are few enough
        limit = (low + high) // 2
        if len(_fill(costs, limit)) <= processes:
            high = limit
        else:
            low = limit + 1
    ends = list(accumulate(_fill(costs, low)))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _fill(costs: list[int], limit: int) -> list[int]:
    """Sizes of groups, each filled in order up to the limit."""
    sizes, room = [], -1
    for cost in costs:
        if cost > room:
            sizes.append(0)
            room = limit
        sizes[-1] += 1
        room -= cost
    return sizes


def _cost(layer: Layer, network: IntegerNetwork, batch: int) -> int:
    """Work of one step of a batch, in multiply-accumulates."""
    shape = network.shape_of[layer.name]
    positions = int(np.prod(shape[1:]))
    weights = sum(c.convolution(network.shape_of[c.source]).weight.size for c in layer.connections)
    return weights * (positions * batch + _WEIGHT) + _NEURON * int(np.prod(shape)) * batch
