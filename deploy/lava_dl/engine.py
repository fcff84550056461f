"""The exact integer engine for lava-dl's networks; docs/lava_dl.md states what it computes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.lava_dl.kernels import leaky_integrate_and_fire
from deploy.lava_dl.reader import LifLayer, LifNetwork
from nqlava.engine.layer import Sums, exact_arithmetic
from nqlava.errors import InputError
from nqlava.geometry import Convolution

Clock = Literal["local", "global"]
CLOCKS: tuple[Clock, ...] = ("local", "global")
INPUT_MIN, INPUT_MAX = -(2**15), 2**15 - 1
"""Range of graded inputs, and of inputs to input neurons."""

_CPU = torch.device("cpu")
_CONVOLVED = 2**24
"""Values of one layer that are convolved at once."""


@dataclass(frozen=True)
class Activity:
    """What the layers of a network did.

    Attributes:
        spikes: per layer, uint8 (samples, T, *shape).
        potentials: per layer, int32 (samples, T, *shape), v after each step.
    """

    spikes: tuple[NDArray[np.uint8], ...]
    potentials: tuple[NDArray[np.int32], ...]

    def samples(self, part: slice) -> "Activity":
        """The activity of some samples."""
        return Activity(tuple(s[part] for s in self.spikes), tuple(v[part] for v in self.potentials))


class LifEngine:
    """Runs a LifNetwork, layer by layer instead of step by step.

    Args:
        network: what to run.
        graded: whether the inputs of a network without input neurons are integers instead of spikes.
    """

    def __init__(self, network: LifNetwork, *, graded: bool = False) -> None:
        self.network, self.graded = network, graded
        shapes = (network.input_shape, *(layer.shape for layer in network.layers))
        largest = [max(-INPUT_MIN, INPUT_MAX) if graded else 1] + [1] * len(network.layers)
        self._synapses = [
            _synapses(layer, shape, most) for layer, shape, most in zip(network.layers, shapes, largest, strict=False)
        ]
        self._neurons = [_Neurons(layer) for layer in network.layers]

    def check(self, inputs: NDArray[np.integer]) -> None:
        """InputError where ``inputs`` are not (N, T, *input_shape), or have values that are not allowed."""
        if inputs.shape[2:] != self.network.input_shape or inputs.ndim < 3 or not inputs.size:
            allowed = f"(N, T, {', '.join(map(str, self.network.input_shape))}), every size at least 1"
            raise InputError(f"inputs are of shape {inputs.shape}; allowed: {allowed}")
        spikes = not self.graded and not self.network.has_input_neurons
        low, high = (0, 1) if spikes else (INPUT_MIN, INPUT_MAX)
        if not low <= inputs.min() <= inputs.max() <= high:
            kind = "spikes, unless they are graded" if spikes else "16 bits"
            raise InputError(f"inputs are {inputs.min()}..{inputs.max()}; allowed: {low}..{high} ({kind})")

    def check_clock(self, clock: Clock) -> None:
        """InputError for no clock, or for one with which the network cannot be run."""
        if clock not in CLOCKS:
            raise InputError(f"clock is {clock!r}; allowed: {', '.join(CLOCKS)}")
        conflict = local_clock_conflict(self.network)
        if clock == "local" and conflict is not None:
            biased, delayed = (layer.name for layer in conflict)
            raise InputError(
                f"clock is local, but with its biases layer {biased} may fire before its first step, and the delays of "
                f"layer {delayed} keep such spikes over the reset; allowed: global"
            )

    def run(self, inputs: NDArray[np.integer], clock: Clock = "local") -> Activity:
        """Everything that the layers do.

        Args:
            inputs: (N, T, *input_shape): 0 and 1, or integers −32768 … 32767 for input neurons or if ``graded``.
            clock: "local" or "global" (docs/lava_dl.md, Timing).

        Raises:
            InputError: inputs or a clock that ``check`` and ``check_clock`` refuse.
        """
        self.check(inputs)
        self.check_clock(clock)
        late = int(clock == "global")
        spikes: list[NDArray[np.uint8]] = []
        potentials: list[NDArray[np.int32]] = []
        values: NDArray[np.integer] = inputs
        with exact_arithmetic():
            for synapses, neurons in zip(self._synapses, self._neurons, strict=True):
                current = synapses(values, late)
                fired, v = neurons(current)
                spikes.append(fired)
                potentials.append(v)
                values = fired
        return Activity(tuple(spikes), tuple(potentials))


class _Neurons:
    """The neurons of one layer, parameters spread over all of them."""

    def __init__(self, layer: LifLayer) -> None:
        self._threshold = layer.threshold
        self._current_decay, self._voltage_decay, self._bias = (
            np.ascontiguousarray(np.broadcast_to(_by_channel(values, layer.shape), layer.shape)).reshape(-1)
            for values in (layer.current_decay, layer.voltage_decay, layer.bias)
        )

    def __call__(self, current: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Spikes and potentials for currents (n, T, *shape)."""
        flat = current.reshape(*current.shape[:2], -1)
        spikes, potentials = leaky_integrate_and_fire(
            flat, self._current_decay, self._voltage_decay, self._bias, self._threshold
        )
        return spikes.reshape(current.shape), potentials.reshape(current.shape)


def _by_channel(values: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(1,) or (C,) so that it broadcasts over (C, H, W)."""
    return values.reshape(-1, *(1,) * (len(shape) - 1)) if values.ndim == 1 else values


_Synapses = Callable[[NDArray[np.integer], int], NDArray[np.int32]]
"""Maps inputs (n, T, *shape), and the number of steps that they take to arrive, to currents (n, T, *shape)."""


def _synapses(layer: LifLayer, input_shape: tuple[int, ...], input_max: int) -> _Synapses:
    if layer.weight is None:
        return lambda values, late: np.ascontiguousarray(values, np.int32)
    if layer.weight.ndim == 4:
        return _Convolution(layer, input_shape, input_max)
    return _Dense(layer, input_max)


def _tensor(values: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


class _Convolution:
    """I = Σ w · in, wrapped into signed 24 bits."""

    def __init__(self, layer: LifLayer, input_shape: tuple[int, ...], input_max: int) -> None:
        assert layer.weight is not None
        geometry = Convolution(layer.weight, (1, 1), layer.stride, layer.padding, layer.dilation, layer.groups)
        self._sums = Sums(geometry, input_shape, input_max, _CPU, is_dense=False)
        self._shape = layer.shape

    def __call__(self, values: NDArray[np.integer], late: int) -> NDArray[np.int32]:
        current = np.empty((*values.shape[:2], *self._shape), np.int32)
        at_once = max(1, _CONVOLVED // max(int(np.prod(self._shape)), int(np.prod(values.shape[2:]))))
        for sample, to in zip(values, current, strict=True):
            to[:late] = 0
            for start in range(0, len(to) - late, at_once):
                part = slice(start, min(start + at_once, len(to) - late))
                sums = self._sums.sums(_tensor(sample[part]))
                to[late:][part] = self._wrap(sums).numpy()
        return current

    def _wrap(self, sums: Tensor) -> Tensor:
        if self._sums.bound < 2**23:
            return sums.to(torch.int32)
        return (((sums.to(torch.int64) + 2**23) & (2**24 - 1)) - 2**23).to(torch.int32)


class _Dense:
    """I = ⌊Σ w · in / 2^e⌋ with the weights as Lava has them, per delay."""

    def __init__(self, layer: LifLayer, input_max: int) -> None:
        assert layer.weight is not None
        weight, self._exponent = synaptic_weight(layer.weight)
        delay = np.zeros((1, 1), np.int64) if layer.delay is None else layer.delay
        delay = np.broadcast_to(delay, weight.shape)
        self._delayed = layer.delay is not None
        self._shape = layer.shape
        self._parts = []
        for steps in np.unique(delay):
            rows = np.flatnonzero((delay == steps).any(axis=1))
            part = np.where(delay == steps, weight, 0)[rows]
            geometry = Convolution(part[:, :, None, None], (1, 1), (1, 1), (0, 0), (1, 1), 1)
            sums = Sums(geometry, (weight.shape[1],), input_max, _CPU, is_dense=True)
            self._parts.append((int(steps), rows, sums))

    def __call__(self, values: NDArray[np.integer], late: int) -> NDArray[np.int32]:
        samples, steps = values.shape[:2]
        flat = _tensor(values).reshape(samples * steps, -1)
        current = np.zeros((samples, steps, *self._shape), np.int64)
        for delay, rows, sums in self._parts:
            first = delay + late
            if first >= steps:
                continue
            arrived = sums.sums(flat).to(torch.int64)
            if not self._delayed:
                arrived = arrived.to(torch.int32)  # Lava's matrix product wraps here; that of delayed synapses does not
            shifted = (arrived >> self._exponent).numpy().reshape(samples, steps, -1)
            current[:, first:, rows] += shifted[:, : steps - first]
        return current.astype(np.int32)


def synaptic_weight(weight: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The weights of a dense layer as Lava's synapses hold them, and the exponent e (docs/lava_dl.md, Synapses).

    Args:
        weight: int64 (O, I), −256 … 255, as in the file.

    Returns:
        int64 (O, I) and e: the current is ⌊Σ w · in / 2^e⌋.
    """
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        return weight, 0
    mixed = int(low < 0 <= high)
    if mixed:
        weight = np.clip(weight, -256, 254)
        high = min(high, 254)
        scale = min(127 / high if high else np.inf, -128 / low)
    else:
        scale = -256 / low if high < 0 else 255 / high
    exponent = int(np.floor(np.log2(scale))) + mixed
    zeros = next((n for n in range(8, 0, -1) if not (weight % 2**n).any()), 0)  # lowest bits that no weight needs
    bits = 8 - exponent - (zeros - mixed)
    weight = weight << exponent
    # From here on as Lava, which sees the weights as inhibitory where none is positive.
    sign = -1 if weight.max() <= 0 else 1
    both = int(weight.min() < 0 < weight.max())
    weight = np.clip(sign * weight, -256 if both else 0, 255)
    unused = 8 - bits + both
    return sign * ((weight >> unused) << unused), exponent


def local_clock_conflict(network: LifNetwork) -> tuple[LifLayer, LifLayer] | None:
    """A layer with positive biases and one with delays behind it, or None where there is no such pair."""
    biased: LifLayer | None = None
    for layer in network.layers:
        if biased is not None and layer.delay is not None and layer.delay.any():
            return biased, layer
        if biased is None and (layer.bias > 0).any():
            biased = layer
    return None


def is_changed(layer: LifLayer) -> bool:
    """Whether lava-dl and Lava change a dense layer's weights so that they are no longer those in the file."""
    if layer.weight is None or layer.weight.ndim == 4:
        return False
    weight, exponent = synaptic_weight(layer.weight)
    return not np.array_equal(weight, layer.weight << exponent)
