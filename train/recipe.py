"""The recipe of a training: everything that decides the weights, besides the data and the machine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nqlava.errors import InputError
from train.augment import POLICIES
from train.data import MAX_SEED, MAX_SIDE
from train.models import ACTIVATIONS, MAX_LEVELS, Activation
from train.neuron import RESETS, Reset

MAX_STEPS = 4096


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the data, the machine and the number of processes.

    Attributes:
        model: a name in train.models.MODELS.
        epochs, batch: passes over the training set; images per step (a smaller last batch is left out).
        learning_rate: peak of the one-cycle schedule (linear warm-up over the first 15 %, then a half cosine to 0).
        momentum, weight_decay: Nesterov momentum; decay acts on convolution and linear weights only.
        label_smoothing, cutout: 0 for none; cutout in pixels.
        policy: of augmentation, in train.augment.POLICIES.
        average: decay per step of an exponential moving average of the weights, which is then what is evaluated, chosen
            and written; 0 for none.
        activation: "nq", or "relu" for RMP-SNN (train.models.Form).
        levels: L of NQ. threshold: λ at the start. noise_factor: times σ; 0 for QCFS.
        induction_steps: T of the noise induction and model choice of NQ, and of the calibration of ReLU's thresholds.
        snn_steps: T above 0 trains the SNN of T steps itself (see train.kernels.spike_backward) for the least mean loss
            over its read-outs after 1 .. T steps, without noise.
        dropout: after every activation, for ReLU. reset: "soft" or "hard", of the neurons that replace ReLU.
        threshold_scale: α, for ReLU: θ is α times the largest current.
        validation: training images held out for noise induction, thresholds and model choice.
        seed: of the split, the initial weights, the order, the augmentation and the noise.
        bfloat16: convolutions and linear layers under autocast; thresholds and statistics stay float32.
        weight_bits: of the weights in the forward pass, 2 … 8 (train.fake_quantize); 0 leaves them as they are.
        layer_bits: other bits for some convolutions and linear layers, by path; for weight_bits above 0.
    """

    model: str = "vgg_small"
    epochs: int = 40
    batch: int = 256
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    cutout: int = 8
    policy: str = "none"
    average: float = 0.0
    activation: Activation = "nq"
    levels: int = 4
    threshold: float = 4.0
    induction_steps: int = 4
    noise_factor: float = 1.0
    snn_steps: int = 0
    dropout: float = 0.0
    reset: Reset = "soft"
    threshold_scale: float = 1.0
    validation: int = 2000
    seed: int = 0
    bfloat16: bool = False
    weight_bits: int = 0
    layer_bits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, low, high in (
            ("levels", 1, MAX_LEVELS),
            ("induction_steps", 1, MAX_STEPS),
            ("snn_steps", 0, MAX_STEPS),
            ("momentum", 0, 1),
            ("label_smoothing", 0, 1),
            ("seed", 0, MAX_SEED),
            ("cutout", 0, MAX_SIDE),
            ("noise_factor", 0, 1e6),
        ):
            if not low <= getattr(self, key) <= high:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: {low}..{high}")
        for key in ("dropout", "average"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: from 0 to below 1")
        for key in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, key) < math.inf:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: numbers of at least 0")
        for key in ("threshold", "threshold_scale"):
            if not 0 < getattr(self, key) <= 1e6:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: positive numbers up to 1000000")
        for key, allowed in (("activation", ACTIVATIONS), ("reset", RESETS), ("policy", POLICIES)):
            if getattr(self, key) not in allowed:
                raise InputError(f"{key} is {getattr(self, key)!r}; allowed: {', '.join(allowed)}")
        if self.activation == "relu":
            for key in ("snn_steps", "weight_bits"):
                if getattr(self, key):
                    raise InputError(f"{key} is {getattr(self, key)} while activation is relu; allowed: 0")
        else:
            for key, usual in (("dropout", 0), ("reset", "soft"), ("threshold_scale", 1)):
                if getattr(self, key) != usual:
                    raise InputError(f"{key} is {getattr(self, key)} while activation is nq; allowed: {usual}")
        if self.weight_bits != 0 and not 2 <= self.weight_bits <= 8:
            raise InputError(f"weight_bits is {self.weight_bits}; allowed: 2..8, or 0 for weights as they are")
        for name, bits in self.layer_bits.items():
            if not self.weight_bits or not 2 <= bits <= 8:
                found = bits if self.weight_bits else f"{bits} while weight_bits is 0"
                raise InputError(f"layer_bits of {name} is {found}; allowed: 2..8, with weight_bits")

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress`` in 0 .. 1 of the training."""
        warmup = 0.15
        if progress < warmup:
            return self.learning_rate * progress / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
