"""Rounding a network layer by layer so that the input currents, not the single weights, have the smallest error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.fold.folded import Floats, FoldedLayer, FoldedNetwork
from export.round.calibration import IntegerPrefix, float_means, mean_current
from export.round.least_error import ErrorForm, nearest_integers
from export.round.quantize import Grid, Precision, Rounded, choose_grid, effective, learned, nearest
from nqlava.network import IMAGE, Layer

_SHRINK = (1.0, 0.87, 0.75, 0.65, 0.56, 0.48)  # of the largest weight: candidates for the range of the integers

_MEMORY = 2**31  # bytes of spikes


@dataclass(frozen=True)
class Method:
    """How the weights of a network are rounded.

    Attributes:
        feedback: choose integers by ``ErrorForm.integers`` instead of the nearest ones.
        scale_search: choose Δ by its squared error instead of from the largest weight.
        bias_correction: set the bias so that the mean current of every channel equals that of the float SNN
            (Nagel et al., ICCV 2019, arXiv 1906.04721, section 4.2, measured on images).
    """

    feedback: bool = True
    scale_search: bool = True
    bias_correction: bool = True

    @property
    def is_calibrated(self) -> bool:
        """Whether it looks at images."""
        return self.feedback or self.scale_search or self.bias_correction

    def __str__(self) -> str:
        extras = [name for name in ("scale search", "bias correction") if getattr(self, name.replace(" ", "_"))]
        return ", ".join(["error" if self.feedback else "nearest", *extras])


NEAREST = Method(feedback=False, scale_search=False, bias_correction=False)


class CalibratedRounding:
    """Rounding of one layer after the other, each given the spikes that the integer layers before it deliver.

    Args:
        folded: what is quantized.
        images: calibration images, uint8 (N, C, H, W); the first, as many as have spikes that fit into the memory.
        steps: T over which currents are averaged.
        method: what is done.

    Attributes:
        prefix: the integer layers made so far, on the images.
    """

    def __init__(self, folded: FoldedNetwork, images: Tensor, steps: int, method: Method) -> None:
        images = images[: max(1, _MEMORY // (folded.live * steps))]
        self.folded = folded
        self.method = method
        self.prefix = IntegerPrefix(folded, images, steps)
        self._means = float_means(folded, images, steps)

    def __call__(self, layer: FoldedLayer, precision: Precision) -> Rounded:
        blocks: list[tuple[slice, ErrorForm]] = []
        if self.method.feedback or self.method.scale_search:
            moments = self.prefix.moments(layer, centred=self.method.bias_correction)
            rows = len(layer.bias) // len(moments)
            blocks = [(slice(b * rows, (b + 1) * rows), ErrorForm(m)) for b, m in enumerate(moments)]
        ranges = self._ranges(layer, precision, blocks) if self.method.scale_search else None
        grid = choose_grid(layer, self.folded, precision, ranges)
        weights = self._integers(layer, grid, blocks) if self.method.feedback else nearest(layer, self.folded, grid)
        return Rounded(grid, weights, self._bias(layer, grid, weights) if self.method.bias_correction else None)

    def finished(self, layer: Layer) -> None:
        self.prefix.advance(layer)

    def _weights(self, layer: FoldedLayer) -> Tensor:
        """Weights of all learned connections side by side, float64 (O, n)."""
        return _matrix([effective(c, self.folded) for c in learned(layer)])

    def _integers(
        self, layer: FoldedLayer, grid: Grid, blocks: Sequence[tuple[slice, ErrorForm]]
    ) -> list[NDArray[np.int8]]:
        connections = learned(layer)
        weight, step = self._weights(layer), _steps(layer, grid)
        integers = torch.empty_like(weight)
        for rows, form in blocks:
            integers[rows] = form.integers(weight[rows], step[rows], grid.limit)
        ends = np.cumsum([c.weight[0].size for c in connections])[:-1]
        split = np.split(integers.numpy().astype(np.int8), ends, axis=1)
        return [part.reshape(c.weight.shape) for part, c in zip(split, connections, strict=True)]

    def _ranges(
        self, layer: FoldedLayer, precision: Precision, blocks: Sequence[tuple[slice, ErrorForm]]
    ) -> list[Floats]:
        """Per learned connection what the largest integer stands for, (O,): a share of max|w|, the best of a few.

        The best share, of a channel or where Δ is shared of the layer, is that of the least error after rounding.
        """
        weight = self._weights(layer)
        largest = [np.abs(effective(c, self.folded)).reshape(len(weight), -1).max(axis=1) for c in learned(layer)]
        errors = torch.empty(len(_SHRINK), len(weight), dtype=torch.float64)
        for error, share in zip(errors, _SHRINK, strict=True):
            grid = choose_grid(layer, self.folded, precision, [share * value for value in largest])
            step = _steps(layer, grid)
            for rows, form in blocks:
                choose = form.feedback if self.method.feedback else nearest_integers
                error[rows] = form.error(weight[rows], choose(weight[rows], step[rows], grid.limit), step[rows])
        if precision.shares_scale(layer):
            errors = errors.sum(1, keepdim=True).expand_as(errors)
        best = np.array(_SHRINK)[errors.argmin(0).numpy()]
        return [value * best for value in largest]

    def _bias(self, layer: FoldedLayer, grid: Grid, weights: Sequence[NDArray[np.int8]]) -> Floats:
        """b plus the mean of the float SNN's current less that of the integer layer's, without their biases."""
        exact, rounded = [], []
        remaining = iter(enumerate(weights))
        for connection in layer.connections:
            exact.append(effective(connection, self.folded))
            if connection.is_identity and connection.source != IMAGE:
                unit = grid.unit.reshape(-1, 1, 1, 1)
                rounded.append(np.rint(exact[-1] / unit) * unit)
            else:
                index, weight = next(remaining)
                rounded.append(weight * grid.steps(index))
        means = {c.source: self.prefix.mean(c.source) for c in layer.connections}
        change = mean_current(layer, exact, self._means) - mean_current(layer, rounded, means)
        return layer.bias + change.reshape(-1, *[1] * (layer.bias.ndim - 1))


def _matrix(arrays: Sequence[Floats]) -> Tensor:
    """Arrays (O, ...) side by side, (O, n)."""
    return torch.from_numpy(np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1))


def _steps(layer: FoldedLayer, grid: Grid) -> Tensor:
    """Δ of every weight of the learned connections side by side, (O, n)."""
    return _matrix([np.broadcast_to(grid.steps(i), c.weight.shape) for i, c in enumerate(learned(layer))])
