"""NIR graphs by NIR's equations in float64, one node and one step at a time, with what docs/nir.md asks of a reader."""

import nir
import numpy as np
import torch
import torch.nn.functional as F

from export.nir.graph import SUBTRACT
from nqlava.network import MEMBRANE_MAX


def simulate(graph: nir.NIRGraph, images: np.ndarray, steps: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Spikes (samples, T, *shape) by IF node, and what arrives at Output (samples, T, K)."""
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        before[target].append(source)
    order = _ordered(before)
    image = torch.from_numpy(images).double()
    membranes: dict[str, torch.Tensor] = {}
    spikes: dict[str, list[torch.Tensor]] = {name: [] for name in order if isinstance(graph.nodes[name], nir.IF)}
    outputs = []
    for _ in range(steps):
        values: dict[str, torch.Tensor] = {}
        for name in order:
            node = graph.nodes[name]
            current = sum((values[source] for source in before[name]), torch.zeros(()))
            if isinstance(node, nir.IF | nir.I):
                start = membranes.get(name, _spread(node.metadata["v_initial"], current))
                v = (start + torch.from_numpy(node.r) * current).clamp(-MEMBRANE_MAX, MEMBRANE_MAX)
                values[name] = v
                if isinstance(node, nir.IF):
                    values[name], v = _fire(node, v)
                    spikes[name].append(values[name])
                membranes[name] = v
            else:
                values[name] = image if isinstance(node, nir.Input) else _apply(node, current)
            if isinstance(node, nir.Output):
                outputs.append(values[name])
    return {name: torch.stack(found, 1).numpy() for name, found in spikes.items()}, torch.stack(outputs, 1).numpy()


def _fire(node: nir.IF, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    threshold = torch.from_numpy(node.v_threshold)
    if node.metadata["reset"] == SUBTRACT:
        spikes = (v >= threshold).double()
        return spikes, v - threshold * spikes
    spikes = (v > threshold).double()  # as NIR says
    return spikes, torch.where(spikes > 0, torch.from_numpy(node.v_reset).double(), v)


def _apply(node: nir.NIRNode, x: torch.Tensor) -> torch.Tensor:
    if isinstance(node, nir.Output):
        return x
    if isinstance(node, nir.Flatten):
        return x.flatten(1)
    if isinstance(node, nir.SumPool2d):
        return F.avg_pool2d(x, tuple(node.kernel_size), tuple(node.stride), divisor_override=1)
    if isinstance(node, nir.Scale):
        return x * torch.from_numpy(node.scale)
    weight, bias = torch.from_numpy(node.weight).double(), torch.from_numpy(node.bias).double()
    if isinstance(node, nir.Affine):
        return F.linear(x, weight, bias)
    assert isinstance(node, nir.Conv2d)
    geometry = (tuple(map(int, value)) for value in (node.stride, node.padding, node.dilation))
    return F.conv2d(x, weight, bias, *geometry, int(node.groups))


def _spread(value: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(value).double().reshape(1, -1, *(1,) * (like.ndim - 2))


def _ordered(before: dict[str, list[str]]) -> list[str]:
    order: list[str] = []
    while len(order) < len(before):
        order += [name for name in before if name not in order and set(before[name]) <= set(order)]
    return order
