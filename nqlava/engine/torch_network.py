"""A whole integer network in PyTorch's own operations, for devices other than a CPU."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nqlava.engine.buffers import Buffers
from nqlava.engine.layer import PreparedLayer, integrate
from nqlava.network import IMAGE, IntegerNetwork

_VALUES = 2**24  # neuron values per layer held at once
_STEPS = 8  # steps folded into one convolution


class TorchNetwork:
    """Runs batches of samples with the steps folded into the batch of each convolution; exact by layer.py.

    Args:
        network: what to run.
        device: where.

    Attributes:
        description: for people.
    """

    def __init__(self, network: IntegerNetwork, device: torch.device) -> None:
        self.description = f"{device}, float32"
        self._network, self._device = network, device
        self._layers = [PreparedLayer(layer, network.shape_of, device) for layer in network.layers]
        self._last_use = {source: index for index, layer in enumerate(network.layers) for source in layer.sources}

    def batch(self, steps: int) -> int:
        """A number of samples whose values fit into the memory."""
        largest = max(int(np.prod(shape)) for shape in (self._network.input_shape, *self._network.shapes))
        return max(1, _VALUES // (largest * min(steps, _STEPS)))

    def run(self, images: NDArray[np.uint8], result: Buffers) -> None:
        """Runs images (n, C, H, W) for the steps that ``result`` has room for, and fills it."""
        samples, steps = result.readout.shape[:2]
        image = torch.from_numpy(np.require(images, requirements="W")).to(self._device)
        constants = [layer.current({IMAGE: image}) for layer in self._layers]
        membranes = [layer.initial(samples) for layer in self._layers]
        for start in range(0, steps, _STEPS):
            block = slice(start, min(start + _STEPS, steps))
            spikes: dict[str, Tensor] = {}
            for index, (layer, v) in enumerate(zip(self._layers, membranes, strict=True)):
                sums = layer.sums(spikes)
                count = block.stop - block.start
                currents = (
                    [constants[index]] * count
                    if sums is None
                    else sums.unflatten(0, (count, -1)).add_(constants[index]).unbind()
                )
                for source in self._network.layers[index].sources:
                    if self._last_use[source] == index:
                        spikes.pop(source, None)
                fired: list[Tensor] = []
                for step, current in enumerate(currents, start):
                    self._integrate(index, v, current, result)
                    if layer.is_readout:
                        result.readout[:, step] = v.cpu().numpy()
                    else:
                        fired.append(layer.fire(v))
                if fired:
                    self._hand_over(index, block, fired, result)
                    spikes[self._network.layers[index].name] = torch.cat(fired)
        for v, kept in zip(membranes, result.membranes or (), strict=False):  # the read-out, which is last, has its own
            kept[:] = (v.permute(0, 2, 3, 1) if v.ndim == 4 else v).flatten(1).cpu().numpy()

    def _integrate(self, index: int, v: Tensor, current: Tensor, result: Buffers) -> None:
        saturated = integrate(v, current)
        low, high = torch.aminmax(v)
        potentials = result.potentials[index]
        potentials[:] = min(int(potentials[0]), int(low)), max(int(potentials[1]), int(high))
        if saturated is not None:
            result.saturations[index] += saturated.cpu().numpy()

    def _hand_over(self, index: int, block: slice, fired: list[Tensor], result: Buffers) -> None:
        """Gives away spikes (n, *shape) of the steps of a block."""
        if result.on_spikes is None:
            return
        spikes = torch.stack(fired, dim=1)
        if spikes.ndim == 5:
            spikes = spikes.permute(0, 1, 3, 4, 2)
        result.hand_over(index, block, spikes.flatten(2).to(torch.uint8).cpu().numpy())
