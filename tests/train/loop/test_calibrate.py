"""Noise induction measures what a brute-force simulation measures."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests import float_oracle
from tests.tiny import image_set, random_residual, random_tiny, randomise
from train.choices import Reset
from train.loop.calibrate import balance_thresholds, evaluate, set_noise
from train.model.activation import RateReLU
from train.model.models import Network, Normalize

STEPS, BATCH = 3, 2


@pytest.mark.parametrize("build", [random_tiny, random_residual])
def test_equals_brute_force(build: Callable[[int], Network]) -> None:
    """σ: per batch the variance of ANN − SNN over all neurons and images, then the mean over batches, then the root."""
    network, data = build(5), image_set(5)
    images, labels = data.images.permute(0, 3, 1, 2).numpy(), data.labels.numpy()
    gaps: list[list[np.ndarray]] = [[] for _ in network.activations]
    right_ann, right_snn = 0, np.zeros(STEPS)
    for image, label in zip(images, labels, strict=True):
        outputs, scores = float_oracle.ann(network, image)
        rates, over_time = float_oracle.snn(network, image, STEPS)
        for gap, output, rate in zip(gaps, outputs, rates, strict=True):
            gap.append(output - rate)
        right_ann += scores.argmax() == label
        right_snn += over_time.argmax(1) == label
    sigma = [
        np.sqrt(np.mean([np.var(gap[start : start + BATCH], ddof=1) for start in range(0, 5, BATCH)])) for gap in gaps
    ]

    result = evaluate(network, data, STEPS, batch=BATCH)
    assert min(sigma) > 0
    np.testing.assert_allclose(result.sigma, sigma, rtol=1e-4)
    assert result.ann == pytest.approx(100 * right_ann / 5)
    assert result.snn == pytest.approx(100 * right_snn / 5)


def test_accuracy_counts_over_uneven_batches() -> None:
    """With a classifier that always answers class 1, the accuracy is the share of class 1."""
    network, data = random_tiny(5, classes=3), image_set(11, classes=3)
    with torch.no_grad():
        network.layers[-1].weight.zero_()
        network.layers[-1].bias.copy_(torch.tensor([0.0, 1.0, 0.5]))
    for batch in (None, 1, 4, 11):
        result = evaluate(network, data, 2, batch=batch)
        assert result.ann == pytest.approx(400 / 11) and result.snn == pytest.approx((400 / 11,) * 2)


@pytest.mark.parametrize("training", [False, True])
def test_leaves_the_network_as_it_was(training: bool) -> None:
    network, data = random_tiny(5).train(training), image_set(4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    evaluate(network, data, 2)
    with pytest.raises(RuntimeError):
        evaluate(network, replace(data, images=data.images[:, :5]), 2)  # too small for the linear layer
    assert {m.training for m in network.modules()} == {training}
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(a._forward_hooks for a in network.activations)


def test_set_noise_stores_the_scaled_deviations() -> None:
    network = random_tiny(0)
    set_noise(network, (1.0, 2.0, 4.0), factor=0.5)
    assert [float(a.sigma) for a in network.activations] == [0.5, 1.0, 2.0]
    with pytest.raises(ValueError):
        set_noise(network, (1.0, 2.0))


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_thresholds_are_the_largest_currents_behind_spiking_layers(reset: Reset) -> None:
    layers = [nn.Conv2d(3, 4, 3, bias=False), RateReLU(9.0, reset), nn.Flatten(), nn.Linear(96, 6, bias=False)]
    network = nn.Sequential(Normalize((0.2,) * 3, (0.25,) * 3), *layers, RateReLU(9.0, reset), nn.Linear(6, 5))
    randomise(network, 1)
    images = image_set(4).images.permute(0, 3, 1, 2)
    balance_thresholds(network, images, 5, factor=0.5)
    for position in (2, 5):
        before = nn.Sequential(*network[:position], nn.Flatten()).eval()
        sums = [float_oracle.snn(before, image, 5)[1] * np.arange(1, 6)[:, None] for image in images.numpy()]
        largest = max(np.diff(total, axis=0, prepend=0).max() for total in sums)
        assert float(network[position].threshold) == pytest.approx(0.5 * largest, rel=1e-5)


def test_a_layer_without_positive_current_has_no_threshold() -> None:
    network = nn.Sequential(Normalize((0.0,) * 3, (1.0,) * 3), nn.Flatten(), nn.Linear(144, 2), RateReLU())
    with torch.no_grad():
        network[2].weight.fill_(-1.0)
        network[2].bias.zero_()
    with pytest.raises(ValueError, match=r"activation 0: the largest current is 0\.0; allowed: positive numbers"):
        balance_thresholds(network, image_set(2).images.permute(0, 3, 1, 2), 2)
