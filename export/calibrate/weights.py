"""Weights and biases that make up for what spikes lose: least squares on the spikes that really arrive."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import lcm, prod

import numpy as np
import torch
from torch import Tensor

from export.fold.folded import Floats, FoldedConnection, FoldedLayer
from export.round.calibration import unfolded
from nqlava.network import IMAGE

_RIDGES = (0.01, 0.1, 1.0, 10.0)  # times the mean square of the inputs
_MOST = 4608  # inputs of a kernel
_ROWS = 2**16  # samples at least, where the images have so many
_PER_INPUT = 8  # samples at least, where the images have so many
_HELD_OUT = 5  # every fifth image decides about the ridge

Parts = Iterable[tuple[Mapping[str, Tensor], Tensor]]


def corrected(layer: FoldedLayer, parts: Parts, images: int, seed: int = 0) -> FoldedLayer:
    """The layer with weights w + d and biases b + c, of least squared error with a penalty on d:

        min over d, c of  mean (r − d · x − c)² + ρ · mean(x²) · |d|²

    x are the mean rates that a kernel sees, r what is missing there to the current of the ReLU network. Of several ρ,
    and of d = 0, the one with the least error on every fifth image is taken, fitted on the others; then d and c are
    fitted on all. Connections from the image, and identity shortcuts, keep their weights.

    Args:
        layer: its sources have spikes of the amplitude 1.
        parts: per part of the images what the sources send on average, (n, *shape), and r (n, *output_shape).
        images: in all parts.
        seed: of the positions that are used.
    """
    chosen = [c for c in layer.connections if c.source != IMAGE and not c.is_identity]
    inputs = sum(prod(c.weight.shape[1:]) for c in chosen)
    positions = prod(layer.connections[0].output_shape[1:])
    wanted = min(positions, -(-max(_ROWS, _PER_INPUT * inputs) // images))
    fits = bool(chosen) and inputs <= _MOST and wanted * images >= inputs
    moments = _Moments(chosen, len(layer.bias)) if fits else None
    generator = torch.Generator().manual_seed(seed)
    shift, first = torch.zeros(len(layer.bias), dtype=torch.float64), 0
    for rates, missing in parts:
        shift += missing.transpose(0, 1).flatten(1).double().mean(1) * len(missing) / images
        if moments is not None:
            at = torch.randperm(positions, generator=generator)[:wanted]
            moments.add(rates, missing.flatten(2)[:, :, at] if missing.dim() > 2 else missing[:, :, None], at, first)
        first += len(missing)
    if moments is not None and (change := moments.solution()) is not None:
        shift = change[:, -1]
        made = iter(_added(chosen, change[:, :-1].numpy()))
        connections = tuple(next(made) if any(c is k for k in chosen) else c for c in layer.connections)
        layer = replace(layer, connections=connections)
    return replace(layer, bias=layer.bias + shift.numpy().reshape(-1, *[1] * (layer.bias.ndim - 1)))


class _Moments:
    """Second moments of the inputs, and their products with what is missing: of the images that fit, and the others."""

    def __init__(self, connections: Sequence[FoldedConnection], outputs: int) -> None:
        self._connections = connections
        self._blocks = lcm(*(c.groups for c in connections))
        size = sum(prod(c.weight.shape[1:]) for c in connections) + 1
        self._inputs = torch.zeros(2, self._blocks, size, size, dtype=torch.float64)
        self._products = torch.zeros(2, self._blocks, size, outputs // self._blocks, dtype=torch.float64)

    def add(self, rates: Mapping[str, Tensor], missing: Tensor, positions: Tensor, first: int) -> None:
        """Take a part of the images, the first of which has the number ``first``.

        Args:
            rates: per source, (n, *shape).
            missing: at the positions, (n, O, P).
            positions, first: see above.
        """
        start = 0
        for rows in unfolded(self._connections, [rates[c.source] for c in self._connections]):
            count = len(rows[0])
            blocks = [torch.arange(self._blocks) * c.groups // self._blocks for c in self._connections]
            x = torch.cat([r[:, :, positions][:, b] for r, b in zip(rows, blocks, strict=True)], 3)
            x = torch.cat([x, torch.ones(*x.shape[:3], 1)], 3).transpose(0, 1)  # (blocks, n, P, inputs and 1)
            y = missing[start : start + count].unflatten(1, (self._blocks, -1)).permute(1, 0, 3, 2)
            held_out = (torch.arange(first + start, first + start + count) % _HELD_OUT) == _HELD_OUT - 1
            for index, part in enumerate((~held_out, held_out)):
                a, b = x[:, part].flatten(1, 2), y[:, part].flatten(1, 2)
                self._inputs[index] += (a.mT @ a).double()
                self._products[index] += (a.mT @ b).double()
            start += count

    def solution(self) -> Tensor | None:
        """d and c, (O, inputs + 1); None where no change is better on the images held out than that of the bias."""
        if not self._inputs[1].any():
            return None
        found = {ridge: self._error(self._solve(self._inputs[0], self._products[0], ridge)) for ridge in _RIDGES}
        none = torch.zeros_like(self._products[0])
        none[:, -1] = self._products[0, :, -1] / self._inputs[0, :, -1:, -1]
        best = min(found, key=found.__getitem__)
        if not found[best] < self._error(none):
            return None
        return self._solve(self._inputs.sum(0), self._products.sum(0), best).mT.flatten(0, 1)

    def _solve(self, inputs: Tensor, products: Tensor, ridge: float) -> Tensor:
        diagonal = inputs.diagonal(dim1=1, dim2=2)[:, :-1]
        penalty = torch.zeros(inputs.shape[:2], dtype=torch.float64)
        penalty[:, :-1] = (ridge * diagonal.mean(1, keepdim=True)).clamp(min=1e-12)
        return torch.linalg.solve(inputs + torch.diag_embed(penalty), products)

    def _error(self, change: Tensor) -> float:
        """Squared error on the images held out, less that of no change."""
        return float((change * (self._inputs[1] @ change - 2 * self._products[1])).sum())


def _added(connections: Sequence[FoldedConnection], change: Floats) -> list[FoldedConnection]:
    """The connections with changed weights; the change (O, inputs) is that per sum over a window."""
    found, start = [], 0
    for c in connections:
        size = prod(c.weight.shape[1:])
        part = np.ascontiguousarray(change[:, start : start + size]).reshape(c.weight.shape)
        found.append(replace(c, weight=c.weight + part * prod(c.window)))
        start += size
    return found
