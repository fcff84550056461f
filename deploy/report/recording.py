"""Every membrane potential and spike of one image, computed step by step."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nqlava.engine.layer import PreparedLayer, exact_arithmetic, integrate
from nqlava.network import IMAGE, IntegerNetwork, Layer


@dataclass(frozen=True)
class Recording:
    """One layer over T steps, as docs/semantics.md names things.

    Attributes:
        layer: the layer.
        shape: (C, H, W) or (N,).
        u: int32 (T, neurons), membrane potential before the reset, neurons in (C, H, W) order.
        spikes: bool (T, neurons); none in the read-out.
    """

    layer: Layer
    shape: tuple[int, ...]
    u: NDArray[np.int32]
    spikes: NDArray[np.bool_]

    def threshold(self, neuron: int) -> int | None:
        """θ of a neuron; None in the read-out."""
        if self.layer.threshold is None:
            return None
        return int(self.layer.threshold[neuron // (self.u.shape[1] // self.layer.outputs)])

    def place(self, neuron: int) -> tuple[int, ...]:
        """(c, y, x) or (n,) of a neuron."""
        return tuple(int(index) for index in np.unravel_index(neuron, self.shape))


def record(network: IntegerNetwork, image: NDArray[np.uint8], steps: int) -> tuple[Recording, ...]:
    """All layers of a network over T = ``steps`` steps of one image (C, H, W), uint8.

    It computes in PyTorch's own operations, not in the kernels of the integer engine.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None].expand(steps, *image.shape)
    outputs: dict[str, torch.Tensor] = {IMAGE: pixels}
    with exact_arithmetic():
        return tuple(_layer(layer, network.shape_of, outputs, steps) for layer in network.layers)


def _layer(
    layer: Layer, shapes: Mapping[str, tuple[int, ...]], outputs: dict[str, torch.Tensor], steps: int
) -> Recording:
    """One layer behind the layers whose ``outputs``, (T, *shape), are known; adds its own."""
    prepared = PreparedLayer(layer, shapes, torch.device("cpu"))
    current, v = prepared.current(outputs), prepared.initial(1)
    u = np.empty((steps, v.numel()), np.int32)
    spikes = torch.zeros((steps, *prepared.output_shape), dtype=torch.bool)
    for step in range(steps):
        integrate(v, current[step : step + 1])
        u[step] = v.flatten().numpy()
        if not prepared.is_readout:
            spikes[step] = prepared.fire(v)[0]
    outputs[layer.name] = spikes
    return Recording(layer, prepared.output_shape, u, spikes.reshape(steps, -1).numpy())
