"""Which layers share an operating-system process."""

import os
from itertools import accumulate

import numpy as np

from deploy.pooling import unfold
from export.network import IntegerNetwork, Layer

_NEURON = 1200
"""Multiply-accumulates that take as long as one neuron: measured with int8 kernels (docs/performance.md)."""

_PROCESSES_PER_CORE = 2


def processes_for(cores: int | None = None) -> int:
    """How many processes keep so many cores busy; without an argument, all that this process may use."""
    return _PROCESSES_PER_CORE * (cores or len(os.sched_getaffinity(0)))


def place(network: IntegerNetwork, processes: int) -> list[slice]:
    """Consecutive layers in at most so many groups, so that the group with the most work has as little as possible."""
    costs = [_cost(layer, network) for layer in network.layers]
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


def _cost(layer: Layer, network: IntegerNetwork) -> int:
    """Work of one step of one sample, in multiply-accumulates."""
    shape = network.shape_of[layer.name]
    positions = int(np.prod(shape[1:]))
    weights = sum(unfold(c, network.shape_of[c.source]).weight.size for c in layer.connections)
    return weights * positions + _NEURON * int(np.prod(shape))
