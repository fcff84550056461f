"""The float SNN in the plainest possible way: one image, one step, one neuron at a time, in Python's floats."""

from itertools import product

import numpy as np
import torch
from torch import nn

from train.activation import NQ
from train.models import Network, Normalize


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
        p = module.kernel_size
        out = np.zeros((x.shape[0], x.shape[1] // p, x.shape[2] // p))
        for c, y, z in product(*map(range, out.shape)):
            out[c, y, z] = x[c, y * p : y * p + p, z * p : z * p + p].mean()
        return out
    if isinstance(module, nn.Flatten):
        return x.reshape(-1)
    if isinstance(module, nn.Dropout):
        return x
    if isinstance(module, nn.Linear):
        return array(module.weight) @ x + array(module.bias)
    raise TypeError(type(module).__name__)


def ann(network: Network, image: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Outputs of the NQ layers and the scores of the noise-free quantized network."""
    outputs, x = [], image.astype(np.float64)
    for module in network.layers:
        if isinstance(module, NQ):
            theta = float(module.threshold.detach())
            x = theta * np.clip(np.floor(x * module.levels / theta + 0.5) / module.levels, 0, 1)
            outputs.append(x)
        else:
            x = layer_output(module, x)
    return outputs, x


def snn(network: Network, image: np.ndarray, steps: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Mean outputs θ·(spikes)/T of the NQ layers, and the mean scores over steps 1 .. t, (T, K)."""
    membranes: dict[int, np.ndarray] = {}
    sums: dict[int, np.ndarray] = {}
    scores = []
    for _ in range(steps):
        x = image.astype(np.float64)
        for index, module in enumerate(network.layers):
            if not isinstance(module, NQ):
                x = layer_output(module, x)
                continue
            theta = float(module.threshold.detach())
            u = membranes.get(index, np.full(x.shape, theta / 2)) + x
            x = np.where(u >= theta, theta, 0.0)
            membranes[index] = u - x
            sums[index] = sums.get(index, 0) + x
        scores.append(x)
    means = np.cumsum(scores, axis=0) / np.arange(1, steps + 1)[:, None]
    return [total / steps for total in sums.values()], means
