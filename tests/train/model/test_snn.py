"""The float SNN equals a scalar simulation, step by step, and on average what NQ computes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import float_oracle
from tests.tiny import image_set, random_residual, random_tiny, randomise
from train.choices import Reset
from train.model.activation import NQ, Neuron, RateReLU
from train.model.models import Network, Normalize
from train.model.snn import poisson_input, simulate, spiking


@pytest.mark.parametrize("build", [random_tiny, random_residual])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_equals_scalar_simulation(steps: int, build: Callable[[int], Network]) -> None:
    network, images = build(3), image_set(3).images.permute(0, 3, 1, 2)
    rates: dict[int, Tensor] = {}
    scores = simulate(network, images, steps, rates.__setitem__)
    assert scores.shape == (steps, 3, 5) and list(rates) == list(range(len(network.activations)))
    if steps == 5:  # neither silent nor always firing
        assert all(0 < rates[i].mean() < float(a.threshold.detach()) for i, a in enumerate(network.activations))
    for n, image in enumerate(images.numpy()):
        expected_rates, expected = float_oracle.snn(network, image, steps)
        np.testing.assert_allclose(scores[:, n], expected, rtol=1e-4, atol=1e-4)
        for index, rate in enumerate(expected_rates):
            np.testing.assert_allclose(rates[index][n], rate, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_rate_coding_equals_scalar_simulation(reset: Reset) -> None:
    """v(0) = 0 and either reset, with thresholds far enough from each other to tell the two apart."""
    layers = [nn.Conv2d(3, 4, 3, bias=False), RateReLU(0.4, reset), nn.Flatten(), nn.Linear(96, 5, bias=False)]
    network = nn.Sequential(Normalize((0.2,) * 3, (0.25,) * 3), *layers)
    randomise(network, 1)
    images = image_set(2).images.permute(0, 3, 1, 2)
    scores = simulate(network, images, 6)
    for n, image in enumerate(images.numpy()):
        np.testing.assert_allclose(scores[:, n], float_oracle.snn(network, image, 6)[1], rtol=1e-4, atol=1e-4)
    network[2].reset = "hard" if reset == "soft" else "soft"
    assert not torch.allclose(simulate(network, images, 6), scores, atol=1e-2)


def test_afterwards_the_activations_are_activations_again() -> None:
    network, images = random_residual(3), image_set(3).images.permute(0, 3, 1, 2)
    before = network(images)
    simulate(network, images, 3)
    assert torch.equal(network(images), before)
    with pytest.raises(RuntimeError):
        simulate(network, images[:, :, :1], 3)  # too small for the pooling
    assert torch.equal(network(images), before)
    assert all(m.steps is None and not m._forward_hooks for m in network.modules() if isinstance(m, Neuron))


def test_double_precision_stays_double() -> None:
    network, images = random_residual(3), image_set(3).images.permute(0, 3, 1, 2)
    single = simulate(network, images, 3)
    torch.testing.assert_close(simulate(network.double(), images, 3), single, rtol=1e-4, atol=1e-4)


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    network, images = random_tiny(4), image_set(5).images.permute(0, 3, 1, 2)
    torch.testing.assert_close(simulate(network, images, 6)[:3], simulate(network, images, 3))


def test_images_do_not_interact() -> None:
    network, images = random_tiny(4), image_set(5).images.permute(0, 3, 1, 2)
    torch.testing.assert_close(simulate(network, images, 4)[:, 2:3], simulate(network, images[2:3], 4))


@pytest.mark.parametrize("levels", [1, 2, 4, 7])
def test_rate_over_L_steps_equals_the_quantized_activation(levels: int) -> None:
    """With v(0) = θ/2 and a constant current z, θ·rate over T = L steps is NQ(z): z from below 0 to above θ."""
    theta = 1.5
    z = torch.linspace(-0.5, 2.5, 3001)
    position = z * levels / theta + 0.5
    z = z[(position - position.round()).abs() > 1e-3]  # away from rounding ties
    activation = NQ(levels, theta).eval()
    # One pixel per value of z: the image is zero, so that Normalize yields -mean/std = z.
    network = Network(
        [Normalize((-z / 1.0).tolist(), (1.0,) * len(z)), nn.Flatten(), activation, nn.Linear(len(z), 1)],
        input_shape=(len(z), 1, 1),
        levels=levels,
    ).eval()
    rates: list[Tensor] = []
    simulate(network, torch.zeros(1, len(z), 1, 1, dtype=torch.uint8), levels, lambda _, rate: rates.append(rate))
    with torch.no_grad():
        torch.testing.assert_close(rates[0][0], activation(z))
    assert len(rates[0].round(decimals=4).unique()) == levels + 1


def test_poisson_input_is_spikes_whose_mean_is_the_normalised_image() -> None:
    normalize = Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3))
    network, images = nn.Sequential(normalize, RateReLU()), image_set(1).images.permute(0, 3, 1, 2)
    assert normalize.largest == pytest.approx(3), "0.6 / 0.2 of the second channel"
    expected = normalize(images)
    with poisson_input(network, torch.Generator().manual_seed(0)):
        assert torch.equal(normalize(images), expected), "the ANN keeps its input"
        with spiking(network, 4000):
            spikes = normalize(images.repeat(4000, 1, 1, 1))
    assert spikes.unique().tolist() == pytest.approx([-normalize.largest, 0, normalize.largest])
    error = (spikes.mean(0) - expected[0]).abs()
    assert float(error.max()) < 5 * 0.5 * normalize.largest / 4000**0.5, "five standard deviations at most"
    assert torch.equal(normalize(images), expected), "afterwards as before"


def test_poisson_input_reaches_the_network_and_is_decided_by_the_generator() -> None:
    network, images = random_residual(3), image_set(3).images.permute(0, 3, 1, 2)
    scores = []
    for seed in (0, 0, 1):
        with poisson_input(network, torch.Generator().manual_seed(seed)):
            scores.append(simulate(network, images, 5))
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])
    assert not torch.equal(scores[0], simulate(network, images, 5))
