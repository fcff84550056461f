"""The float SNN in the plainest possible way: one image, one step, one neuron at a time, in Python's floats."""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import nn

from train.model.activation import Neuron
from train.model.models import BasicBlock, Network, Normalize


def layer_output(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """One module in evaluation mode on one sample, in float64."""

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().double().numpy()

    if isinstance(module, Normalize):
        return (x / 255 - array(module.mean)[0]) / array(module.std)[0]
    if isinstance(module, nn.Conv2d):
        weight = array(module.weight)
        (kh, kw), (sy, sx), (py, px) = module.kernel_size, module.stride, module.padding
        height, width = (x.shape[1] + 2 * py - kh) // sy + 1, (x.shape[2] + 2 * px - kw) // sx + 1
        out = np.zeros((len(weight), height, width))
        for o, y, z in product(*map(range, out.shape)):
            total = 0.0 if module.bias is None else float(module.bias[o].detach())
            for c, ky, kx in product(*map(range, weight.shape[1:])):
                row, column = y * sy + ky - py, z * sx + kx - px
                if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                    total += weight[o, c, ky, kx] * x[c, row, column]
            out[o, y, z] = total
        return out
    if isinstance(module, nn.BatchNorm2d):
        gain = module.weight.detach().double().numpy() / np.sqrt(module.running_var.double().numpy() + module.eps)
        return np.stack(
            [(x[c] - float(module.running_mean[c])) * gain[c] + float(module.bias[c].detach()) for c in range(len(x))]
        )
    if isinstance(module, nn.AvgPool2d):
        py, px = np.broadcast_to(module.kernel_size, 2)
        out = np.zeros((x.shape[0], x.shape[1] // py, x.shape[2] // px))
        for c, y, z in product(*map(range, out.shape)):
            out[c, y, z] = x[c, y * py : y * py + py, z * px : z * px + px].mean()
        return out
    if isinstance(module, nn.Flatten):
        return x.reshape(-1)
    if isinstance(module, nn.Dropout):
        return x
    if isinstance(module, nn.Linear):
        return array(module.weight) @ x + (0 if module.bias is None else array(module.bias))
    raise TypeError(type(module).__name__)


def forward(
    module: nn.Module,
    x: np.ndarray,
    activation: Callable[[Neuron, np.ndarray], np.ndarray],
    other: Callable[[nn.Module, np.ndarray], np.ndarray] = layer_output,
) -> np.ndarray:
    """A module, or modules inside modules, on one sample; the functions say what activations and other layers do."""
    if isinstance(module, Network):
        return forward(module.layers, x, activation, other)
    if isinstance(module, nn.Sequential):
        for inner in module:
            x = forward(inner, x, activation, other)
        return x
    if isinstance(module, BasicBlock):
        y = x
        for inner in (module.conv1, module.bn1, module.act1, module.conv2, module.bn2):
            y = forward(inner, y, activation, other)
        return forward(module.act2, y + forward(module.shortcut, x, activation, other), activation, other)
    return activation(module, x) if isinstance(module, Neuron) else other(module, x)


def ann(network: Network, image: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Outputs of the NQ layers and the scores of the noise-free quantized network."""
    outputs: list[np.ndarray] = []

    def quantize(module: Neuron, x: np.ndarray) -> np.ndarray:
        theta = float(module.threshold.detach())
        outputs.append(theta * np.clip(np.floor(x * module.levels / theta + 0.5) / module.levels, 0, 1))
        return outputs[-1]

    return outputs, forward(network, image.astype(np.float64), quantize)


def snn(network: nn.Module, image: np.ndarray, steps: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Mean outputs θ·(spikes)/T of the activations, and the mean scores over steps 1 .. t, (T, K)."""
    membranes: dict[Neuron, np.ndarray] = {}
    sums: dict[Neuron, np.ndarray] = {}

    def fire(module: Neuron, x: np.ndarray) -> np.ndarray:
        theta = float(module.threshold.detach())
        start = theta * module.initial.double().numpy().reshape(-1, *[1] * (x.ndim - 1))
        u = membranes.get(module, np.broadcast_to(start, x.shape)) + x
        spikes = np.where(u >= theta, theta, 0.0)
        membranes[module] = u - spikes if module.reset == "soft" else np.where(u >= theta, 0.0, u)
        sums[module] = sums.get(module, 0) + spikes
        return spikes

    scores = [forward(network, image.astype(np.float64), fire) for _ in range(steps)]
    means = np.cumsum(scores, axis=0) / np.arange(1, steps + 1)[:, None]
    return [total / steps for total in sums.values()], means
