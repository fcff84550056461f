"""Corrections come to the least squares solution where it holds on other images, and stay away where it does not."""

from dataclasses import replace

import numpy as np
import torch

from export.calibrate.weights import corrected
from export.fold.folded import FoldedConnection, FoldedLayer

GENERATOR = torch.Generator().manual_seed(0)
COUNT = 400


def layer(groups: int = 1, window: int = 1) -> FoldedLayer:
    weight = torch.randn(4, 4 // groups, 2, 2, generator=GENERATOR).double().numpy()
    return FoldedLayer("a", (FoldedConnection("s", (4, 6, 6), weight, (window, window), groups=groups),), np.zeros(4))


def received(made: FoldedLayer, rates: torch.Tensor) -> torch.Tensor:
    """The current in float64."""
    c = made.connections[0]
    means = torch.nn.functional.avg_pool2d(rates.double(), c.window)
    current = torch.nn.functional.conv2d(means, torch.from_numpy(c.weight), groups=c.groups)
    return current + torch.from_numpy(made.bias)[:, None, None]


def test_a_wrong_weight_and_bias_are_found() -> None:
    for groups, window in ((1, 1), (2, 1), (4, 1), (1, 2)):
        right = replace(layer(groups, window), bias=np.array([0.5, -1, 0, 2]))
        wrong = replace(
            right,
            bias=np.zeros(4),
            connections=(replace(right.connections[0], weight=right.connections[0].weight + 0.3),),
        )
        rates = torch.rand((COUNT, 4, 6, 6), generator=GENERATOR)
        missing = (received(right, rates) - received(wrong, rates)).float()
        parts = [({"s": rates[i : i + 100]}, missing[i : i + 100]) for i in range(0, COUNT, 100)]
        before = float(missing.square().mean())
        found = corrected(wrong, parts, COUNT)
        assert float((received(right, rates) - received(found, rates)).square().mean()) < 0.01 * before
        np.testing.assert_allclose(found.connections[0].weight, right.connections[0].weight, atol=0.1)


def test_noise_changes_the_bias_alone() -> None:
    """What inputs do not explain is worse on images held out, so that the weights stay."""
    made = layer()
    rates = torch.rand((20, 4, 6, 6), generator=GENERATOR)
    missing = torch.randn((20, 4, 5, 5), generator=GENERATOR) * torch.rand(20, 1, 1, 1, generator=GENERATOR) + 1.5
    found = corrected(made, [({"s": rates}, missing)], 20)
    change = found.connections[0].weight - made.connections[0].weight
    assert np.abs(change).max() < 0.2
    np.testing.assert_allclose(found.bias, missing.mean((0, 2, 3)), atol=0.2)


def test_identity_shortcuts_keep_their_weight() -> None:
    shortcut = FoldedConnection("s", (4, 6, 6), np.full((4, 1, 1, 1), 0.7), groups=4, is_identity=True)
    made = FoldedLayer("a", (shortcut,), np.zeros(4))
    found = corrected(made, [({"s": torch.rand(9, 4, 6, 6)}, torch.full((9, 4, 6, 6), 0.25))], 9)
    assert found.connections == made.connections
    np.testing.assert_allclose(found.bias, 0.25)
