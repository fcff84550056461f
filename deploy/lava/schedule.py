"""When a pipelined layer computes what, and where it records it."""

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nqlava.trace import pack


def shared_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """Zeros in anonymous memory that processes forked later share with this one; no name is left anywhere."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8, size).view(dtype).reshape(shape)


@dataclass(frozen=True)
class Schedule:
    """docs/semantics.md, "Timing": local step k of batch s is computed at place l at t = s·(T + gap) + k + l.

    Attributes:
        steps: T.
        gap: steps between batches.
        batches: number of batches.
        slots: batches whose results are kept at once; batch s is kept in slot s mod slots.
    """

    steps: int
    gap: int
    batches: int
    slots: int

    @property
    def period(self) -> int:
        """P = T + gap."""
        return self.steps + self.gap

    def local(self, t: int, place: int) -> tuple[int, int] | None:
        """(s, k) computed at place l (0 for the image source) at t, or None at a step that belongs to no batch."""
        batch, offset = divmod(t - place - 1, self.period)
        if not 0 <= batch < self.batches or offset >= self.steps:
            return None
        return batch, offset + 1

    def finished(self, t: int, depth: int) -> int:
        """Batches whose read-out, at place N = ``depth``, is complete after step t."""
        return min(self.batches, max(0, (t - self.steps - depth) // self.period + 1))

    def total(self, depth: int) -> int:
        """Steps until everything is complete: n·P − gap + N."""
        return self.batches * self.period - self.gap + depth


class Recorder:
    """Shared memory in which one layer leaves its results for the parent process.

    Created by the parent before it forks; the layer's process writes, and the parent reads while the network pauses.

    Args:
        schedule: of the run.
        place: l, of the layer in the pipeline.
        samples: per batch.
        size: number of neurons.
        readout: whether membrane potentials are recorded instead of spikes.
        kept: number of the first batches of which v(T) is kept, where spikes are recorded.

    Attributes:
        values: uint8 (slots, samples, T, ⌈size/8⌉) packed spikes, or int32 (slots, samples, T, size) potentials.
        saturations: int64 (slots, samples).
        membranes: int32 (min(slots, kept), samples, size), v(T), or None.
        step: int64 (1,), the last time step that was computed.
    """

    def __init__(
        self, schedule: Schedule, place: int, *, samples: int, size: int, readout: bool, kept: int = 0
    ) -> None:
        self.schedule, self.place, self.readout, self.kept = schedule, place, readout, kept
        last = (size, np.int32) if readout else ((size + 7) // 8, np.uint8)
        self.values = shared_array((schedule.slots, samples, schedule.steps, last[0]), last[1])
        self.saturations = shared_array((schedule.slots, samples), np.int64)
        self.membranes = None
        if kept and not readout:
            self.membranes = shared_array((min(schedule.slots, kept), samples, size), np.int32)
        self.step = shared_array((1,), np.int64)

    def starts(self, t: int) -> bool:
        """Whether the membrane is restored before step t."""
        local = self.schedule.local(t, self.place)
        return local is not None and local[1] == 1

    def record(
        self, t: int, values: NDArray, saturated: NDArray[np.int64] | int, v: NDArray[np.int32] | None = None
    ) -> None:
        """Keeps what ``values`` holds of step t, packed spikes or potentials, and the saturations per sample.

        ``v``, after the reset, is needed where membranes are kept.
        """
        self.step[0] = t
        local = self.schedule.local(t, self.place)
        if local is None:
            return
        slot, k = local[0] % self.schedule.slots, local[1]
        self.values[slot, :, k - 1] = values
        if k == 1:
            self.saturations[slot] = 0
        self.saturations[slot] += saturated
        if self.membranes is not None and k == self.schedule.steps and local[0] < self.kept:
            self.membranes[local[0] % len(self.membranes)] = v

    def record_map(
        self, t: int, values: NDArray, saturated: NDArray[np.int64] | int, v: NDArray[np.int32] | None = None
    ) -> None:
        """Record unpacked spikes or potentials, and v, (W, H, C) or (N,), of a single sample; see ``record``."""
        flat = _flat(values)
        self.record(t, flat if self.readout else pack(flat), saturated, None if v is None else _flat(v))


def _flat(values: NDArray) -> NDArray:
    """(W, H, C) or (N,) as (1, neurons) in (H, W, C) order."""
    return (values.swapaxes(0, 1) if values.ndim == 3 else values).reshape(1, -1)
