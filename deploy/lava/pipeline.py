"""Images on their way through a Lava network: the schedule, the memory that processes share, and the traces."""

import math
import time
from collections.abc import Generator

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.core.run_configs import RunConfig
from numpy.typing import NDArray

from deploy.lava.guard import GuardedRun
from deploy.lava.processes import BatchSource, ImageSource
from deploy.lava.schedule import Recorder, Schedule, shared_array
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace

_CHUNK_BYTES = 2**26
_CHUNK_SECONDS = 1.0


class Pipeline:
    """One runtime serves all samples: batches follow each other without draining the pipeline, and the run pauses only
    to hand over results, which bounds the memory.

    Args:
        network: what to run.
        images: uint8 (N, C, H, W); N need not be a multiple of ``batch``.
        steps: T.
        batch: samples in one message.
        gap: idle steps between batches.
        membranes: number of the first samples whose traces hold v(T), up to a whole number of batches.
        channels_last: whether ``buffer`` holds images (H, W, C) instead of (C, H, W).

    Attributes:
        schedule: of the run.
        batch: samples in one message; at most N.
        buffer: uint8 (slots, batch, *image), in shared memory: the images of a chunk, which the source reads.
        recorders: one for each layer.

    Raises:
        InputError: an argument that is not valid.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        images: NDArray[np.uint8],
        steps: int,
        *,
        batch: int = 1,
        gap: int = 0,
        membranes: int = 0,
        channels_last: bool = False,
    ) -> None:
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != network.input_shape:
            is_array = isinstance(images, np.ndarray)
            found = f"{images.dtype} of shape {images.shape}" if is_array else type(images).__name__
            allowed = f"uint8 of shape (N, {', '.join(map(str, network.input_shape))})"
            raise InputError(f"images are {found}; allowed: {allowed}")
        for name, value, low in (("steps", steps, 1), ("batch", batch, 1), ("gap", gap, 0)):
            if value < low:
                raise InputError(f"{name} is {value}; allowed: at least {low}")
        self._network, self._images = network, images.transpose(0, 2, 3, 1) if channels_last else images
        self.batch = max(1, min(batch, len(images)))
        batches, kept = -(-len(images) // self.batch), -(-membranes // self.batch)
        bits = steps + (32 if kept > 1 else 0)
        size = self.batch * (bits * sum(map(math.prod, network.shapes)) // 8 + math.prod(network.input_shape))
        self._longest = max(1, min(batches, _CHUNK_BYTES // size))
        # While a chunk of m batches enters, results of the ⌊(T + N) / P⌋ + 1 batches before may still be in flight.
        slots = self._longest + (steps + network.depth) // (steps + gap) + 1
        self.schedule = Schedule(steps, gap, batches, slots)
        self.buffer = shared_array((self._longest, self.batch, *self._images.shape[1:]), np.uint8)
        self.recorders = [
            Recorder(
                self.schedule,
                network.depth_of[layer.name],
                samples=self.batch,
                size=math.prod(network.shape_of[layer.name]),
                readout=layer.is_readout,
                kept=kept,
            )
            for layer in network.layers
        ]

    def run(self, source: ImageSource | BatchSource, run_cfg: RunConfig) -> Generator[Trace, None, None]:
        """Runs the network behind ``source`` chunk by chunk: fills ``buffer``, advances, collects what is complete.

        The first chunk is one batch; chunks grow while they take less than _CHUNK_SECONDS, as far as ``buffer`` goes,
        so that results come soon and often, and the pauses between chunks cost little.

        Raises:
            LavaRunError: a process failed, was killed or stalled.
        """
        schedule, images, depth = self.schedule, self._images, self._network.depth
        first = now = done = 0
        chunk = 1
        if not schedule.batches:
            return
        with GuardedRun(source, run_cfg, progress=lambda: int(self.recorders[-1].step[0])) as guarded:
            while first < schedule.batches:
                last = min(first + chunk, schedule.batches)
                for index in range(first, last):
                    part, slot = images[index * self.batch : (index + 1) * self.batch], index % self._longest
                    self.buffer[slot, : len(part)] = part
                    self.buffer[slot, len(part) :] = 0
                end = schedule.total(depth) if last == schedule.batches else last * schedule.period
                began = time.monotonic()
                guarded.run(end - now)
                if time.monotonic() - began < _CHUNK_SECONDS:
                    chunk = min(2 * chunk, self._longest)
                first, now = last, end
                finished, kept = schedule.finished(now, depth), self.recorders[0].kept
                for begin, stop in ((done, min(finished, kept)), (max(done, kept), finished)):
                    if begin < stop:
                        yield self.collect(begin, stop)
                done = max(done, finished)

    def collect(self, first: int, stop: int) -> Trace:
        """Copies the results of batches ``first`` to ``stop``, of all or none of which v(T) is kept."""
        batches, samples = np.arange(first, stop), min(stop * self.batch, len(self._images)) - first * self.batch

        def of_samples(values: NDArray) -> NDArray:
            found = values[batches % len(values)]  # (batches, samples of a batch, …)
            return found.reshape(-1, *found.shape[2:])[:samples]

        recorders, shapes = self.recorders, self._network.shapes[:-1]
        kept = stop <= recorders[0].kept
        membranes = tuple(of_samples(r.membranes) for r in recorders if kept and r.membranes is not None)
        return Trace(
            shapes=shapes,
            spikes=tuple(of_samples(recorder.values) for recorder in recorders[:-1]),
            readout=of_samples(recorders[-1].values),
            saturations=np.stack([of_samples(recorder.saturations) for recorder in recorders]),
            membranes=membranes if len(membranes) == len(shapes) else None,
        )
