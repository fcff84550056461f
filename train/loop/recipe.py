"""The recipe of a training: everything that decides the weights, besides the data and the machine."""

# ruff: noqa: RUF009 — the calls make fields

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, get_origin

from nqlava.errors import InputError
from train.choices import (
    MAX_LEVELS,
    MAX_SEED,
    MAX_SIDE,
    MAX_STEPS,
    MODEL_SIZES,
    Activation,
    Border,
    Filters,
    Flip,
    Policy,
    ReadOuts,
    Reset,
    Schedule,
)

RELU_STEPS = 32  # of the thresholds' calibration: with fewer, spikes may not reach the last layers


class Allowed(NamedTuple):
    """Values that an entry may have, as a test and in words."""

    test: Callable[[Any], bool]
    words: str


def _range(low: float, high: float) -> Allowed:
    return Allowed(lambda value: low <= value <= high, f"{low}..{high}")


_COUNT = Allowed(lambda value: value >= 1, "whole numbers from 1")
_SHARE = Allowed(lambda value: 0 <= value < 1, "from 0 to below 1")
_FINITE = Allowed(lambda value: 0 <= value < math.inf, "numbers of at least 0")
_POSITIVE = Allowed(lambda value: 0 < value <= 1e6, "positive numbers up to 1000000")
_BITS = Allowed(lambda value: value == 0 or 2 <= value <= 8, "2..8, or 0 for weights as they are")


@dataclass(frozen=True)
class Option:
    """What a command says of an entry of the recipe, and what the entry may be.

    Attributes:
        help: without the default. note: what follows the default.
        allowed: values; None for all, or for those of a Literal.
        flags: names; by default that of the entry. choices: names to choose from, where the type is no Literal.
        metavar: of the value in --help.
        group: of options in --help.
        only: the activation that the entry is for; with another one it has its default.
        start: whether a model to start from decides it.
        in_memory: whether it acts on images in memory alone, not on streamed ones.
    """

    help: str = ""
    note: str = ""
    allowed: Allowed | None = None
    flags: tuple[str, ...] = ()
    choices: Iterable[str] = ()
    metavar: str | None = None
    group: Literal["network", "optimisation"] = "optimisation"
    only: Activation | None = None
    start: bool = False
    in_memory: bool = False


def _option(default: Any, help: str = "", **about: Any) -> Any:
    """An entry of the recipe."""
    kind: Any = {"default_factory": dict} if default is dict else {"default": default}
    return field(**kind, metadata={"option": Option(help, **about)})


_network = partial(_option, group="network")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the data, the machine and the number of processes.

    The commands make an option of every entry that has a help text; it says what the entry is. Furthermore:

    Attributes:
        batch: images per step; a smaller last batch is left out.
        learning_rate: peak of SGD's; that of Muon follows the same schedule.
        schedule: "cosine" is the one-cycle schedule (linear warm-up over the first 15 %, then a half cosine to 0).
        momentum, weight_decay: Nesterov momentum; decay acts on convolution and linear weights only.
        average: decay per step; the average is then what is evaluated, chosen and written.
        snn_steps: T above 0 trains the SNN of T steps itself (see train.model.kernels.spike_backward) without noise.
        read_outs: of that SNN in the loss; with the last alone, T steps gain and fewer lose.
        dropout: after every activation.
        reset: of the neurons that replace ReLU.
        seed: of the split, the initial weights, the order, the augmentation and the noise.
        bfloat16: convolutions and linear layers under autocast; thresholds and statistics stay float32.
        weight_bits: of the weights in the forward pass (train.model.fake_quantize).
        layer_bits: bits by the path of a convolution or linear layer.
        optimizer: "adam" has its usual momenta, and suits short trainings.
        temperature: τ of the distillation, τ² · cross entropy of softmax(teacher / τ) and softmax(scores / τ).
    """

    model: str = _network(
        "vgg_small",
        f"million parameters: {', '.join(f'{name} {size:g}' for name, size in MODEL_SIZES.items())}",
        choices=MODEL_SIZES,
        start=True,
    )
    epochs: int = _option(40, allowed=_COUNT)
    batch: int = _option(256, allowed=_COUNT)
    learning_rate: float = _option(0.2, "peak", allowed=_FINITE)
    muon: float = _option(
        0.0,
        "train the filters of convolutions with Muon, at this peak rate, such as 0.06 for batch 500",
        note=", SGD trains them",
        allowed=_FINITE,
        metavar="RATE",
        only="nq",
    )
    bias_rate: float = _option(1.0, "learning rate of batch norm's biases, times that of the rest", allowed=_FINITE)
    schedule: Schedule = _option(
        "cosine", "of the learning rate: up to the peak and half a cosine to 0, or from the peak in a line to 0"
    )
    momentum: float = _option(0.9, allowed=_range(0, 1))
    weight_decay: float = _option(5e-4, allowed=_FINITE)
    label_smoothing: float = _option(0.1, allowed=_range(0, 1))
    distillation: float = _option(
        0.0,
        "share of the loss in which the model to start from, as a network without spikes, is the teacher",
        note=", none; needs --init or --pretrained",
        allowed=_range(0, 1),
        metavar="SHARE",
    )
    cutout: int = _option(8, "side in pixels, 0 for none", allowed=_range(0, MAX_SIDE), in_memory=True)
    crop: int = _option(4, "shift at random by up to so many pixels", allowed=_range(0, MAX_SIDE), in_memory=True)
    border: Border = _option("zero", "what a shift brings in", in_memory=True)
    flip: Flip = _option("random", "mirror an image at random, or in every other epoch", in_memory=True)
    policy: Policy = _option(
        "none", "beside crop and flip: TrivialAugment or CIFAR-10's AutoAugment", flags=("--augment",), in_memory=True
    )
    average: float = _option(
        0.0,
        "keep an exponential moving average of the weights, such as 0.999",
        note=", none",
        allowed=_SHARE,
        metavar="DECAY",
    )
    activation: Activation = _network(
        "nq", "nq, or relu for RMP-SNN: no biases, no batch norm, thresholds from the largest currents", start=True
    )
    levels: int = _network(
        4, "quantization levels L of NQ", allowed=_range(1, MAX_LEVELS), flags=("--levels", "--L"), start=True
    )
    filters: Filters = _network(
        "random", "of convolutions at the start: random, or with an identity for the first channels"
    )
    threshold: float = _network(4.0, "λ at the start", allowed=_POSITIVE, start=True)
    induction_steps: int = _network(
        4,
        "time steps T of the noise induction and of model choice; for relu of the thresholds' calibration",
        note=f", for relu {RELU_STEPS}",
        allowed=_range(1, MAX_STEPS),
        flags=("--induction-steps", "--T"),
    )
    noise_factor: float = _network(1.0, "times the measured σ; 0 trains plain QCFS", allowed=_range(0, 1e6))
    snn_steps: int = _network(
        0,
        "train the spiking network itself; best with --init",
        note=", the activation is trained",
        allowed=_range(0, MAX_STEPS),
        metavar="T",
        only="nq",
    )
    read_outs: ReadOuts = _network("all", "with --snn-steps: those in the loss, after every step or the last alone")
    dropout: float = _network(0.0, "for relu", allowed=_SHARE, only="relu")
    reset: Reset = _network("soft", "for relu", only="relu", start=True)
    threshold_scale: float = _network(
        1.0, "for relu: threshold as a share of the largest current", allowed=_POSITIVE, metavar="α", only="relu"
    )
    validation: int = _option(
        2000,
        "training images held out for noise induction and model choice",
        note=", but at most a fifth of the training set",
        allowed=_COUNT,
    )
    seed: int = _option(0, allowed=_range(0, MAX_SEED))
    bfloat16: bool = False
    optimizer: Literal["sgd", "adam"] = "sgd"
    temperature: float = 1.0
    weight_bits: int = _network(
        0,
        "train with weights rounded to 2 to 8 bits, for export with the same --bits and --rounding nearest; "
        "best with --init",
        note=", not rounded",
        allowed=_BITS,
        metavar="BITS",
        only="nq",
    )
    layer_bits: Mapping[str, int] = _network(
        dict, "with --weight-bits: other bits for some layers, such as layers.1=8", metavar="LAYER=BITS"
    )

    def __post_init__(self) -> None:
        for name, entry in ENTRIES.items():
            value = getattr(self, name)
            check(name, value)
            if entry.metadata["option"].only not in (None, self.activation) and value != entry.default:
                raise InputError(f"{name} is {value} while activation is {self.activation}; allowed: {entry.default}")
        for name, bits in self.layer_bits.items():
            if not self.weight_bits or not 2 <= bits <= 8:
                found = bits if self.weight_bits else f"{bits} while weight_bits is 0"
                raise InputError(f"layer_bits of {name} is {found}; allowed: 2..8, with weight_bits")

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress`` in 0 .. 1 of the training, as a share of the peak."""
        if self.schedule == "linear":
            return 1 - progress
        warmup = 0.15
        if progress < warmup:
            return progress / warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


ENTRIES: Mapping[str, Field[Any]] = {entry.name: entry for entry in fields(Recipe) if entry.metadata}
"""The entries that commands make options of; the metadata of each is its ``option``."""


def check(name: str, value: Any, called: str = "") -> None:
    """InputError where the entry ``name`` of a recipe must not be ``value``; the message calls it ``called``."""
    kind, allowed = ENTRIES[name].type, ENTRIES[name].metadata["option"].allowed
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise InputError(f"{called or name} is {value!r}; allowed: {', '.join(get_args(kind))}")
    if allowed and not allowed.test(value):
        raise InputError(f"{called or name} is {value}; allowed: {allowed.words}")
