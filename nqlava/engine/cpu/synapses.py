"""Σ w · in on a CPU, exact, by the fastest kernel that is: maps lie in (H, W, C) order, several samples in a row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nqlava.engine.cpu.events import Events, Geometry, count_events
from nqlava.engine.cpu.kernels import window_sums
from nqlava.engine.cpu.machine import int8_limit, prepare_int8, prepare_int8_product
from nqlava.geometry import Convolution, Pair
from nqlava.merged import Merged

EXACT_FLOAT32 = 2**24
_UINT8_MAX = 255
_NARROW = 8
"""Outputs in a row below which oneDNN's convolution gets slow, so that samples are laid side by side."""

_TYPICAL_SAMPLES = 32  # for which weights are laid out


class Synapses:
    """What reaches a layer from one source by one convolution or matrix.

    Exactness. Let A = max over output channels of Σ|w| · (largest input). Every product is an integer, and every
    partial sum, in any order, is an integer of magnitude at most A. int8 kernels add in 32 bits and
    convert to float32 at the end; float32 represents all integers up to 2²⁴, float64 up to 2⁵³, so nothing rounds:
    float64 is for A ≥ 2²⁴, and for uncommon geometries (``Convolution.is_common``). The power of two that all weights
    share is applied as a scale.

    Kernels. ``product`` where a matrix over all positions costs no more multiplications than the convolution, as for
    dense layers and maps that are no larger than the kernel; ``wide`` for rows of less than 8 outputs, with the samples
    side by side in one wide map, zeros between them; else ``convolution``. All of them in int8 where weights and inputs
    allow, the machine is exact and fast with it (machine.py), and a trial with random inputs gives what the float
    convolution does; else that. oneDNN's int8 convolutions are not used where some are known to be wrong or to
    crash (with AMX in PyTorch 2.3): dilated, with different strides in y and x, and in rows of few outputs.

    Where the inputs have fewer events each than ``events_below``, the events are gone through one by one: the binary
    digits that are 1 in spikes, or in their sums over windows (nqlava/engine/cpu/events.py).

    Args:
        merged: what to compute.
        double: whether to compute in float64, because this and what it is added to may reach 2²⁴.

    Attributes:
        source: name of the source.
        kernel: what computes it, such as "int8 wide".
        events_below: events per input of the convolution below which the events are gone through; found by trial.
    """

    def __init__(self, merged: Merged, *, double: bool) -> None:
        self.source = merged.source
        channels, height, width = as_map(merged.input_shape)
        self._map = (height, width, channels)
        self._window = merged.convolution.window
        self._summed = (height // self._window[0], width // self._window[1], channels)
        self._sums_fit = merged.largest <= _UINT8_MAX
        common = merged.convolution.is_common(*self._summed[:2])
        dtype = torch.float32 if common and not double else torch.float64
        self.kernel, self._apply = str(dtype).removeprefix("torch."), _floating(merged, dtype)
        if not double and merged.weight.dtype == np.int8 and merged.largest <= int8_limit():
            found = _int8(merged, self._summed, common)
            if found is not None and _agree(found[1], self._apply, self._summed, merged.largest):
                self.kernel, self._apply = found
        events = None if double else _events(merged, self._summed)
        self.events_below = 0.0 if events is None else events.break_even(self.kernel, self._apply)
        self._events = events if self.events_below > 0 else None

    def sums(self, inputs: Tensor) -> Tensor:
        """Σ w · in of uint8 inputs (n, H, W, C), contiguous: floating point (n, H', W', O).

        Rows of the result, (W', O), are contiguous; rows and samples may be further apart.
        """
        values = inputs if self._window == (1, 1) else self._add_windows(inputs)
        if self._events is not None:
            count = count_events(values.numpy().reshape(-1))
            if count < self.events_below * values.numel():
                return self._events.sums(values, count)
        return self._apply(values)

    def _add_windows(self, inputs: Tensor) -> Tensor:
        height, width, channels = self._map
        if self._sums_fit:
            sums = np.empty((len(inputs), *self._summed), np.uint8)
            window_sums(inputs.numpy().reshape(-1), height, width, channels, self._window, sums.reshape(-1))
            return torch.from_numpy(sums)
        maps = inputs.to(torch.float64).permute(0, 3, 1, 2)
        return F.avg_pool2d(maps, self._window, divisor_override=1).permute(0, 2, 3, 1)


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W), with (N,) as (N, 1, 1)."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def _agree(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], shape: tuple[int, int, int], largest: int
) -> bool:
    """Whether two kernels compute the same of random inputs: two samples of ``shape``."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, largest + 1, (2, *shape), generator=generator, dtype=torch.uint8)
    return torch.equal(one(x).double(), other(x).double())


def _int8(merged: Merged, summed: tuple[int, int, int], common: bool) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """Name and function of the int8 kernel for inputs (n, H, W, C) of shape ``summed``; None where none is safe."""
    c, weight, scale = merged.convolution, merged.weight, 2.0**merged.exponent
    height, width, channels = summed
    outputs = _positions(c, summed)
    if c.groups == 1 and max(height * width, int(np.prod(outputs))) <= weight[0, 0].size:
        return "int8 product", _product(_matrix(c, weight, summed, outputs), scale, outputs, len(weight))
    wide = outputs[1] < _NARROW
    if not common or c.dilation != (1, 1) or c.stride[0] != c.stride[1] or (wide and c.groups > 1):
        return None
    pitch = -(-(width + c.padding[1]) // c.stride[1]) * c.stride[1]
    typical = (1, channels, height, _TYPICAL_SAMPLES * pitch) if wide else (_TYPICAL_SAMPLES, channels, height, width)
    convolve = prepare_int8(
        torch.tensor(weight),
        scale,
        stride=c.stride,
        padding=c.padding,
        dilation=c.dilation,
        groups=c.groups,
        input_shape=typical,
    )
    if not wide:
        return "int8 convolution", lambda x: convolve(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def side_by_side(x: Tensor) -> Tensor:
        samples = len(x)
        places = max(samples, _NARROW)
        row = torch.zeros((height, places, pitch, channels), dtype=torch.uint8)
        row[:, :samples, :width] = x.permute(1, 0, 2, 3)
        sums = convolve(row.view(1, height, places * pitch, channels).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        shape, apart = (samples, *outputs, len(weight)), pitch // c.stride[1] * len(weight)
        return sums.as_strided(shape, (apart, sums.stride(1), len(weight), 1))

    return "int8 wide", side_by_side


def _positions(c: Convolution, summed: tuple[int, int, int]) -> Pair:
    """Height and width of the output for inputs (H, W, C) of shape ``summed``."""
    height, width = (
        (summed[axis] + 2 * c.padding[axis] - c.dilation[axis] * (c.weight.shape[2 + axis] - 1) - 1) // c.stride[axis]
        + 1
        for axis in (0, 1)
    )
    return height, width


def _events(merged: Merged, summed: tuple[int, int, int]) -> Events | None:
    """The sums of inputs (H, W, C) of shape ``summed`` from single events.

    None for the image, groups, dilation, weights beyond 8 bits, and sums of spikes that do.
    """
    c = merged.convolution
    window = int(np.prod(c.window))
    small = merged.largest == window <= _UINT8_MAX
    if not small or merged.weight.dtype != np.int8 or c.groups != 1 or c.dilation != (1, 1):
        return None
    positions = _positions(c, summed)
    kernel = (merged.weight.shape[2], merged.weight.shape[3])
    geometry = Geometry(*summed, window, kernel, c.stride, c.padding, *positions, len(merged.weight))
    return Events(merged.weight, 2.0**merged.exponent, geometry)


def _product(
    matrix: NDArray[np.signedinteger[Any]], scale: float, outputs: tuple[int, ...], channels: int
) -> Callable[[Tensor], Tensor]:
    multiply = prepare_int8_product(torch.from_numpy(matrix), scale, _TYPICAL_SAMPLES)
    return lambda x: multiply(x.flatten(1)).view(-1, *outputs, channels)


def _matrix(
    c: Convolution, weight: NDArray[np.signedinteger[Any]], summed: tuple[int, int, int], outputs: tuple[int, ...]
) -> NDArray[np.signedinteger[Any]]:
    """The convolution as a matrix (H' · W' · O, H · W · C)."""
    matrix = np.zeros((*outputs, len(weight), *summed), weight.dtype)
    for y, x in np.ndindex(outputs):
        for ky, kx in np.ndindex(weight.shape[2:]):
            row = y * c.stride[0] - c.padding[0] + ky * c.dilation[0]
            column = x * c.stride[1] - c.padding[1] + kx * c.dilation[1]
            if 0 <= row < summed[0] and 0 <= column < summed[1]:
                matrix[y, x, :, row, column] = weight[:, :, ky, kx]
    return matrix.reshape(-1, int(np.prod(summed)))


def _floating(merged: Merged, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    c = merged.convolution
    kernel = torch.tensor(merged.weight, dtype=dtype).mul_(2.0**merged.exponent)
    kernel = kernel.contiguous(memory_format=torch.channels_last)

    def convolve(x: Tensor) -> Tensor:
        height, width, channels = x.shape[1:]
        # The same memory as permuted; with the strides that those give, oneDNN computes maps of one column wrongly.
        maps = x.to(dtype).view(-1, 1, height, width) if channels == 1 else x.to(dtype).permute(0, 3, 1, 2)
        sums = F.conv2d(maps, kernel, None, c.stride, c.padding, c.dilation, c.groups)
        return sums.permute(0, 2, 3, 1).contiguous()

    return convolve
