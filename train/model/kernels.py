"""The elementwise passes of training, forward and backward: quantized activation and spikes, plain or compiled."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_STEEP = 1e30  # times a positive number of ordinary size is above 1


def _inside(ratio: Tensor) -> Tensor:
    """1 where 0 < ratio < 1, else 0; by arithmetic, since a boolean keeps the compiler from vectorising the loop."""
    return torch.clamp(ratio * (1 - ratio) * _STEEP, 0, 1)


def quantize_forward(z: Tensor, threshold: Tensor, sigma: Tensor, noise: Tensor | None, levels: int) -> Tensor:
    """a = λ · clip(⌊z·L/λ + 1/2⌋ / L, 0, 1) + σ·noise, computed in float32 and returned in the dtype of z."""
    a = torch.clamp(torch.floor(z.float() * (levels / threshold) + 0.5), 0, levels) * (threshold / levels)
    if noise is not None:
        a = a + noise.float() * sigma
    return a.to(z.dtype)


def quantize_backward(z: Tensor, threshold: Tensor, grad: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Straight-through gradients with respect to z and to λ.

    With r = z/λ and q = clip(⌊r·L + 1/2⌋ / L, 0, 1): ∂a/∂z = 1 where 0 < r < 1, else 0, and ∂a/∂λ = q − r·∂a/∂z.
    """
    ratio = z.float() / threshold
    quantized = torch.clamp(torch.floor(ratio * levels + 0.5), 0, levels) / levels
    inside = _inside(ratio)
    grad = grad.float()
    return (grad * inside).to(z.dtype), (grad * (quantized - ratio * inside)).sum()


def spike_forward(z: Tensor, threshold: Tensor) -> Tensor:
    """θ·spikes (T, n) of IF neurons with soft reset and v(0) = θ/2 for the currents z (T, n).

    u(t) = v(t−1) + z(t); s(t) = 1 iff u(t) ≥ θ; v(t) = u(t) − θ·s(t). In float32, returned in the dtype of z.
    """
    outputs = []
    membrane = threshold * 0.5
    for current in z:
        membrane = membrane + current.float()
        output = (membrane >= threshold).float() * threshold
        membrane = membrane - output
        outputs.append(output.to(z.dtype))
    return torch.stack(outputs)


def spike_backward(z: Tensor, threshold: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Straight-through gradients of :func:`spike_forward` with respect to z, (T, n), and to θ.

    The step is taken as a slope of width θ around the threshold: with h(t) = 1 where 1/2 < u(t)/θ < 3/2, else 0, and
    the output o(t) = θ·s(t), ∂o/∂u = h and ∂o/∂θ = s − h·u/θ. The reset is differentiated too:

        ∂/∂u(t) = h(t)·∂/∂o(t) + (1 − h(t))·∂/∂v(t),   ∂/∂v(t−1) = ∂/∂z(t) = ∂/∂u(t)

    At T = 1 this is the gradient of the quantized activation with L = 1.
    """
    spikes, ratios, slopes = [], [], []
    membrane = threshold * 0.5
    for current in z:
        membrane = membrane + current.float()
        ratio = membrane / threshold
        spike = (membrane >= threshold).float()
        membrane = membrane - spike * threshold
        spikes.append(spike)
        ratios.append(ratio)
        slopes.append(_inside(ratio - 0.5))
    later = torch.zeros_like(grad[0], dtype=torch.float32)
    total = torch.zeros_like(later)
    gradients = []
    for t in range(len(spikes) - 1, -1, -1):
        beyond = grad[t].float() - later
        total = total + beyond * (spikes[t] - ratios[t] * slopes[t])
        later = later + beyond * slopes[t]
        gradients.append(later.to(z.dtype))
    return torch.stack(gradients[::-1]), (total + 0.5 * later).sum()


@dataclass(frozen=True)
class Kernels:
    """The elementwise passes, plain or compiled.

    They are compiled apart from the autograd graph: compiled inside it, incoming gradients would be copied to the
    contiguous layout, which costs more than the passes themselves.
    """

    quantize_forward: Callable[..., Tensor] = quantize_forward
    quantize_backward: Callable[..., tuple[Tensor, Tensor]] = quantize_backward
    spike_forward: Callable[..., Tensor] = spike_forward
    spike_backward: Callable[..., tuple[Tensor, Tensor]] = spike_backward


def compiled_kernels() -> Kernels:
    """The passes fused by torch.compile, one variant per layer shape; needs a C++ compiler on a CPU."""
    torch._dynamo.config.cache_size_limit = max(64, torch._dynamo.config.cache_size_limit)
    passes = (quantize_forward, quantize_backward, spike_forward, spike_backward)
    return Kernels(*(torch.compile(function, dynamic=False) for function in passes))


class Quantize(torch.autograd.Function):
    """:func:`quantize_forward` with the gradients of :func:`quantize_backward`."""

    @staticmethod
    def forward(ctx, z: Tensor, threshold: Tensor, sigma: Tensor, noise: Tensor | None, levels: int, kernels: Kernels):
        ctx.save_for_backward(z, threshold)
        ctx.levels, ctx.kernels = levels, kernels
        return kernels.quantize_forward(z, threshold, sigma, noise, levels)

    @staticmethod
    def backward(ctx, grad: Tensor):
        z, threshold = ctx.saved_tensors
        grad_z, grad_threshold = ctx.kernels.quantize_backward(z, threshold, grad, ctx.levels)
        return grad_z, grad_threshold, None, None, None, None


class Spike(torch.autograd.Function):
    """:func:`spike_forward` with the gradients of :func:`spike_backward`, for T·B currents, step by step."""

    @staticmethod
    def forward(ctx, z: Tensor, threshold: Tensor, steps: int, kernels: Kernels):
        ctx.save_for_backward(z, threshold)
        ctx.steps, ctx.kernels = steps, kernels
        return _restored(kernels.spike_forward(_flat(z, steps), threshold), z)

    @staticmethod
    def backward(ctx, grad: Tensor):
        z, threshold = ctx.saved_tensors
        flat = _flat(z, ctx.steps), threshold, _flat(grad, ctx.steps)
        grad_z, grad_threshold = ctx.kernels.spike_backward(*flat)
        return _restored(grad_z, z), grad_threshold, None, None


def _flat(values: Tensor, steps: int) -> Tensor:
    """(T·B, ...) as (T, n), channels last within a sample; no copy where they are so in memory."""
    if values.dim() == 4:
        values = values.permute(0, 2, 3, 1)
    return values.reshape(steps, -1)


def _restored(flat: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`_flat`."""
    if like.dim() != 4:
        return flat.view(like.shape)
    count, channels, height, width = like.shape
    return flat.view(count, height, width, channels).permute(0, 3, 1, 2)
