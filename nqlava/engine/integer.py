"""The exact integer engine: fast, and judged by nqlava.reference."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
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
        shapes, count = self.network.shapes[:-1], len(images)

        def record(samples: slice, layer: int, block: slice, values: NDArray[np.uint8]) -> None:
            spikes[layer][samples, block] = pack(values)

        kept = tuple(np.empty((count, prod(s)), np.int32) for s in shapes) if membranes else None
        whole = Buffers.of(self.network, count, steps, record, kept)
        spikes = tuple(np.empty((count, steps, (prod(s) + 7) // 8), np.uint8) for s in shapes)
        self._run(images, whole)
        return Trace(shapes, spikes, whole.readout, whole.saturations, kept)

    def scores(self, images: Tensor | NDArray[np.uint8], steps: int) -> NDArray[np.int32]:
        """Only the read-out, int32 (N, T, K); arguments and errors as in ``run``."""
        return self._run(images, Buffers.of(self.network, len(images), steps)).readout

    def classify(self, images: Tensor | NDArray[np.uint8], steps: int) -> NDArray[np.int64]:
        """Class after each step 1 … T, (N, T); arguments and errors as in ``run``."""
        classes: NDArray[np.int64] = self.scores(images, steps).argmax(axis=-1)
        return classes

    def membrane_ranges(self, images: Tensor | NDArray[np.uint8], steps: int) -> tuple[tuple[int, int], ...]:
        """(min, max) of 0 and u per layer, before the reset, over all neurons, samples and steps."""
        potentials = self._run(images, Buffers.of(self.network, len(images), steps)).potentials
        return tuple((int(low), int(high)) for low, high in potentials)

    def _run(self, images: Tensor | NDArray[np.uint8], whole: Buffers) -> Buffers:
        """Fills the buffers of all samples."""
        if isinstance(images, Tensor):
            images = images.numpy(force=True)
        if images.dtype != np.uint8 or images.shape[1:] != self.network.input_shape:
            raise InputError(
                f"images are {images.dtype} of shape {images.shape}; "
                f"allowed: uint8 of shape (N, {', '.join(map(str, self.network.input_shape))})"
            )

        def run(samples: slice) -> Buffers:
            part = whole.part(samples)
            self._runner.run(images[samples], part)
            return part

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        batch = max(1, min(self._runner.batch(whole.readout.shape[1]), -(-len(images) // threads)))
        parts = [slice(i, min(i + batch, len(images))) for i in range(0, len(images), batch)]
        potentials = whole.potentials
        with exact_arithmetic(), _parallel(min(threads, len(parts))) as each:
            for part in each(run, parts):
                potentials[:, 0] = np.minimum(potentials[:, 0], part.potentials[:, 0])
                potentials[:, 1] = np.maximum(potentials[:, 1], part.potentials[:, 1])
        return whole


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
