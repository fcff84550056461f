"""Rounding weights so that a layer's input current, not the single weight, has the smallest error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.calibration import IntegerPrefix, Moments, float_means, mean_current
from export.folded import Floats, FoldedLayer, FoldedNetwork
from export.network import IMAGE, Layer
from export.quantize import Grid, Precision, Rounded, choose_grid, effective, learned, nearest

_DAMPING = 0.01  # of the mean variance of the inputs
_BLOCK = 128  # columns whose errors reach the rest of the matrix at once
_SWEEPS = 3
_SHRINK = 0.95 ** np.arange(32)  # of the largest weight: candidates for the range of the integers


def damped(covariance: Tensor) -> Tensor:
    """Covariance + 1 % of its mean diagonal on the diagonal: positive definite, and fewer images do not overfit."""
    diagonal = covariance.diagonal()
    return covariance + torch.eye(len(covariance), dtype=covariance.dtype) * (_DAMPING * float(diagonal.mean()) or 1.0)


def feedback_order(covariance: Tensor) -> Tensor:
    """Inputs of large variance first: what is rounded last finds no other weights to make up for its error."""
    return torch.argsort(covariance.diagonal(), descending=True, stable=True)


def inverse_factor(covariance: Tensor) -> Tensor:
    """Upper triangular U with U^T U = C^{-1}; 1 / U_ii² is the variance of input i given those behind it."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    return torch.linalg.cholesky(inverse, upper=True)


def quadratic(errors: Tensor, covariance: Tensor) -> Tensor:
    """e C e^T per row (O,) of errors (O, n): mean squared error of the current, its mean set aside."""
    return ((errors @ covariance) * errors).sum(1)


def to_grid(weight: Tensor, step: Tensor, limit: int) -> Tensor:
    """clip(round(w / Δ), ±limit), half to even."""
    return (weight / step).round_().clamp_(-limit, limit)


def round_with_feedback(weight: Tensor, step: Tensor, limit: int, factor: Tensor) -> Tensor:
    """Integers (O, n) column by column; the error of each is made up for by the columns still to come.

    GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323, algorithm 1), after optimal brain surgeon: rounding w_i to q_i
    changes every later w_j by −(w_i − q_i) / U_ii · U_ij, which is best for the current.

    Args:
        weight: float64 (O, n).
        step: Δ of every weight, (O, n).
        limit: largest integer.
        factor: U of ``inverse_factor``.
    """
    weight, integers = weight.clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[1], _BLOCK):
        block = slice(start, min(start + _BLOCK, weight.shape[1]))
        errors = torch.empty_like(weight[:, block])
        for i in range(block.start, block.stop):
            integers[:, i] = to_grid(weight[:, i], step[:, i], limit)
            errors[:, i - start] = (weight[:, i] - integers[:, i] * step[:, i]) / factor[i, i]
            weight[:, i + 1 : block.stop] -= torch.outer(errors[:, i - start], factor[i, i + 1 : block.stop])
        weight[:, block.stop :] -= errors @ factor[block, block.stop :]
    return integers


def descend(weight: Tensor, integers: Tensor, step: Tensor, limit: int, covariance: Tensor) -> Tensor:
    """Better integers by coordinate descent: each in turn becomes the best one given all others.

    QuantEase (Behdin et al., arXiv 2309.01885). No change increases the error e C e^T of a row.
    """
    integers = integers.clone()
    gradient = (integers * step - weight) @ covariance
    diagonal = covariance.diagonal()
    for _ in range(_SWEEPS):
        for start in range(0, weight.shape[1], _BLOCK):
            block = slice(start, min(start + _BLOCK, weight.shape[1]))
            inside = gradient[:, block].clone()
            changes = torch.zeros_like(inside)
            for i in range(block.start, block.stop):
                best = to_grid(integers[:, i] * step[:, i] - inside[:, i - start] / diagonal[i], step[:, i], limit)
                changes[:, i - start] = (best - integers[:, i]) * step[:, i]
                inside += torch.outer(changes[:, i - start], covariance[i, block])
                integers[:, i] = best
            gradient += changes @ covariance[block]
    return integers


def least_error(weight: Tensor, step: Tensor, limit: int, covariance: Tensor) -> Tensor:
    """Integers (O, n) of small error e C e^T per row, never larger than that of rounding to the nearest.

    Args:
        weight: float64 (O, n).
        step: Δ of every weight, (O, n).
        limit: largest integer.
        covariance: C of the inputs, float64 (n, n).
    """
    order = feedback_order(covariance)
    back = torch.argsort(order)
    regular = damped(covariance)
    factor = inverse_factor(regular[order][:, order])
    integers = round_with_feedback(weight[:, order], step[:, order], limit, factor)[:, back]
    integers = descend(weight, integers, step, limit, regular)
    plain = to_grid(weight, step, limit)
    worse = quadratic(integers * step - weight, covariance) > quadratic(plain * step - weight, covariance)
    return torch.where(worse[:, None], plain, integers)


@dataclass(frozen=True)
class Method:
    """How the weights of a network are rounded.

    Attributes:
        feedback: choose integers by ``least_error`` instead of the nearest ones.
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
        images: calibration images, uint8 (N, C, H, W).
        steps: T over which currents are averaged.
        method: what is done.
    """

    def __init__(self, folded: FoldedNetwork, images: Tensor, steps: int, method: Method) -> None:
        self.folded = folded
        self.method = method
        self._prefix = IntegerPrefix(folded, images, steps)
        self._means = float_means(folded, images, steps)

    def __call__(self, layer: FoldedLayer, precision: Precision) -> Rounded:
        method = self.method
        moments = self._prefix.moments(layer) if method.feedback or method.scale_search else []
        ranges = self._ranges(layer, precision, moments) if method.scale_search else None
        grid = choose_grid(layer, self.folded, precision, ranges)
        weights = self._integers(layer, grid, moments) if method.feedback else nearest(layer, self.folded, grid)
        return Rounded(grid, weights, self._bias(layer, grid, weights) if method.bias_correction else None)

    def finished(self, layer: Layer) -> None:
        self._prefix.advance(layer)

    def _matrix(self, arrays: Sequence[Floats]) -> Tensor:
        """Weights of all learned connections side by side, (O, n)."""
        return torch.from_numpy(np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1))

    def _integers(self, layer: FoldedLayer, grid: Grid, moments: Sequence[Moments]) -> list[NDArray[np.int8]]:
        connections = learned(layer)
        weight = self._matrix([effective(c, self.folded) for c in connections])
        step = self._matrix([np.broadcast_to(grid.steps(i), c.weight.shape) for i, c in enumerate(connections)])
        integers = torch.empty_like(weight)
        for m in moments:
            integers[m.channels] = least_error(weight[m.channels], step[m.channels], grid.limit, m.covariance)
        parts = integers.numpy().astype(np.int8)
        sizes = np.cumsum([c.weight[0].size for c in connections])[:-1]
        split = np.split(parts, sizes, axis=1)
        return [part.reshape(c.weight.shape) for part, c in zip(split, connections, strict=True)]

    def _ranges(self, layer: FoldedLayer, precision: Precision, moments: Sequence[Moments]) -> list[Floats]:
        """Per learned connection what the largest integer stands for, (O,).

        Of the candidates it is the one with the least Σ_i (w_i − ŵ_i)² / U_ii², where ŵ is w rounded to the nearest:
        what error feedback cannot make up for is the part of an input that the later ones do not predict.
        """
        weights = [torch.from_numpy(effective(c, self.folded).reshape(len(c.weight), -1)) for c in learned(layer)]
        limit = 2 ** (precision.bits_of(layer) - 1) - 1
        importance = torch.cat([self._importance(m).expand(m.channels.stop - m.channels.start, -1) for m in moments])
        shared = precision.shares_scale(layer)
        ranges = []
        for weight, value in zip(weights, importance.split([w.shape[1] for w in weights], dim=1), strict=True):
            largest = weight.abs().amax(1, keepdim=True)
            if shared:
                largest = largest.amax().expand_as(largest)
            losses = []
            for shrink in _SHRINK:
                step = torch.where(largest > 0, largest * shrink / limit, 1.0)
                losses.append((value * (weight - to_grid(weight, step, limit) * step).square()).sum(1))
            loss = torch.stack(losses)
            if shared:
                loss = loss.sum(1, keepdim=True).expand_as(loss)
            ranges.append(largest[:, 0].numpy() * _SHRINK[loss.argmin(0).numpy()])
        return ranges

    def _importance(self, moments: Moments) -> Tensor:
        """1 / U_ii² of every input, (1, n)."""
        order = feedback_order(moments.covariance)
        factor = inverse_factor(damped(moments.covariance)[order][:, order])
        return factor.diagonal()[torch.argsort(order)].square().reciprocal()[None]

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
        means = {c.source: self._prefix.mean(c.source) for c in layer.connections}
        return layer.bias + mean_current(layer, exact, self._means) - mean_current(layer, rounded, means)
