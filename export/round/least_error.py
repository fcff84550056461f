"""Rounding the rows of a matrix so that their products with given inputs, not the single weights, change least."""

from functools import cached_property

import torch
from torch import Tensor

_DAMPING = 0.01  # of the mean variance of the inputs
_BLOCK = 128  # columns whose changes reach the rest of the matrix at once
_SWEEPS = 3


def nearest_integers(weight: Tensor, step: Tensor, limit: int) -> Tensor:
    """clip(round(w / Δ), ±limit), half to even."""
    return (weight / step).round_().clamp_(-limit, limit)


class ErrorForm:
    """e C e^T, the mean squared change of a row's product with the inputs where its weights change by e.

    Args:
        moments: C, float64 (n, n): second moments of the inputs; their covariance where the mean change is set right
            by a bias.
    """

    def __init__(self, moments: Tensor) -> None:
        self.moments = moments

    @cached_property
    def _damped(self) -> Tensor:
        """C with 1 % of its mean diagonal added to the diagonal: positive definite, and closer to nearest."""
        damping = _DAMPING * float(self.moments.diagonal().mean()) or 1.0
        return self.moments + damping * torch.eye(len(self.moments), dtype=self.moments.dtype)

    @cached_property
    def _order(self) -> Tensor:
        """Inputs of large variance first: what is rounded last finds no other weights to make up for its error."""
        return torch.argsort(self.moments.diagonal(), descending=True, stable=True)

    @cached_property
    def _factor(self) -> Tensor:
        """Upper triangular U with U^T U = C^{-1}, in the order of rounding."""
        ordered = self._damped[self._order][:, self._order]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
        return torch.linalg.cholesky(inverse, upper=True)

    def error(self, weight: Tensor, integers: Tensor, step: Tensor) -> Tensor:
        """e C e^T (O,) of e = Δ · integers − w; all arguments (O, n)."""
        change = integers * step - weight
        return ((change @ self.moments) * change).sum(1)

    def feedback(self, weight: Tensor, step: Tensor, limit: int) -> Tensor:
        """Integers column by column; what rounding one changes is made up for by the columns still to come.

        GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323, algorithm 1), from optimal brain surgeon: where w_i becomes
        q_i, every later w_j changes by −(w_i − q_i) / U_ii · U_ij, which is best for e C e^T.

        Args:
            weight: float64 (O, n).
            step: Δ of every weight, (O, n).
            limit: largest integer.
        """
        factor = self._factor
        weight, step = weight[:, self._order], step[:, self._order]
        integers = torch.empty_like(weight)
        for start in range(0, weight.shape[1], _BLOCK):
            block = slice(start, min(start + _BLOCK, weight.shape[1]))
            changes = torch.empty_like(weight[:, block])
            for i in range(block.start, block.stop):
                integers[:, i] = nearest_integers(weight[:, i], step[:, i], limit)
                changes[:, i - start] = (weight[:, i] - integers[:, i] * step[:, i]) / factor[i, i]
                weight[:, i + 1 : block.stop] -= torch.outer(changes[:, i - start], factor[i, i + 1 : block.stop])
            weight[:, block.stop :] -= changes @ factor[block, block.stop :]
        return integers[:, torch.argsort(self._order)]

    def descend(self, weight: Tensor, integers: Tensor, step: Tensor, limit: int) -> Tensor:
        """Better integers by coordinate descent: each in turn becomes the best one given all others.

        QuantEase (Behdin et al., arXiv 2309.01885). No change increases the (damped) error of a row.
        """
        integers, damped = integers.clone(), self._damped
        gradient = (integers * step - weight) @ damped
        diagonal = damped.diagonal()
        for _ in range(_SWEEPS):
            for start in range(0, weight.shape[1], _BLOCK):
                block = slice(start, min(start + _BLOCK, weight.shape[1]))
                inside = gradient[:, block].clone()
                changes = torch.zeros_like(inside)
                for i in range(block.start, block.stop):
                    wanted = integers[:, i] * step[:, i] - inside[:, i - start] / diagonal[i]
                    best = nearest_integers(wanted, step[:, i], limit)
                    changes[:, i - start] = (best - integers[:, i]) * step[:, i]
                    inside += torch.outer(changes[:, i - start], damped[i, block])
                    integers[:, i] = best
                gradient += changes @ damped[block]
        return integers

    def integers(self, weight: Tensor, step: Tensor, limit: int) -> Tensor:
        """Integers (O, n) of small error, in no row larger than that of the nearest ones; arguments of ``feedback``."""
        found = self.descend(weight, self.feedback(weight, step, limit), step, limit)
        plain = nearest_integers(weight, step, limit)
        worse = self.error(weight, found, step) > self.error(weight, plain, step)
        return torch.where(worse[:, None], plain, found)
