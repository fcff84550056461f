"""The arithmetic of one layer in PyTorch's own operations: on GPUs, while rounding, and behind Lava's own synapses.

docs/semantics.md states what is computed; this module computes it exactly, and says why it is exact. The fast path on
CPUs is nqlava/engine/cpu/layer.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nqlava.geometry import Convolution
from nqlava.merged import Merged, merge
from nqlava.network import MEMBRANE_MAX, Layer, Reset

_EXACT_FLOAT32 = 2**24
_INT32_MAX = 2**31 - 1


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Rules out, while it is active, what would round inside a float convolution or matrix product.

    NNPACK and cuDNN may choose Winograd or FFT algorithms, which multiply sums; TF32 and bfloat16 shorten the factors.
    Without them PyTorch uses oneDNN's direct convolution or a matrix product, which only add products.
    """
    precision = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")  # also turns TF32 off in CUDA matrix products
        stack.enter_context(torch.backends.nnpack.flags(enabled=False))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(torch.no_grad())
        yield


class Sums:
    """Σ w · in of one convolution or matrix, exact.

    Exactness. Let A = max over output channels of Σ|w| · (largest input). Every product is an integer, and every
    partial sum, in any order and with any fused multiply-adds, is an integer of magnitude at
    most A. float32 represents all integers up to 2²⁴, float64 up to 2⁵³, so no addition rounds: float32 is used for
    A < 2²⁴ and float64 else (A ≥ 2⁵³ would take 2²⁶ inputs), and for uncommon geometries (``Convolution.is_common``).
    Window sums (nqlava/geometry.py) are bounded by A too.

    Args:
        convolution: integer weights and geometry.
        input_shape: (C, H, W) or (N,).
        input_max: largest magnitude of an input.
        device: where to compute.
        is_dense: whether there is a single output position, which sees all inputs.

    Attributes:
        bound: A.
    """

    def __init__(
        self,
        convolution: Convolution,
        input_shape: tuple[int, ...],
        input_max: int,
        device: torch.device,
        *,
        is_dense: bool,
    ) -> None:
        self._convolution = convolution
        weight = convolution.weight.astype(np.int64)
        repeats = int(np.prod(convolution.window))
        self.bound = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max()) * input_max * repeats
        self._input_shape = input_shape if len(input_shape) == 3 else (weight.shape[1], 1, 1)
        height, width = (size // by for size, by in zip(self._input_shape[1:], convolution.window, strict=True))
        common = convolution.is_common(height, width)
        self._float = torch.float32 if common and self.bound < _EXACT_FLOAT32 else torch.float64
        self._weight = torch.tensor(weight, dtype=self._float, device=device)
        if is_dense:
            self._weight = self._weight.flatten(1)

    def sums(self, inputs: Tensor) -> Tensor:
        """Σ w · in for inputs (n, *input_shape) of any integer or boolean type: (n, *output_shape), floating point."""
        c = self._convolution
        x = inputs.to(self._float).reshape(-1, *self._input_shape)
        if c.window != (1, 1):
            x = F.avg_pool2d(x, c.window, divisor_override=1)
        if self._weight.ndim == 2:
            return F.linear(x.flatten(1), self._weight)
        return F.conv2d(x, self._weight, None, c.stride, c.padding, c.dilation, c.groups)


class Synapses(Sums):
    """What arrives from one source, by connections that are one convolution or matrix.

    Args:
        merged: the connections.
        device: where to compute.

    Attributes:
        source: name of the source.
    """

    def __init__(self, merged: Merged, device: torch.device) -> None:
        self.source = merged.source
        weight = merged.weight.astype(np.int64) << merged.exponent
        convolution, largest = replace(merged.convolution, weight=weight), merged.input_max
        super().__init__(convolution, merged.input_shape, largest, device, is_dense=merged.is_dense)


class PreparedLayer:
    """Synapses and neurons of one layer, ready to run on a device.

        I = Σ over connections of 2^exponent · Σ w · in,   u = clip(v + I + b, ±(2²³ − 1)),   s = [u ≥ θ],
        v = u − θ · s (soft reset) or v = u · (1 − s) (hard reset)

    The sum over the connections is formed in int32 where A + 2 (2²³ − 1) < 2³¹ for the A of all synapses together,
    and in int64 else, so v + I + b does not overflow. Call it inside ``exact_arithmetic``.

    Args:
        layer: the layer.
        shapes: shapes of its sources by name, "input" for the image.
        device: where to compute.

    Attributes:
        output_shape: (O, H', W') or (O,).
        dtype: torch.int32 or torch.int64, of currents and membrane potentials.
    """

    def __init__(self, layer: Layer, shapes: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        self.output_shape = layer.output_shape(shapes)
        self.is_readout = layer.is_readout
        self._synapses = [Synapses(merged, device) for merged in merge(layer, shapes)]
        bound = sum(synapses.bound for synapses in self._synapses)
        self.dtype = torch.int32 if bound + 2 * MEMBRANE_MAX <= _INT32_MAX else torch.int64
        self._bias = self._parameter(layer.bias, device)
        self._v0 = self._parameter(layer.v0, device)
        self._threshold = None if layer.threshold is None else self._parameter(layer.threshold, device)
        self._reset = layer.reset

    def _parameter(self, value: NDArray[np.int32], device: torch.device) -> Tensor:
        """(O,) or (O, H, W) as a tensor that broadcasts over (n, *output_shape)."""
        tensor = torch.tensor(value, dtype=self.dtype, device=device)
        return tensor.reshape(tensor.shape + (1,) * (len(self.output_shape) - tensor.ndim))

    def sums(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """What arrives from the given sources, (n, *output_shape) of ``dtype``; None where none of them is connected.

        Args:
            inputs: (n, *shape) by the name of the source, of any integer or boolean type.
        """
        total: Tensor | None = None
        for synapses in self._synapses:
            if synapses.source in inputs:
                part = synapses.sums(inputs[synapses.source]).to(self.dtype)
                total = part if total is None else total.add_(part)
        return total

    def current(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """I + b of what arrives from the given sources: (n, *output_shape), or (1, ...) where that is b alone."""
        sums = self.sums(inputs)
        return self._bias[None] if sums is None else sums.add_(self._bias)

    def initial(self, samples: int) -> Tensor:
        """A new v(0) for a number of samples: (samples, *output_shape)."""
        return self._v0.expand(samples, *self.output_shape).clone(memory_format=torch.contiguous_format)

    def fire(self, v: Tensor) -> Tensor:
        """``fire`` with the layer's threshold and reset; ValueError for a read-out."""
        if self._threshold is None:
            raise ValueError("a read-out does not fire")
        return fire(v, self._threshold, self._reset)


def integrate(v: Tensor, current: Tensor) -> Tensor | None:
    """v ← clip(v + current, ±(2²³ − 1)) in place; saturations per sample, int64 (n,), or None where there are none."""
    v += current
    low, high = torch.aminmax(v)
    if int(low) >= -MEMBRANE_MAX and int(high) <= MEMBRANE_MAX:
        return None
    count = ((v < -MEMBRANE_MAX) | (v > MEMBRANE_MAX)).flatten(1).sum(dim=1)
    v.clamp_(-MEMBRANE_MAX, MEMBRANE_MAX)
    return count


def fire(v: Tensor, threshold: Tensor, reset: Reset = "soft") -> Tensor:
    """Spikes of u = v, bool; in place v ← u − θ·s (soft reset) or v ← u·(1 − s) (hard reset); θ broadcasts over v."""
    spikes = v >= threshold
    if reset == "hard":
        v.masked_fill_(spikes, 0)
    else:
        v -= threshold * spikes
    return spikes
