"""σ of a trained network on real images, against a loop over neurons and steps in Python's floats."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import float_oracle
from train.data.images import load
from train.loop.calibrate import evaluate
from train.loop.checkpoint import read_model
from train.model.activation import Neuron
from train.model.snn import neurons, simulate

PRETRAINED = Path("train/pretrained")
IMAGES, BATCH = 3, 2


def layer_output(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """``float_oracle.layer_output`` with PyTorch's float64 functions where loops would take minutes."""
    if isinstance(module, nn.Conv2d):
        weight = module.weight.detach().double()
        return nn.functional.conv2d(torch.from_numpy(x)[None], weight, None, module.stride, module.padding)[0].numpy()
    if isinstance(module, nn.AvgPool2d):
        return nn.functional.avg_pool2d(torch.from_numpy(x)[None], module.kernel_size)[0].numpy()
    return float_oracle.layer_output(module, x)


def quantized_levels(network: nn.Module, image: np.ndarray) -> list[list[int]]:
    """Per activation the level clip(⌊z·L/λ + 1/2⌋, 0, L) of every neuron; a level stands for λ/L."""
    found: list[list[int]] = []

    def quantize(module: Neuron, z: np.ndarray) -> np.ndarray:
        size, count = float(module.threshold.detach()) / module.levels, module.levels
        found.append([min(max(int(value // size + (value % size >= size / 2)), 0), count) for value in z.flat])
        return np.array(found[-1]).reshape(z.shape) * size

    float_oracle.forward(network, image.astype(np.float64), quantize, layer_output)
    return found


def spike_counts(network: nn.Module, image: np.ndarray, steps: int) -> list[list[int]]:
    """Per activation the number of spikes of every neuron: v(0) = θ/2; v ← v + z; at v ≥ θ a spike, and v ← v − θ."""
    potentials: dict[Neuron, list[float]] = {}
    counts: dict[Neuron, list[int]] = {}

    def fire(module: Neuron, z: np.ndarray) -> np.ndarray:
        theta = float(module.threshold.detach())
        v = potentials.setdefault(module, [theta / 2] * z.size)
        count = counts.setdefault(module, [0] * z.size)
        output = [0.0] * z.size
        for neuron, current in enumerate(z.flat):
            v[neuron] += float(current)
            if v[neuron] >= theta:
                v[neuron] -= theta
                count[neuron] += 1
                output[neuron] = theta
        return np.array(output).reshape(z.shape)

    for _ in range(steps):
        float_oracle.forward(network, image.astype(np.float64), fire, layer_output)
    return list(counts.values())


@pytest.mark.slow
@pytest.mark.parametrize(("model", "steps"), [("vgg_small", 1), ("resnet20", 3), ("vgg_small", 4)])
def test_equals_brute_force(model: str, steps: int) -> None:
    """σ_l = √(mean over batches of var(gap_l)), gap_l = ANN output − θ·(spike count)/T, of two uneven batches.

    Potentials are float64 on both sides, so that all spikes are equal; then σ differs by the rounding of the float32
    in which gaps are formed: 1e-6 of σ, and 1e-7 of θ where T = L makes the first layer's gaps zero.
    """
    network = read_model(PRETRAINED / f"{model}.pt").network.double()
    for neuron in neurons(network):
        neuron.initial = torch.tensor(0.5)  # as in training; the file's potentials were calibrated afterwards
    data = load(["sample"], "test").sample(IMAGES, 1)
    images = data.images.permute(0, 3, 1, 2)
    levels = [quantized_levels(network, image) for image in images.numpy()]
    counts = [spike_counts(network, image, steps) for image in images.numpy()]

    rates: dict[int, Tensor] = {}
    simulate(network, images, steps, rates.__setitem__)
    sigma = []
    for index, neuron in enumerate(neurons(network)):
        theta = float(neuron.threshold.detach())
        count = np.array([image[index] for image in counts])
        np.testing.assert_array_equal((rates[index].flatten(1) * steps / theta).round(), count)
        assert 0 < count.sum() < 0.5 * count.size * steps
        gap = theta * (np.array([image[index] for image in levels]) / neuron.levels - count / steps)
        batches = [gap[start : start + BATCH] for start in range(0, IMAGES, BATCH)]
        sigma.append(np.sqrt(np.mean([np.var(batch, ddof=1) for batch in batches])))

    found = evaluate(network, data, steps, batch=BATCH).sigma
    np.testing.assert_allclose(found, sigma, rtol=1e-6, atol=1e-7 * max(float(n.threshold) for n in neurons(network)))
    assert min(sigma[1:]) > 0.05 and (sigma[0] > 0.05) == (steps != network.levels)
