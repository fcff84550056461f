"""docs/semantics.md in the plainest possible numpy: int64, one step and one tap at a time. Only for comparison."""

from typing import NamedTuple

import numpy as np

from export.network import MEMBRANE_MAX, Connection, IntegerNetwork


def synaptic_sum(connection: Connection, x: np.ndarray) -> np.ndarray:
    """2^exponent · Σ w · x for one sample x (C, H, W) or (N,), in int64."""
    weight = connection.weight.astype(np.int64) * 2**connection.exponent
    if not connection.is_convolution:
        return weight @ x.reshape(-1)
    return convolve(weight, x, connection.output_shape(x.shape), *connection.geometry)


def convolve(
    weight: np.ndarray,
    x: np.ndarray,
    output_shape: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """Cross-correlation of one sample x (C, H, W), in int64."""
    (py, px), (sy, sx), (dy, dx) = padding, stride, dilation
    padded = np.pad(x, ((0, 0), (py, py), (px, px)))
    out = np.zeros(output_shape, np.int64)
    outputs, inputs, height, width = weight.shape
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for i in range(inputs):
            for ky in range(height):
                for kx in range(width):
                    taps = padded[first + i, ky * dy :: sy, kx * dx :: sx][: out.shape[1], : out.shape[2]]
                    out[o] += weight[o, i, ky, kx] * taps
    return out


class Run(NamedTuple):
    """Spikes per spiking layer (samples, T, *shape), read-out (samples, T, K), saturations per layer, and per spiking
    layer v(T) (samples, *shape)."""

    spikes: list[np.ndarray]
    readout: np.ndarray
    saturations: list[int]
    membranes: list[np.ndarray]


def simulate(network: IntegerNetwork, images: np.ndarray, steps: int) -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """As ``run``, without v(T)."""
    return run(network, images, steps)[:3]


def run(network: IntegerNetwork, images: np.ndarray, steps: int) -> Run:
    """T = ``steps`` steps of every image, one image after the other."""
    count = len(images)
    spikes = [np.zeros((count, steps, *shape), bool) for shape in network.shapes[:-1]]
    final = [np.zeros((count, *shape), np.int64) for shape in network.shapes[:-1]]
    readout = np.zeros((count, steps, network.classes), np.int64)
    saturations = [0] * len(network.layers)
    for n, image in enumerate(images.astype(np.int64)):
        membranes = [_spread(layer.v0, shape) for layer, shape in zip(network.layers, network.shapes, strict=True)]
        for k in range(steps):
            outputs = {"input": image}
            for index, layer in enumerate(network.layers):
                total = membranes[index] + _spread(layer.bias, membranes[index].shape)
                for connection in layer.connections:
                    total = total + synaptic_sum(connection, outputs[connection.source])
                u = np.minimum(np.maximum(total, -MEMBRANE_MAX), MEMBRANE_MAX)
                saturations[index] += int((u != total).sum())
                if layer.threshold is None:
                    membranes[index] = u
                    readout[n, k] = u
                    continue
                threshold = _spread(layer.threshold, u.shape)
                fired = (u >= threshold).astype(np.int64)
                membranes[index] = u - threshold * fired if layer.reset == "soft" else u * (1 - fired)
                spikes[index][n, k] = outputs[layer.name] = fired
                final[index][n] = membranes[index]
    return Run(spikes, readout, saturations, final)


def _spread(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    value = value.astype(np.int64)
    return np.broadcast_to(value.reshape(value.shape + (1,) * (len(shape) - value.ndim)), shape).copy()
