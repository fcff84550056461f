"""The exact integer engine: fast, and judged by nqlava.reference."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nqlava.engine.buffers import Buffers
from nqlava.engine.cpu.network import CpuNetwork
from nqlava.engine.layer import exact_arithmetic
from nqlava.engine.torch_network import TorchNetwork
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace, pack

_Spikes = Callable[[slice, int, slice, NDArray[np.uint8]], None]
_Run = Callable[[slice], Buffers]


class _Runner(Protocol):
    """A network on a device: CpuNetwork or TorchNetwork."""

    description: str

    def batch(self, steps: int) -> int:
        """Samples to run at once."""

    def run(self, images: NDArray[np.uint8], result: Buffers) -> None:
        """Runs images (n, C, H, W) for the steps of the result, and fills it."""


class Engine:
    """Runs an IntegerNetwork as docs/semantics.md defines it, layer by layer instead of step by step.

    On a CPU every thread that PyTorch may use (``torch.set_num_threads``, OMP_NUM_THREADS) runs its own batches.
    Results do not depend on threads or batches.

    Args:
        network: what to run.
        device: of PyTorch, "cpu" or "cuda".

    Attributes:
        description: device and kernels, for people, such as "cpu, int8 (oneDNN) or spike by spike".
    """

    def __init__(self, network: IntegerNetwork, device: str | torch.device = "cpu") -> None:
        self.network = network
        self.device = torch.device(device)
        self._runner: _Runner = CpuNetwork(network) if self.device.type == "cpu" else TorchNetwork(network, self.device)
        self.description = self._runner.description

    def run(self, images: Tensor | NDArray[np.uint8], steps: int, *, membranes: bool = False) -> Trace:
        """Every spike and read-out of images (N, C, H, W), uint8, over T = ``steps`` steps; v(T) with ``membranes``.

        Raises:
            InputError: images of another type or shape, or steps below 1.
        """
        shapes = self.network.shapes[:-1]
        count = len(images)
        spikes = tuple(np.empty((count, steps, (int(np.prod(s)) + 7) // 8), np.uint8) for s in shapes)

        def record(samples: slice, layer: int, block: slice, values: NDArray[np.uint8]) -> None:
            spikes[layer][samples, block] = pack(values)

        kept = tuple(np.empty((count, int(np.prod(s))), np.int32) for s in shapes) if membranes else None
        readout, saturations, _ = self._run(images, steps, record, kept)
        return Trace(shapes, spikes, readout, saturations, kept)

    def scores(self, images: Tensor | NDArray[np.uint8], steps: int) -> NDArray[np.int32]:
        """Only the read-out, int32 (N, T, K); arguments and errors as in ``run``."""
        return self._run(images, steps)[0]

    def classify(self, images: Tensor | NDArray[np.uint8], steps: int) -> NDArray[np.int64]:
        """Class after each step 1 … T, (N, T); arguments and errors as in ``run``."""
        classes: NDArray[np.int64] = self.scores(images, steps).argmax(axis=-1)
        return classes

    def membrane_ranges(self, images: Tensor | NDArray[np.uint8], steps: int) -> tuple[tuple[int, int], ...]:
        """(min, max) of 0 and u per layer, before the reset, over all neurons, samples and steps."""
        potentials = self._run(images, steps)[2]
        return tuple((int(low), int(high)) for low, high in potentials)

    def _run(
        self,
        images: Tensor | NDArray[np.uint8],
        steps: int,
        on_spikes: _Spikes | None = None,
        membranes: Sequence[NDArray[np.int32]] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Read-out (N, T, K), saturations (layers, N), and range of u (layers, 2); v(T) is written to ``membranes``."""
        if isinstance(images, Tensor):
            images = images.numpy(force=True)
        if images.dtype != np.uint8 or images.shape[1:] != self.network.input_shape:
            raise InputError(
                f"images are {images.dtype} of shape {images.shape}; "
                f"allowed: uint8 of shape (N, {', '.join(map(str, self.network.input_shape))})"
            )
        if steps < 1:
            raise InputError(f"steps is {steps}; allowed: at least 1")
        layers = len(self.network.layers)
        readout = np.empty((len(images), steps, self.network.classes), np.int32)
        saturations, potentials = np.zeros((layers, len(images)), np.int64), np.zeros((layers, 2), np.int64)

        def run(samples: slice) -> Buffers:
            def record(layer: int, block: slice, values: NDArray[np.uint8]) -> None:
                assert on_spikes is not None
                on_spikes(samples, layer, block, values)

            part = images[samples]
            kept = None if membranes is None else [v[samples] for v in membranes]
            result = Buffers.of(layers, len(part), steps, self.network.classes, on_spikes and record, kept)
            self._runner.run(part, result)
            readout[samples] = result.readout
            saturations[:, samples] = result.saturations
            return result

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        batch = max(1, min(self._runner.batch(steps), -(-len(images) // threads)))
        parts = [slice(i, i + batch) for i in range(0, len(images), batch)]
        with exact_arithmetic(), _parallel(min(threads, len(parts))) as each:
            for result in each(run, parts):
                potentials[:, 0] = np.minimum(potentials[:, 0], result.potentials[:, 0])
                potentials[:, 1] = np.maximum(potentials[:, 1], result.potentials[:, 1])
        return readout, saturations, potentials


@contextmanager
def _parallel(threads: int) -> Iterator[Callable[[_Run, Iterable[slice]], Iterable[Buffers]]]:
    """A ``map`` over so many threads, in each of which PyTorch computes with one."""
    if threads <= 1:
        yield map
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the number is kept per thread, but also as the default of new threads
