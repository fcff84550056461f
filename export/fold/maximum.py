"""Max pooling as neurons whose rates come to the maximum of the rates in a window."""

import torch.nn.functional as F
from torch import Tensor, nn

from export.fold.folded import Pool
from train.model.activation import RateReLU


class MaximumOfRates(nn.Module):
    """torch.nn.MaxPool2d by max(a, b) = a + max(b − a, 0), value by value along each axis.

    The differences are layers of IF neurons. Each loses what a ReLU loses, so that with more steps the rates come
    closer to the maximum of the rates; the maximum of spikes, taken step by step, does not. It takes k − 1 layers for
    each side k of the window, and the layer behind has as many connections more.

    Args:
        pool: the windows.
        has_sum: whether the sum is a layer of IF neurons too. The layer behind then has one connection, but the spikes
            of the sum come later, which costs accuracy at few steps. Its values must be at least 0.
    """

    def __init__(self, pool: Pool, *, has_sum: bool = False) -> None:
        super().__init__()
        self.pool = pool
        self.rows, self.columns = (nn.ModuleList(RateReLU() for _ in range(k - 1)) for k in pool.kernel)
        self.sum = RateReLU() if has_sum else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The maxima (N, C, H', W') of x (N, C, H, W); where a window ends outside, 0 is among its values."""
        for axis, neurons in ((0, self.rows), (1, self.columns)):
            x = self._along(x, axis, neurons)
        return self.sum(x)

    def _along(self, x: Tensor, axis: int, neurons: nn.ModuleList) -> Tensor:
        """The maxima along one axis."""
        kernel, stride, before, dilation = (
            pair[axis] for pair in (self.pool.kernel, self.pool.stride, self.pool.padding, self.pool.dilation)
        )
        after, last = end_of(self.pool, axis, x.shape[2 + axis])
        x = F.pad(x, (0, 0, before, after) if axis == 0 else (before, after))
        places = [slice(j * dilation, j * dilation + last, stride) for j in range(kernel)]
        values = [x[:, :, place] if axis == 0 else x[:, :, :, place] for place in places]
        largest = values[0]
        for value, neuron in zip(values[1:], neurons, strict=True):
            largest = largest + neuron(value - largest)
        return largest


def end_of(pool: Pool, axis: int, size: int) -> tuple[int, int]:
    """Zeros that the windows need behind a map of the size, and 1 + the place where the last window begins."""
    before, stride = pool.padding[axis], pool.stride[axis]
    reach = pool.dilation[axis] * (pool.kernel[axis] - 1) + 1
    room = size + 2 * before - reach
    count = (-(-room // stride) if pool.ceil_mode else room // stride) + 1
    if pool.ceil_mode and (count - 1) * stride >= size + before:
        count -= 1  # PyTorch has no window that begins behind the map
    last = (count - 1) * stride + 1
    return max(0, last + reach - 1 - before - size), last
