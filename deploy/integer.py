"""The exact integer engine: the reference that every other way to run a network is compared with."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.layer import PreparedLayer, exact_arithmetic, integrate
from deploy.trace import Trace, pack
from export.network import IMAGE, IntegerNetwork

_VALUES = 2**21  # neuron values per layer held at once: a few megabytes, so that they stay in the cache
_STEPS = 8  # steps folded into one convolution


class IntegerEngine:
    """Runs an IntegerNetwork as docs/semantics.md defines it, layer by layer instead of step by step.

    A convolution has no state, so the steps are folded into its batch; only integrate-and-fire loops over them. The
    image is the same at every step, so what arrives from it is computed once per sample.

    Args:
        network: what to run.
        device: of PyTorch, "cpu" or "cuda".
    """

    def __init__(self, network: IntegerNetwork, device: str | torch.device = "cpu") -> None:
        self.network = network
        self.device = torch.device(device)
        self._layers = [PreparedLayer(layer, network.shape_of, self.device) for layer in network.layers]
        self._last_use = {source: index for index, layer in enumerate(network.layers) for source in layer.sources}

    def run(self, images: Tensor | NDArray[np.uint8], steps: int) -> Trace:
        """Every spike and read-out of images (N, C, H, W), uint8, over T = ``steps`` steps.

        Raises:
            ValueError: images of another type or shape, or steps below 1.
        """
        shapes = self.network.shapes[:-1]
        count = len(images)
        spikes = tuple(np.empty((count, steps, (int(np.prod(s)) + 7) // 8), np.uint8) for s in shapes)

        def record(layer: int, first: int, step: int, values: Tensor) -> None:
            spikes[layer][first : first + len(values), step] = pack(values.cpu().numpy())

        readout, saturations = self._run(images, steps, record)
        return Trace(shapes, spikes, readout, saturations)

    def scores(self, images: Tensor | NDArray[np.uint8], steps: int) -> NDArray[np.int32]:
        """Only the read-out, int32 (N, T, K); arguments and errors as in ``run``."""
        return self._run(images, steps, None)[0]

    def classify(self, images: Tensor | NDArray[np.uint8], steps: int) -> NDArray[np.int64]:
        """Class after each step 1 … T, (N, T); arguments and errors as in ``run``."""
        return self.scores(images, steps).argmax(axis=-1)

    def membrane_ranges(self, images: Tensor | NDArray[np.uint8], steps: int) -> tuple[tuple[int, int], ...]:
        """(min, max) of u per layer, before the reset, over all neurons, samples and steps."""
        low, high = [[0] * len(self._layers) for _ in range(2)]

        def observe(layer: int, u: Tensor) -> None:
            least, most = torch.aminmax(u)
            low[layer], high[layer] = min(low[layer], int(least)), max(high[layer], int(most))

        self._run(images, steps, None, observe)
        return tuple(zip(low, high, strict=True))

    def _run(
        self,
        images: Tensor | NDArray[np.uint8],
        steps: int,
        record: Callable[[int, int, int, Tensor], None] | None,
        observe: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.require(images, requirements="W"))
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.network.input_shape:
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; "
                f"allowed: torch.uint8 of shape (N, {', '.join(map(str, self.network.input_shape))})"
            )
        if steps < 1:
            raise ValueError(f"steps is {steps}; allowed: at least 1")
        readout = np.empty((len(images), steps, self.network.classes), np.int32)
        saturations = [0] * len(self._layers)
        largest = max(int(np.prod(shape)) for shape in (self.network.input_shape, *self.network.shapes))
        batch = max(1, _VALUES // (largest * min(steps, _STEPS)))
        with exact_arithmetic():
            for first in range(0, len(images), batch):
                part = images[first : first + batch].to(self.device)
                self._run_batch(part, first, readout[first : first + batch], saturations, record, observe)
        return readout, tuple(saturations)

    def _run_batch(
        self,
        images: Tensor,
        first: int,
        readout: NDArray[np.int32],
        saturations: list[int],
        record: Callable[[int, int, int, Tensor], None] | None,
        observe: Callable[[int, Tensor], None] | None,
    ) -> None:
        """Runs a few samples, in blocks of steps; fills ``readout`` (n, T, K) and adds to ``saturations``."""
        samples, steps = readout.shape[:2]
        constants = [layer.current({IMAGE: images}) for layer in self._layers]
        membranes = [layer.initial(samples) for layer in self._layers]
        for start in range(0, steps, _STEPS):
            block = min(_STEPS, steps - start)
            spikes: dict[str, Tensor] = {}
            for index, (layer, v) in enumerate(zip(self._layers, membranes, strict=True)):
                currents = self._currents(index, constants[index], spikes, block)
                for source in self.network.layers[index].sources:
                    if self._last_use[source] == index:
                        spikes.pop(source, None)
                fired: list[Tensor] = []
                for offset in range(block):
                    saturated = integrate(v, currents[offset])
                    if saturated is not None:
                        saturations[index] += int(saturated.sum())
                    if observe is not None:
                        observe(index, v)
                    if layer.is_readout:
                        readout[:, start + offset] = v.cpu().numpy()
                        continue
                    fired.append(layer.fire(v))
                    if record is not None:
                        record(index, first, start + offset, fired[-1])
                if fired:
                    spikes[self.network.layers[index].name] = torch.cat(fired)

    def _currents(self, index: int, constant: Tensor, spikes: Mapping[str, Tensor], block: int) -> Sequence[Tensor]:
        """I + b of one layer at each step of a block, given what is the same at every step."""
        sums = self._layers[index].sums(spikes)
        return [constant] * block if sums is None else sums.unflatten(0, (block, -1)).add_(constant)
