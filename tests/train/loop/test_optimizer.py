"""Muon's update is the equation, its directions have equal size, and each parameter has one optimizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tiny import random_tiny
from train.loop.optimizer import Muon, Optimizers, orthogonalized
from train.loop.recipe import Recipe

RECIPE = Recipe(muon=0.06, learning_rate=0.2, bias_rate=4, weight_decay=1e-3)


def moved_by(optimizers: Optimizers, loss: Tensor, network: nn.Module) -> dict[str, Tensor]:
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizers.set_rate(1.0)
    optimizers.step(loss)
    return {name: before[name] - p.detach() for name, p in network.named_parameters()}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 3))
def test_orthogonalized_equals_the_polynomial_on_the_singular_values(rows: int, columns: int, seed: int) -> None:
    """U and V stay, and every singular value s of M/‖M‖ becomes p(p(p(s))) with p(s) = a·s + b·s³ + c·s⁵."""
    matrix = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u, s, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    np.testing.assert_allclose(orthogonalized(matrix).numpy(), u * s @ v, atol=1e-5)


def test_directions_get_nearly_equal_size() -> None:
    """Singular values of a filter's gradient differ by a factor of ten; those of its step by less than two."""
    matrix = torch.randn(64, 288, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 1, 64)[:, None]
    values = torch.linalg.svdvals(orthogonalized(matrix))
    assert values.min() > 0.6 and values.max() < 1.3


def test_two_steps_of_muon_by_hand() -> None:
    """One filter with one weight: its direction is the sign, its norm √1 before the step."""
    weight = nn.Parameter(torch.full((1, 1, 1, 1), 5.0))
    muon = Muon([weight], lr=0.1)
    weight.grad = torch.full_like(weight, 2.0)
    muon.step()
    size = 1.0
    for _ in range(3):
        size = 3.4445 * size - 4.7750 * size**3 + 2.0315 * size**5
    assert float(weight) == pytest.approx(1 - 0.1 * size, rel=1e-5)
    assert float(muon.state[weight]["momentum_buffer"]) == 2
    weight.grad = torch.full_like(weight, -1.0)
    muon.step()  # m = 0.6 · 2 − 1 = 0.2, towards −1 + 0.6 · 0.2 < 0
    assert float(muon.state[weight]["momentum_buffer"]) == pytest.approx(0.2)
    assert float(weight) == pytest.approx(1 + 0.1 * size, rel=1e-5)


def test_each_parameter_has_one_optimizer_and_its_rate() -> None:
    """Muon for filters; SGD for linear weights, with decay; biases of batch norm faster; thresholds and the rest."""
    network = random_tiny(0)
    optimizers = Optimizers(network, RECIPE)
    optimizers.set_rate(0.5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(parameter)]: (type(part).__name__, group["lr"], group.get("weight_decay"))
        for part in optimizers.parts
        for group in part.param_groups
        for parameter in group["params"]
    }
    filters = {f"layers.{i}.weight": ("Muon", 0.03, None) for i in (1, 5)}
    matrices = {f"layers.{i}.weight": ("SGD", 0.1, 1e-3) for i in (10, 12)}
    biases = {f"layers.{i}.bias": ("SGD", 0.4, 0.0) for i in (2, 6)}
    assert {name: found[name] for name in (*filters, *matrices, *biases)} == filters | matrices | biases
    others = found.keys() - filters.keys() - matrices.keys() - biases.keys()
    assert {"layers.3.threshold", "layers.2.weight", "layers.10.bias"} < others
    assert {found[name] for name in others} == {("SGD", 0.1, 0.0)}
    assert len(found) == len(list(network.parameters()))


def test_without_muon_all_is_sgd() -> None:
    optimizers = Optimizers(random_tiny(0), replace(RECIPE, muon=0.0, bias_rate=1.0))
    assert [type(part) for part in optimizers.parts] == [torch.optim.SGD]
    assert [len(group["params"]) for group in optimizers.param_groups] == [4, 10]


def test_filters_keep_their_norm() -> None:
    """√C_out before every step, of which with rate 0 nothing else remains."""
    weight = nn.Parameter(torch.randn(6, 4, 3, 3))
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    Muon([weight]).step()
    torch.testing.assert_close(weight.detach(), before * 6**0.5 / before.norm())


def test_momentum_continues() -> None:
    """With the weights and the momentum of one step, another network's second step is the same."""
    images = torch.randint(256, (8, 3, 8, 6), dtype=torch.uint8)
    first, second = random_tiny(0), random_tiny(0)
    ours, others = Optimizers(first, RECIPE), Optimizers(second, RECIPE)
    assert ours.momentum() == {} and ours.expected().keys() == {
        f"{name} momentum" for name, _ in first.named_parameters()
    }
    moved_by(ours, first(images).square().mean(), first)
    second.load_state_dict(first.state_dict())
    others.load_momentum({name: value.clone() for name, value in ours.momentum().items()})
    steps = [moved_by(o, n(images).square().mean(), n) for o, n in ((ours, first), (others, second))]
    for name, change in steps[0].items():
        assert torch.equal(change, steps[1][name]), name
    assert Optimizers(first, replace(RECIPE, muon=0.0, momentum=0.0)).expected() == {}
