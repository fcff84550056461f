"""The numbers behind the figures, against brute force and by hand."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from tests import float_oracle
from tests.tiny import image_set, random_residual, random_tiny, randomise
from train.curves import (
    Resets,
    Residuals,
    by_noise_factor,
    compare_resets,
    constant_current,
    history,
    is_relu,
    mean_and_spread,
    measure,
    recipe,
    write_csv,
)
from train.loop.checkpoint import ModelFile
from train.model.activation import NQ, RateReLU
from train.model.models import Network, Normalize
from train.model.snn import neurons


def relu_network(threshold: float = 0.4) -> nn.Sequential:
    """A convolution and two linear layers with ReLU between, over the 8x6 images of tests.tiny."""
    layers = [nn.Conv2d(3, 4, 3, bias=False), RateReLU(threshold), nn.Flatten(), nn.Linear(96, 6, bias=False)]
    network = nn.Sequential(Normalize((0.2,) * 3, (0.25,) * 3), *layers, RateReLU(threshold), nn.Linear(6, 5))
    randomise(network, 1)
    return network


@pytest.mark.parametrize("build", [random_tiny, random_residual])
@pytest.mark.parametrize("steps", [3, 4])
def test_measures_what_brute_force_measures(steps: int, build: Callable[[int], Network]) -> None:
    network, data = build(5), image_set(5)
    network.activations[1].sigma.fill_(0.25)
    images = data.images.permute(0, 3, 1, 2).numpy()
    outputs, rates = (
        [np.stack([sample[index] for sample in samples]).ravel() for index in range(len(network.activations))]
        for samples in (
            [float_oracle.ann(network, image)[0] for image in images],
            [float_oracle.snn(network, image, steps)[0] for image in images],
        )
    )
    _, curves = measure(network, data, steps)
    assert curves[1].sigma == 0.25
    for layer, ann, snn in zip(curves, outputs, rates, strict=True):
        error, found = ann - snn, layer.residuals
        assert found.mean == pytest.approx(error.mean(), abs=1e-6)
        assert found.deviation == pytest.approx(error.std(), abs=1e-6)
        if error.std() > 1e-3:
            standard = (error - error.mean()) / error.std()
            assert found.skewness == pytest.approx((standard**3).mean(), abs=1e-4)
            assert found.kurtosis == pytest.approx((standard**4).mean() - 3, abs=1e-3)
        assert len(found.centres) == 2 * (12 if steps == 3 else 4) + 1  # lcm(L, T) cells from 0 to θ
        nearest = np.abs(error[:, None] - np.array(found.centres)).argmin(1)
        assert found.counts == tuple(np.bincount(nearest, minlength=len(found.centres)))
        assert layer.activity == pytest.approx(100 * snn.mean() / layer.threshold)
        levels = np.round(ann * 4 / layer.threshold)
        kept = [levels == level for level in range(5) if (levels == level).any()]
        assert layer.response.counts == tuple(chosen.sum() for chosen in kept)
        for name, values, statistic in (("ann", ann, np.mean), ("mean", snn, np.mean), ("deviation", snn, np.std)):
            expected = [statistic(values[chosen]) for chosen in kept]
            np.testing.assert_allclose(getattr(layer.response, name), expected, atol=1e-5)
    assert any(layer.residuals.deviation > 0.05 for layer in curves)


def test_values_beyond_the_threshold_are_in_the_last_cell() -> None:
    """ReLU is not bounded by θ, its SNN is: with a tiny θ the error is nearly the ANN's output."""
    _, (first, _) = measure(relu_network(1e-3), image_set(4), 4)
    assert first.sigma is None
    assert first.residuals.counts[-1] > 0.3 * sum(first.residuals.counts)
    assert first.residuals.mean > first.residuals.centres[-1] and first.response.ann[-1] > first.threshold


def test_gaussian_of_the_cells() -> None:
    found = Residuals((-0.5, 0.0, 0.5), (10, 60, 30), mean=0.1, deviation=0.4, skewness=0, kurtosis=0)
    fitted = NormalDist(0.1, 0.4)
    below, above = fitted.cdf(-0.25), 1 - fitted.cdf(0.25)
    assert found.shares == [0.1, 0.6, 0.3]
    assert found.gaussian == pytest.approx([below, 1 - below - above, above])
    assert found.distance == pytest.approx(0.6 - (1 - below - above))  # only the middle cell has too many
    no_error = Residuals((-0.5, 0.0, 0.5), (0, 100, 0), mean=0, deviation=0, skewness=0, kurtosis=0)
    assert no_error.gaussian == [0, 1, 0] and no_error.distance == 0


@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_staircase_of_constant_currents(steps: int) -> None:
    """NQ: θ·clip(⌊T·z/θ + 1/2⌋/T, 0, 1), which is the ANN's where T = L. ReLU: without the half."""
    for neuron, half in ((NQ(4, 1.5).eval(), 0.5), (RateReLU(1.5), 0.0)):
        z, ann, snn = constant_current(neuron, steps, points=607)  # no point where floor jumps
        torch.testing.assert_close(snn, 1.5 * torch.clamp(torch.floor(z / 1.5 * steps + half) / steps, 0, 1))
        torch.testing.assert_close(ann, neuron(z).detach())
        assert (float(z[0]), float(z[-1])) == pytest.approx((-0.375, 1.875), abs=0.01)
        assert neuron.steps is None
    if steps == 4:
        _, ann, snn = constant_current(NQ(4, 1.5).eval(), steps, points=607)
        torch.testing.assert_close(ann, snn)


def test_staircases_of_channels_with_potentials_of_their_own_are_averaged() -> None:
    neuron = NQ(4, 1.5).eval()
    neuron.initial = torch.tensor([0.25, 0.75])
    z, _, snn = constant_current(neuron, 3, points=607)
    each = [torch.clamp(torch.floor(z / 1.5 * 3 + start) / 3, 0, 1) for start in (0.25, 0.75)]
    torch.testing.assert_close(snn, 1.5 * (each[0] + each[1]) / 2)


def test_resets_equal_scalar_simulation_and_are_put_back() -> None:
    network, data = relu_network(), image_set(6)
    neurons(network)[1].reset = "hard"
    found = compare_resets(network, data, 5)
    assert [neuron.reset for neuron in neurons(network)] == ["soft", "hard"]
    for reset, accuracies in (("soft", found.soft), ("hard", found.hard)):
        for neuron in neurons(network):
            neuron.reset = reset
        answers = [
            float_oracle.snn(network, image, 5)[1].argmax(1) for image in data.images.permute(0, 3, 1, 2).numpy()
        ]
        right = np.stack(answers) == data.labels.numpy()[:, None]
        assert accuracies == pytest.approx(100 * right.mean(0))
    assert found.soft != found.hard
    with torch.no_grad():
        right = network(data.images.permute(0, 3, 1, 2)).argmax(1) == data.labels
    assert found.ann == pytest.approx(100 * float(right.float().mean()))


def test_ratio_of_steps() -> None:
    found = Resets(ann=80, soft=(10, 60, 70, 75, 70, 79), hard=(10, 20, 30, 50, 62, 62))
    assert (found.hard_steps, found.soft_steps, found.ratio) == (5, 3, pytest.approx(5 / 3))
    never = Resets(ann=80, soft=(10, 20), hard=(10, 30))
    assert (never.hard_steps, never.soft_steps, never.ratio) == (2, None, None)


def test_which_networks_are_relu() -> None:
    mixed = nn.Sequential(RateReLU(), NQ(4))
    assert [is_relu(n) for n in (relu_network(), random_tiny(0), mixed, nn.Linear(1, 1))] == [True, False, False, False]


def test_sets_of_models_that_differ_in_noise_and_seed_alone() -> None:
    base = {"model": "vgg_tiny", "epochs": 15}
    recipes = [
        {**base, "noise_factor": 1.0, "seed": 0},
        {**base, "noise_factor": 0, "seed": 0},
        {**base, "noise_factor": 1.0, "seed": 1},
        {**base, "noise_factor": 2.0, "seed": 1, "epochs": 16},
        {},
        {**base, "noise_factor": "much"},
    ]
    assert by_noise_factor(recipes) == [{0.0: [1], 1.0: [0, 2]}]
    assert by_noise_factor(recipes[2:]) == []
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5)) and mean_and_spread([7.0]) == (7.0, 0.0)


def test_reads_what_files_tell_of_their_training() -> None:
    good = {"epoch": 1, "ann": 50.0, "snn": 40.5, "loss": 1.0}
    info = {"recipe": {"seed": 3}, "history": [good, {"epoch": 2}, "x", {**good, "snn": float("nan")}]}
    model = ModelFile(random_tiny(0), "tiny", ("a",), info)
    assert recipe(model) == {"seed": 3} and history(model) == [(1, 50.0, 40.5)]
    for other in ({}, {"recipe": [], "history": {}}):
        assert recipe(replace(model, info=other)) == {} and history(replace(model, info=other)) == []


def test_csv_keeps_all_digits(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("name, odd", "value (%)"), [("a", 1 / 3), ("b", None)])
    with (tmp_path / "a.csv").open(newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["name, odd", "value (%)"] and float(first[1]) == 1 / 3 and second == ["b", ""]
