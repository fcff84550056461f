"""Thresholds and initial potentials have the least error among those that are tried."""

import torch

from export.calibrate.thresholds import choose

GENERATOR = torch.Generator().manual_seed(0)
ACTIVATIONS = torch.randn((3, 2000), generator=GENERATOR).relu() * torch.tensor([[1.0], [3.0], [0.0]])


def error(wanted: torch.Tensor, steps: int, theta: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """Of constant currents, per channel: a rate is ⌊T · a/θ + v(0)/θ⌋ / T, from 0 to 1."""
    rate = (steps * wanted / theta[:, None] + initial[:, None]).floor().clamp(0, steps) / steps
    return (rate * theta[:, None] - wanted).square().mean(1)


def test_no_quantile_with_half_a_threshold_is_better() -> None:
    for steps in (1, 4, 16):
        theta, initial = choose(ACTIVATIONS, ACTIVATIONS.expand(steps, -1, -1), torch.inf)
        found = error(ACTIVATIONS, steps, theta, initial)
        for share in (0.999, 0.98, 0.92):
            other = torch.quantile(ACTIVATIONS, share, dim=1).clamp(min=0.01)
            assert (found <= error(ACTIVATIONS, steps, other, torch.full((3,), 0.5)) + 1e-6).all()


def test_thresholds_grow_with_the_steps_and_with_the_channel() -> None:
    """With more levels less has to be cut; with one, half of the range costs most."""
    few, _ = choose(ACTIVATIONS, ACTIVATIONS.expand(1, -1, -1), torch.inf)
    many, _ = choose(ACTIVATIONS, ACTIVATIONS.expand(32, -1, -1), torch.inf)
    assert (many[:2] > few[:2]).all() and (many[1] / many[0]).item() > 2


def test_a_silent_channel_has_a_threshold_of_the_size_of_the_others() -> None:
    """Its biases are small numbers of units then, so that its membrane potential cannot saturate within few steps."""
    theta, _ = choose(ACTIVATIONS, ACTIVATIONS.expand(4, -1, -1), torch.inf)
    assert theta[2] == ACTIVATIONS.max()


def test_no_threshold_is_above_the_cap() -> None:
    theta, _ = choose(ACTIVATIONS.clamp(max=0.5), ACTIVATIONS.expand(32, -1, -1), 0.5)
    assert (theta <= 0.5).all() and (theta > 0).all()
