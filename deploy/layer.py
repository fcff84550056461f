"""The arithmetic of one layer, shared by the integer engine and the Lava process models.

docs/semantics.md states what is computed; this module computes it exactly, and says why it is exact.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deploy.pooling import unfold
from export.network import MEMBRANE_MAX, Layer

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


class PreparedLayer:
    """Synapses and neurons of one layer, ready to run on a device.

        I = Σ w · in,   u = clip(v + I + b, ±(2²³ − 1)),   s = [u ≥ θ],   v = u − θ · s

    Exactness. Let A = max over output channels of Σ|w| · (largest input). Every product is an integer, and every
    partial sum, in whatever order and with whatever fused multiply-adds it is formed, is an integer of magnitude at
    most A. float32 represents all integers up to 2²⁴, float64 up to 2⁵³, so no addition rounds: float32 is used for
    A < 2²⁴ and float64 else (A ≥ 2⁵³ would take 2⁴¹ inputs). Window sums (deploy/pooling.py) are bounded by A too.
    v + I + b is formed in int32 where A + 2 (2²³ − 1) < 2³¹, which the first case implies, and in int64 else.

    Call it inside ``exact_arithmetic``.

    Args:
        layer: the layer.
        input_shape: (C, H, W) or (N,).
        input_max: largest input: 255 for the image, 1 for spikes.
        device: where to compute.

    Attributes:
        output_shape: (O, H', W') or (O,).
        dtype: torch.int32 or torch.int64, of currents and membrane potentials.
    """

    def __init__(self, layer: Layer, input_shape: tuple[int, ...], input_max: int, device: torch.device) -> None:
        convolution = unfold(layer, input_shape)
        magnitude = np.abs(layer.weight.astype(np.int64)).reshape(layer.weight.shape[0], -1).sum(axis=1)
        bound = int(magnitude.max()) * input_max
        self.output_shape = layer.output_shape(input_shape)
        self.is_readout = layer.is_readout
        self.dtype = torch.int32 if bound + 2 * MEMBRANE_MAX <= _INT32_MAX else torch.int64
        self._float = torch.float32 if bound < _EXACT_FLOAT32 else torch.float64
        self._convolution = convolution
        self._input_shape = input_shape if len(input_shape) == 3 else (convolution.weight.shape[1], 1, 1)
        self._weight = torch.tensor(convolution.weight, dtype=self._float, device=device)
        if not layer.is_convolution:
            self._weight = self._weight.flatten(1)
        self._bias = self._parameter(layer.bias, device)
        self._v0 = self._parameter(layer.v0, device)
        self._threshold = None if layer.threshold is None else self._parameter(layer.threshold, device)

    def _parameter(self, value: np.ndarray, device: torch.device) -> Tensor:
        """(O,) or (O, H, W) as a tensor that broadcasts over (n, *output_shape)."""
        tensor = torch.tensor(value, dtype=self.dtype, device=device)
        return tensor.reshape(tensor.shape + (1,) * (len(self.output_shape) - tensor.ndim))

    def current(self, inputs: Tensor) -> Tensor:
        """I + b for inputs (n, *input_shape) of any integer or boolean type: (n, *output_shape), dtype ``dtype``."""
        c = self._convolution
        x = inputs.to(self._float).reshape(-1, *self._input_shape)
        if c.window != (1, 1):
            x = F.avg_pool2d(x, c.window, divisor_override=1)
        if self._weight.ndim == 2:
            sums = F.linear(x.flatten(1), self._weight)
        else:
            sums = F.conv2d(x, self._weight, None, c.stride, c.padding, c.dilation, c.groups)
        return sums.to(self.dtype).add_(self._bias)

    def initial(self, samples: int) -> Tensor:
        """A new v(0) for a number of samples: (samples, *output_shape)."""
        return self._v0.expand(samples, *self.output_shape).clone(memory_format=torch.contiguous_format)

    def fire(self, v: Tensor) -> Tensor:
        """``fire`` with the layer's threshold; ValueError for a read-out."""
        if self._threshold is None:
            raise ValueError("a read-out does not fire")
        return fire(v, self._threshold)


def integrate(v: Tensor, current: Tensor) -> Tensor | None:
    """v ← clip(v + current, ±(2²³ − 1)) in place; saturations per sample, int64 (n,), or None where there are none."""
    v += current
    low, high = torch.aminmax(v)
    if int(low) >= -MEMBRANE_MAX and int(high) <= MEMBRANE_MAX:
        return None
    count = ((v < -MEMBRANE_MAX) | (v > MEMBRANE_MAX)).flatten(1).sum(dim=1)
    v.clamp_(-MEMBRANE_MAX, MEMBRANE_MAX)
    return count


def fire(v: Tensor, threshold: Tensor) -> Tensor:
    """Spikes of u = v, bool, and the soft reset v ← u − θ·s in place; θ broadcasts over v."""
    spikes = v >= threshold
    v -= threshold * spikes
    return spikes
