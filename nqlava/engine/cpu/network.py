"""A whole integer network on a CPU, for a batch of samples, layer by layer instead of step by step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nqlava.engine.buffers import Buffers
from nqlava.engine.cpu.layer import CpuLayer
from nqlava.engine.cpu.machine import describe
from nqlava.network import IMAGE, IntegerNetwork

_SPIKES = 2**25  # of all layers held at once, a byte each
_SAMPLES = 64
_STEPS = 8  # steps folded into one convolution


class CpuNetwork:
    """Runs batches of samples; several threads may do so at the same time.

    A convolution has no state, so the steps are folded into its batch; only integrate-and-fire passes over them, while
    the potentials stay in the cache. The image is the same at every step: what arrives from it is computed once per
    block of steps.

    Attributes:
        kernels: what computes the synapses, by name of the layer.
        description: of the kernels, for people.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        self._network = network
        self._layers = [CpuLayer(layer, network.shape_of) for layer in network.layers]
        self.kernels: Mapping[str, tuple[str, ...]] = {
            layer.name: prepared.kernels for layer, prepared in zip(network.layers, self._layers, strict=True)
        }
        self.description = f"cpu, {describe()}"
        self._free: list[dict[int, NDArray[np.uint8]]] = []

    def batch(self, steps: int) -> int:
        """A number of samples whose spikes fit into the cache that cores share."""
        spikes = sum(layer.size for layer in self._layers) * min(steps, _STEPS)
        return int(np.clip(_SPIKES // spikes, 1, _SAMPLES))

    def run(self, images: NDArray[np.uint8], result: Buffers) -> None:
        """Runs images (n, C, H, W) for the steps that ``result`` has room for, and fills it."""
        memory = self._free.pop() if self._free else {}
        try:
            self._run(images, result, memory)
        finally:
            self._free.append(memory)

    def _run(self, images: NDArray[np.uint8], result: Buffers, memory: dict[int, NDArray[np.uint8]]) -> None:
        samples, steps = result.readout.shape[:2]
        image = np.require(images.transpose(0, 2, 3, 1), requirements=["C", "W"]).reshape(samples, 1, -1)
        blocks = range(0, steps, _STEPS)
        potentials = [np.empty((samples, layer.size) if len(blocks) > 1 else 0, np.int32) for layer in self._layers]
        if result.membranes is not None:
            potentials[:-1] = result.membranes
        with torch.inference_mode():
            for start in blocks:
                block = slice(start, min(start + _STEPS, steps))
                outputs: dict[str, NDArray[np.uint8]] = {IMAGE: image}
                for index, (layer, v) in enumerate(zip(self._layers, potentials, strict=True)):
                    target: NDArray[Any] = result.readout[:, block]
                    if not layer.is_readout:
                        target = _take(memory, index, (samples, block.stop - block.start, layer.size))
                    definition = self._network.layers[index]
                    layer.advance(
                        {source: outputs[source] for source in definition.sources},
                        target,
                        v,
                        first=start == 0,
                        saturations=result.saturations[index],
                        potentials=result.potentials[index],
                    )
                    if not layer.is_readout:
                        outputs[definition.name] = target
                        result.hand_over(index, block, target)


def _take(memory: dict[int, NDArray[np.uint8]], index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array out of the memory kept under an index: the same pages at every batch."""
    size = int(np.prod(shape))
    if index not in memory or memory[index].size < size:
        memory[index] = np.empty(size, np.uint8)
    return memory[index][:size].reshape(shape)
