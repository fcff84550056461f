"""Memory that an engine fills while it runs a batch of samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OnSpikes = Callable[[int, slice, NDArray[np.uint8]], None]
Membranes = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class Buffers:
    """Filled by one run of n samples over T steps.

    Attributes:
        readout: int32 (n, T, K), potentials of the read-out.
        saturations: int64 (layers, n), starts as zeros.
        potentials: int64 (layers, 2), smallest and largest u, starts as zeros.
        on_spikes: called for every spiking layer and block of steps with its index, the steps (from 0) and the spikes,
            uint8 (n, steps of the block, neurons) in (H, W, C) order, valid during the call; None for no call.
        membranes: per spiking layer int32 (n, neurons), v(T) in (H, W, C) order; None where it is not wanted.
    """

    readout: NDArray[np.int32]
    saturations: NDArray[np.int64]
    potentials: NDArray[np.int64]
    on_spikes: OnSpikes | None
    membranes: Membranes | None

    @classmethod
    def of(
        cls,
        layers: int,
        samples: int,
        steps: int,
        classes: int,
        on_spikes: OnSpikes | None,
        membranes: Membranes | None,
    ) -> "Buffers":
        """New buffers."""
        return cls(
            readout=np.empty((samples, steps, classes), np.int32),
            saturations=np.zeros((layers, samples), np.int64),
            potentials=np.zeros((layers, 2), np.int64),
            on_spikes=on_spikes,
            membranes=membranes,
        )
