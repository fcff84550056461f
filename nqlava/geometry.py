"""Finding, in integer weights, the average pooling that was folded into them.

Folding repeats every weight over a window: kernel w ⊗ 1(py × px), stride (py·sy, px·sx), padding (py·my, px·mx). The
same sums come from adding up each window of the input first and convolving with the small kernel after: py·px times
fewer multiplications, and the same integers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nqlava.network import Connection, Pair


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


def unfold(connection: Connection, input_shape: tuple[int, ...]) -> Convolution:
    """The connection with the largest windows that its weights allow, found by exact comparison.

    The two axes are independent of each other: weights repeat over py × px windows if they repeat py times along y
    and px times along x.
    """
    if connection.is_convolution:
        weight, stride, padding = connection.weight, connection.stride, connection.padding
    else:
        shape = input_shape if len(input_shape) == 3 else (int(np.prod(input_shape)), 1, 1)
        weight, stride, padding = connection.weight.reshape(-1, *shape), (shape[1], shape[2]), (0, 0)
        input_shape = shape
    window = [1, 1]
    for axis in (0, 1):
        if connection.dilation[axis] != 1:
            continue
        size = input_shape[1 + axis]
        for p in range(weight.shape[2 + axis], 1, -1):
            if (
                _repeats(weight, p, 2 + axis)
                and stride[axis] % p == 0
                and padding[axis] % p == 0
                and (size % p == 0 or padding[axis] == 0)
            ):
                window[axis] = p
                break
    y, x = window
    return Convolution(
        weight=np.ascontiguousarray(weight[:, :, ::y, ::x]),
        window=(y, x),
        stride=(stride[0] // y, stride[1] // x),
        padding=(padding[0] // y, padding[1] // x),
        dilation=connection.dilation,
        groups=connection.groups,
    )


def _repeats(weight: NDArray[np.int8], p: int, axis: int) -> bool:
    """Whether the kernel consists, along ``axis``, of runs of p equal weights."""
    size = weight.shape[axis]
    return size % p == 0 and np.array_equal(np.repeat(weight.take(range(0, size, p), axis), p, axis), weight)
