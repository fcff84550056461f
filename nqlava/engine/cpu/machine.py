"""Which kernels are exact, and fastest, on the processor at hand."""

import os
import statistics
import time
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_CANDIDATES = (255, 128)
"""Largest inputs that are tried. Processors without VNNI add two products in 16 bits: 2 · 128 · 127 still fits."""


def prepare_int8(
    weight: Tensor,
    scale: float,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    input_shape: tuple[int, ...],
) -> Callable[[Tensor], Tensor]:
    """oneDNN's convolution of uint8 with int8: exact sums below 2²⁴, times a power of two, as float32.

    Args:
        weight: int8 (O, I/groups, kh, kw).
        scale: the power of two.
        stride, padding, dilation, groups: of the convolution.
        input_shape: (n, C, H, W) of typical inputs, for which the weights are laid out.

    Returns:
        a function of uint8 (n, C, H, W) in channels-last memory.
    """
    geometry = [list(stride), list(padding), list(dilation), groups]
    scales, zeros = torch.full((len(weight),), scale), torch.zeros(len(weight), dtype=torch.int64)
    packed = torch.ops.onednn.qconv_prepack(weight, scales, 1.0, 0, *geometry, list(input_shape))
    convolve = torch.ops.onednn.qconv2d_pointwise

    def run(x: Tensor) -> Tensor:
        out: Tensor = convolve(x, 1.0, 0, packed, scales, zeros, None, *geometry, 1.0, 0, torch.float32, "none", [], "")
        return out

    return run


def prepare_int8_product(weight: Tensor, scale: float, rows: int) -> Callable[[Tensor], Tensor]:
    """oneDNN's product of uint8 (n, I) with int8 (O, I), transposed: as ``prepare_int8``, for about ``rows`` rows."""
    scales, zeros = torch.full((len(weight),), scale), torch.zeros(len(weight), dtype=torch.int64)
    packed = torch.ops.onednn.qlinear_prepack(weight, [rows, weight.shape[1]])
    multiply = torch.ops.onednn.qlinear_pointwise

    def run(x: Tensor) -> Tensor:
        out: Tensor = multiply(x, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return out

    return run


@lru_cache(maxsize=1)
def int8_limit() -> int:
    """Largest input for which the int8 kernels are exact here and faster than float32; 0 where they are not to be used.

    Found by trial at the first call: a convolution and a product with the largest weights and inputs, compared with
    int64 arithmetic, and timed against float32. 0 without a trial where the environment has ``NQ_LAVA_INT8=0``.
    """
    if os.environ.get("NQ_LAVA_INT8") == "0":
        return 0
    for largest in _CANDIDATES:
        try:
            if _is_exact(largest) and _is_faster():
                return largest
        except (RuntimeError, AttributeError, TypeError):  # this PyTorch has no such operation
            return 0
    return 0


def describe() -> str:
    """The kernels in use, for people: "int8 (oneDNN) or spike by spike", without int8 "float32 or spike by spike"."""
    return f"{'int8 (oneDNN)' if int8_limit() else 'float32'} or spike by spike"


def _is_exact(largest: int) -> bool:
    weight, x = _extremes(largest)
    run = prepare_int8(
        weight, 1.0, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, input_shape=tuple(x.shape)
    )
    convolved = run(x)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    matrix, rows = weight.flatten(1), x.permute(0, 2, 3, 1).reshape(-1, weight[0].numel())
    product = prepare_int8_product(matrix, 1.0, len(rows))(rows)
    return torch.equal(convolved.double(), expected) and torch.equal(
        product.double(), rows.double() @ matrix.double().T
    )


def _extremes(largest: int) -> tuple[Tensor, Tensor]:
    """Weights ±127 and inputs 0 and ``largest``: some outputs with the largest sums there can be, others mixed."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randint(0, 2, (64, 64, 3, 3), generator=generator) * 254 - 127).to(torch.int8)
    weight[:8], weight[8:16] = 127, -127
    x = torch.randint(0, 2, (9, 64, 8, 8), generator=generator) * largest
    x[:4] = largest
    return weight, x.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _is_faster() -> bool:
    weight, x = _extremes(1)
    run = prepare_int8(
        weight, 1.0, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, input_shape=tuple(x.shape)
    )
    floating = weight.float()

    def seconds(compute: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(6):
            began = time.perf_counter()
            compute()
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    return seconds(lambda: run(x)) < seconds(lambda: F.conv2d(x.float(), floating, padding=1))
