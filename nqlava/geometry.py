"""Finding, in integer weights, the average pooling that was folded into them.

Folding a pooling repeats every weight over a window: kernel w ⊗ 1(py × px), stride (py·sy, px·sx), padding (py·my,
px·mx). The same sums come from adding up each window of the input first and convolving with the small kernel after:
py·px times fewer multiplications, and the same integers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """Synapses as window sums followed by a convolution.

    Attributes:
        weight: integers (O, I, kh, kw). A dense connection behind (C, H, W) is a convolution with one output position.
        window: (y, x) size of the windows summed first; (1, 1) for none; what fills no window is unused.
        stride, padding, dilation, groups: of the convolution over the window sums.
    """

    weight: NDArray[np.signedinteger[Any]]
    window: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def is_common(self, height: int, width: int) -> bool:
        """Whether the padding is at most half the kernel, and the kernel, if dilated, within the (height, width) map.

        For other geometries oneDNN's convolutions, which PyTorch uses on CPUs for float32 and int8, may read outside
        their memory or give wrong sums, for instance where all of a kernel lies in the padding (seen with PyTorch 2.3).
        PyTorch computes float64 by itself.
        """
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        return all(
            padding <= size // 2 and (dilation == 1 or size <= of)
            for padding, size, dilation, of in zip(self.padding, reach, self.dilation, (height, width), strict=True)
        )

    @property
    def diagonal(self) -> NDArray[np.signedinteger[Any]] | None:
        """(C,), the factor of each channel, where every neuron has one synapse, from the same channel and position."""
        outputs, inputs, *kernel = self.weight.shape
        if kernel != [1, 1] or self.stride != (1, 1) or self.padding != (0, 0) or outputs != inputs * self.groups:
            return None
        matrix = self.weight[:, :, 0, 0]
        if inputs == 1:
            return matrix[:, 0]
        is_diagonal = self.groups == 1 and np.array_equal(matrix, np.diag(np.diag(matrix)))
        return np.diag(matrix) if is_diagonal else None


def find_window(
    weight: NDArray[np.int8], size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Convolution:
    """The convolution of (…, *size) maps with the largest windows that its weights allow, found by exact comparison.

    The two axes are independent of each other: weights repeat over py × px windows if they repeat py times along y
    and px times along x.
    """
    window = [1, 1]
    for axis in (0, 1):
        if dilation[axis] != 1:
            continue
        for p in range(weight.shape[2 + axis], 1, -1):
            if (
                _repeats(weight, p, 2 + axis)
                and stride[axis] % p == 0
                and padding[axis] % p == 0
                and (size[axis] % p == 0 or padding[axis] == 0)
            ):
                window[axis] = p
                break
    y, x = window
    return Convolution(
        weight=np.ascontiguousarray(weight[:, :, ::y, ::x]),
        window=(y, x),
        stride=(stride[0] // y, stride[1] // x),
        padding=(padding[0] // y, padding[1] // x),
        dilation=dilation,
        groups=groups,
    )


def _repeats(weight: NDArray[np.int8], p: int, axis: int) -> bool:
    """Whether the kernel consists, along ``axis``, of runs of p equal weights."""
    size = weight.shape[axis]
    return size % p == 0 and np.array_equal(np.repeat(weight.take(range(0, size, p), axis), p, axis), weight)
