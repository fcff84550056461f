"""Memory that an engine fills while it runs a batch of samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nqlava.errors import InputError
from nqlava.network import IntegerNetwork

OnSpikes = Callable[[slice, int, slice, NDArray[np.uint8]], None]


@dataclass(frozen=True)
class Buffers:
    """Filled by a run of n samples over T steps; ``part`` gives those of some samples.

    Attributes:
        readout: int32 (n, T, K), potentials of the read-out.
        saturations: int64 (layers, n), starts as zeros.
        potentials: int64 (layers, 2), smallest and largest u, starts as zeros.
        on_spikes: called for every spiking layer and block of steps with the samples, its index, the steps (from 0) and
            the spikes, uint8 (n, steps of the block, neurons) in (H, W, C) order, valid during the call; or None.
        membranes: per spiking layer int32 (n, neurons), v(T) in (H, W, C) order; None where it is not wanted.
        samples: which these are.
    """

    readout: NDArray[np.int32]
    saturations: NDArray[np.int64]
    potentials: NDArray[np.int64]
    on_spikes: OnSpikes | None
    membranes: Sequence[NDArray[np.int32]] | None
    samples: slice

    @classmethod
    def of(
        cls,
        network: IntegerNetwork,
        samples: int,
        steps: int,
        on_spikes: OnSpikes | None = None,
        membranes: Sequence[NDArray[np.int32]] | None = None,
    ) -> "Buffers":
        """New buffers for all samples of a run; InputError for steps below 1."""
        if steps < 1:
            raise InputError(f"steps is {steps}; allowed: at least 1")
        layers = len(network.layers)
        return cls(
            readout=np.empty((samples, steps, network.classes), np.int32),
            saturations=np.zeros((layers, samples), np.int64),
            potentials=np.zeros((layers, 2), np.int64),
            on_spikes=on_spikes,
            membranes=membranes,
            samples=slice(0, samples),
        )

    def part(self, samples: slice) -> "Buffers":
        """Views for some samples, with a range of u of its own."""
        return replace(
            self,
            readout=self.readout[samples],
            saturations=self.saturations[:, samples],
            potentials=np.zeros_like(self.potentials),
            membranes=None if self.membranes is None else [v[samples] for v in self.membranes],
            samples=samples,
        )

    def hand_over(self, layer: int, steps: slice, spikes: NDArray[np.uint8]) -> None:
        """Gives away the spikes of a layer, if they are wanted."""
        if self.on_spikes is not None:
            self.on_spikes(self.samples, layer, steps, spikes)
