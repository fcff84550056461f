"""Activations that become IF neurons: NQ (noisy quantized), which anticipates their output, and plain ReLU."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from train.choices import Reset
from train.model.kernels import Kernels, Quantize, Spike, quantize_forward
from train.model.neuron import integrate_and_fire


class Neuron(nn.Module):
    """An activation of the trained network that becomes a layer of IF neurons after conversion.

    While ``steps`` is set (train.model.snn.spiking), the module is those neurons: its input (T·B, ...) holds T steps of
    B samples, step by step, and its output θ·spikes has the same shape. Otherwise it is the activation, ``activate``.
    In training the spikes of NQ's neurons have v(0) = θ/2 and a gradient (train.model.kernels.spike_backward).

    Attributes:
        threshold: θ, a scalar (float32), in the unit of the pre-activation z. A spike stands for θ.
        initial: v(0) / θ, a scalar or one per channel (C,); model files hold it beside the state, if it was calibrated.
        usual: v(0) / θ before it is calibrated.
        reset: "soft" (v ← v − θ) or "hard" (v ← 0).
        steps: T while the module acts as neurons, else None.
        kernels: the elementwise passes of training.
    """

    threshold: Tensor
    initial: Tensor
    usual: float
    reset: Reset = "soft"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initial", torch.tensor(self.usual), persistent=False)
        self.steps: int | None = None
        self.kernels = Kernels()

    def activate(self, z: Tensor) -> Tensor:
        """The activation of the trained network, elementwise."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        if self.steps is None:
            return self.activate(z)
        if self.training and isinstance(self, NQ):
            return Spike.apply(z, self.threshold, self.steps, self.kernels)
        dtype = torch.promote_types(z.dtype, torch.float32)
        current = z.to(dtype).unflatten(0, (self.steps, -1))
        return integrate_and_fire(current, self.threshold.to(dtype), self.initial.to(dtype), self.reset).flatten(0, 1)


class NQ(Neuron):
    """Noisy quantized activation with a trainable threshold λ (Huang et al., arXiv 2404.17456).

        a = λ · clip(⌊z·L/λ + 1/2⌋ / L, 0, 1) + ε,   ε ~ N(0, σ²) in training only

    σ = 0 gives QCFS (Bu et al., ICLR 2022). After conversion λ is the threshold of an IF neuron with soft reset and
    v(0) = λ/2.

    Args:
        levels: L, the number of quantization levels above zero.
        threshold: λ at the start, in the unit of the pre-activation z.

    Attributes:
        threshold: λ, a scalar parameter (float32).
        sigma: σ, a scalar buffer, in the unit of z; set by train.loop.calibrate.
        noise: gives standard normal values of a shape, for training; None for no noise.
    """

    usual = 0.5

    def __init__(self, levels: int, threshold: float = 4.0) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        self.register_buffer("sigma", torch.tensor(0.0))
        self.noise: Callable[[torch.Size], Tensor] | None = None

    def activate(self, z: Tensor) -> Tensor:
        """Activation of z, of any shape."""
        if not self.training:
            return quantize_forward(z, self.threshold, self.sigma, None, self.levels)
        noise = None if self.noise is None else self.noise(z.shape)
        return Quantize.apply(z, self.threshold, self.sigma, noise, self.levels, self.kernels)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, threshold={self.threshold.item():.4f}, sigma={self.sigma.item():.4f}"


class RateReLU(Neuron):
    """ReLU, approximated by the rate of IF neurons with v(0) = 0 (Han et al., CVPR 2020).

    Soft reset gives the residual membrane potential (RMP) neuron, hard reset the baseline that loses the residue.

    Args:
        threshold: θ; train.loop.calibrate.balance_thresholds sets it from data.
        reset: "soft" or "hard".
    """

    usual = 0.0

    def __init__(self, threshold: float = 1.0, reset: Reset = "soft") -> None:
        super().__init__()
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.register_buffer("threshold", torch.tensor(float(threshold)))
        self.reset = reset

    def activate(self, z: Tensor) -> Tensor:
        """max(z, 0)."""
        return torch.relu(z)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold.item():.4f}, reset={self.reset}"


class NoisePool:
    """Standard normal values drawn once per epoch and read at random offsets.

    Drawing a fresh Gaussian per element costs more than the rest of a training step on a CPU; a slice at a random
    offset of a pool several times larger than the largest activation costs one read.

    Args:
        size: values in the pool.
        dtype, device: of the values handed out.
        generator: source of the values and of the offsets (a CPU generator).
    """

    def __init__(self, size: int, *, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> None:
        self.generator = generator
        self.values = torch.randn(size, generator=generator).to(dtype=dtype, device=device)

    def like(self, shape: torch.Size) -> Tensor:
        """Noise of ``shape``; four dimensions (N, C, H, W) come channels-last."""
        count = shape.numel()
        offset = int(torch.randint(len(self.values) - count + 1, (), generator=self.generator))
        flat = self.values[offset : offset + count]
        if len(shape) != 4:
            return flat.view(shape)
        n, c, h, w = shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
