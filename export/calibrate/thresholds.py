"""Thresholds and initial potentials per channel, from the currents that arrive and the activations that are wanted."""

import torch
from torch import Tensor

_SHARES = (0.999, 0.995, 0.99, 0.98, 0.96, 0.92)  # of the activations that a threshold is at least
_BALANCING = 32  # rounds
_LEAST = 1e-3  # of the largest activation of the layer


def choose(wanted: Tensor, current: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """θ and v(0)/θ, (C,), with the least mean squared error of θ · rate per channel.

    Candidates for θ are quantiles of the activations, and the balance of overflow, θ ← θ + 2 · mean(max(a − θ, 0)),
    from 0 on. Each is tried with v(0) = θ/2, and with the v(0) that makes up for the mean error that this leaves.

    Args:
        wanted: activations a of the ReLU network, (C, P).
        current: what arrives, (T, C, P).
        cap: the largest θ.
    """
    steps = len(current)
    largest = max(float(wanted.max()), 1e-6)
    silent = wanted.amax(1) == 0  # such channels could have any threshold; a small one would make their units small
    balanced = torch.zeros(len(wanted))
    for _ in range(_BALANCING):
        balanced += 2 * (wanted - balanced[:, None]).clamp(min=0).mean(1)
    candidates = [*torch.quantile(wanted, torch.tensor(_SHARES), dim=1), balanced]
    error = torch.full((len(wanted),), torch.inf)
    threshold, initial = torch.ones(len(wanted)), torch.full((len(wanted),), 0.5)
    for candidate in candidates:
        theta = torch.where(silent, largest, candidate).clamp(largest * _LEAST, max(cap, largest * _LEAST))
        start = torch.full_like(theta, 0.5)
        for _ in range(2):
            missing = wanted - _counts(current, theta, start) * (theta / steps)[:, None]
            found = missing.square().mean(1)
            better = found < error
            error = torch.where(better, found, error)
            threshold, initial = torch.where(better, theta, threshold), torch.where(better, start, initial)
            start = (start + steps * missing.mean(1) / theta).clamp(0, 1)
    return threshold, initial


def _counts(current: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
    """Spikes of IF neurons with soft reset, (C, P)."""
    theta = threshold[:, None]
    v = (theta * initial[:, None]).expand(current.shape[1:]).clone()
    counts = torch.zeros_like(v)
    for z in current:
        v += z
        fired = (v >= theta).to(v.dtype)
        counts += fired
        v -= fired * theta
    return counts
