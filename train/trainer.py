"""The training loop: SGD with a one-cycle schedule, NQ noise calibrated after every epoch, exact resume."""

import math
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from train import checkpoint
from train.activation import Kernels, NoisePool, compiled_kernels
from train.augment import augment
from train.calibrate import Evaluation, evaluate, set_noise
from train.data import MAX_SEED, DataError, ImageSet
from train.fake_quantize import attach, bake
from train.models import MAX_LEVELS, MODELS, Network

MAX_STEPS = 4096


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the data and the machine.

    Attributes:
        model: a name in train.models.MODELS.
        epochs, batch: passes over the training set; images per step (a smaller last batch is left out).
        learning_rate: peak of the one-cycle schedule (linear warm-up over the first 15 %, then a half cosine to 0).
        momentum, weight_decay: Nesterov momentum; decay acts on convolution and linear weights only.
        label_smoothing, cutout: 0 for none; cutout in pixels.
        levels: L of NQ. threshold: λ at the start. induction_steps: T of the noise induction. noise_factor: times σ.
        validation: training images held out for noise induction and model choice.
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
    levels: int = 4
    threshold: float = 4.0
    induction_steps: int = 4
    noise_factor: float = 1.0
    validation: int = 2000
    seed: int = 0
    bfloat16: bool = False
    weight_bits: int = 0
    layer_bits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, low, high in (
            ("levels", 1, MAX_LEVELS),
            ("induction_steps", 1, MAX_STEPS),
            ("momentum", 0, 1),
            ("label_smoothing", 0, 1),
            ("seed", 0, MAX_SEED),
        ):
            if not low <= getattr(self, key) <= high:
                raise ValueError(f"{key} is {getattr(self, key)}; allowed: {low}..{high}")
        for key in ("learning_rate", "weight_decay", "cutout", "noise_factor"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ValueError(f"{key} is {getattr(self, key)}; allowed: numbers of at least 0")
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold is {self.threshold}; allowed: positive numbers")
        if self.weight_bits != 0 and not 2 <= self.weight_bits <= 8:
            raise ValueError(f"weight_bits is {self.weight_bits}; allowed: 2..8, or 0 for weights as they are")
        for name, bits in self.layer_bits.items():
            if not self.weight_bits or not 2 <= bits <= 8:
                found = bits if self.weight_bits else f"{bits} while weight_bits is 0"
                raise ValueError(f"layer_bits of {name} is {found}; allowed: 2..8, with weight_bits")

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress`` in 0 .. 1 of the training."""
        warmup = 0.15
        if progress < warmup:
            return self.learning_rate * progress / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False


def choose_kernels(steps: int, device: torch.device) -> Kernels:
    """Compiled activation passes where a compiler is there and the training is long enough to pay for it."""
    if steps < 500 or (device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++")))):
        return Kernels()
    kernels = compiled_kernels()
    one = torch.ones((), device=device)
    z = torch.zeros(1, 8, 2, 2, device=device)
    try:
        kernels.backward(kernels.forward(z, one, one, z, 4), one, z, 4)
    except Exception as error:
        warnings.warn(f"torch.compile is not usable here ({type(error).__name__}); training runs slower", stacklevel=2)
        return Kernels()
    return kernels


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.SGD:
    matrices = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)


def _epoch(
    network: Network,
    optimizer: torch.optim.SGD,
    recipe: Recipe,
    data: ImageSet,
    epoch: int,
    progress: Callable[[float, float], None],
) -> tuple[float, float]:
    """One pass; (mean loss, accuracy in percent on the augmented images). All randomness comes from (seed, epoch)."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    torch.manual_seed(recipe.seed * 1_000_003 + epoch)
    device = data.images.device
    dtype = torch.bfloat16 if recipe.bfloat16 else torch.float32
    shapes = network.activation_shapes(recipe.batch)
    noisy = any(float(layer.sigma) > 0 for layer in network.activations)
    pool = (
        NoisePool(2 * max(s.numel() for s in shapes), dtype=dtype, device=device, generator=generator)
        if noisy
        else None
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    order = torch.randperm(len(data), generator=generator)
    steps = len(data) // recipe.batch
    losses = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.long, device=device)
    for layer in network.activations:
        layer.noise = pool.like if pool else None
    network.train()
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch].to(device)
        images = augment(data.images[chosen], generator, cutout=recipe.cutout)
        labels = data.labels[chosen]
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate((epoch + step / steps) / recipe.epochs)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            scores = network(images)
        loss = loss_function(scores.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses += loss.detach()
            correct += (scores.argmax(1) == labels).sum()
            for layer in network.activations:
                layer.threshold.clamp_(min=1e-3)
        if step % 10 == 9 or step == steps - 1:
            progress(float(losses) / (step + 1), 100 * int(correct) / ((step + 1) * recipe.batch))
    return float(losses) / steps, 100 * int(correct) / (steps * recipe.batch)


def train(
    recipe: Recipe,
    data: ImageSet,
    *,
    out: Path,
    device: torch.device,
    resume: bool = False,
    start: dict[str, Tensor] | None = None,
) -> Network:
    """Train and return the network of the epoch with the best SNN accuracy (T = induction_steps) on held-out images.

    After every epoch the state is written to ``<out>.checkpoint``; with ``resume`` training continues from there, and
    on a CPU ends with the same weights as without the interruption. ``out`` itself is written at the end.

    Args:
        recipe: see :class:`Recipe`.
        data: the training set; ``recipe.validation`` images of it are held out.
        out: path of the model file.
        device: where to train.
        resume: continue from the checkpoint.
        start: state to start from (fine-tuning) instead of random weights.

    Raises:
        CheckpointError: with ``resume``, where the checkpoint is missing or made with another recipe.
        DataError: where the images are of another size than the model's, or not more than those held out.
        ValueError: where less than one batch is left to train on.
    """
    rest, held_out = (part.to(device) for part in data.split(recipe.validation, recipe.seed))
    if len(rest) < recipe.batch:
        raise ValueError(f"batch is {recipe.batch}; allowed: up to the {len(rest)} training images")
    torch.manual_seed(recipe.seed)
    network = MODELS[recipe.model](len(data.classes), levels=recipe.levels, threshold=recipe.threshold)
    shape = (data.images.shape[3], *data.images.shape[1:3])
    if shape != network.input_shape:
        raise DataError(f"data: images are {shape}; allowed: {network.input_shape} for {recipe.model}")
    if start is not None:
        network.load_state_dict(start)
    if recipe.weight_bits:
        attach(network, recipe.weight_bits, recipe.layer_bits)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kernels = choose_kernels(recipe.epochs * (len(rest) // recipe.batch), device)
    for layer in network.activations:
        layer.kernels = kernels
    optimizer = _optimizer(network, recipe)
    precision = torch.bfloat16 if recipe.bfloat16 else torch.float32
    path = out.with_name(out.name + ".checkpoint")
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"snn": -1.0, "epoch": -1, "state": {}}
    if resume:
        content = checkpoint.load(path)
        if not {"recipe", "state", "optimizer", "history", "best"} <= content.keys():
            raise checkpoint.CheckpointError(
                f"{path}: not a checkpoint; allowed: a file written while train.cifar runs"
            )
        made = asdict(Recipe()) | content["recipe"]  # a file older than an entry was made with its default
        if made != asdict(recipe):
            changed = [key for key, value in asdict(recipe).items() if made[key] != value]
            raise checkpoint.CheckpointError(
                f"{path}: made with another {', '.join(changed)}; allowed: the same recipe"
            )
        try:
            network.load_state_dict(content["state"])
        except RuntimeError:
            raise checkpoint.CheckpointError(
                f"{path}: state does not fit {recipe.model} with {len(data.classes)} classes; "
                "allowed: the same data and model"
            ) from None
        optimizer.load_state_dict(content["optimizer"])
        if content.get("data") != data.digest():
            raise checkpoint.CheckpointError(f"{path}: made with other images or classes; allowed: the same data")
        history, best = content["history"], content["best"]
    elif start is not None:
        _induce(network, held_out, recipe, precision)
    began, done = time.monotonic(), len(history)
    for epoch in range(done, recipe.epochs):
        with tqdm(total=len(rest) // recipe.batch, disable=None, leave=False, desc=f"epoch {epoch + 1}") as bar:

            def progress(loss: float, accuracy: float, bar: tqdm = bar) -> None:
                bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1f} %")
                bar.update(min(10, bar.total - bar.n))

            loss, accuracy = _epoch(network, optimizer, recipe, rest, epoch, progress)
        result = _induce(network, held_out, recipe, precision)
        snn = result.snn[-1]
        history.append({"epoch": epoch + 1, "loss": loss, "train": accuracy, "ann": result.ann, "snn": snn})
        if snn > best["snn"]:
            state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
            best = {"snn": snn, "epoch": epoch + 1, "state": state}
        left = (time.monotonic() - began) / (epoch + 1 - done) * (recipe.epochs - epoch - 1)
        print(
            f"epoch {epoch + 1:3}/{recipe.epochs}  loss {loss:.3f}  train {accuracy:5.2f} %  "
            f"held-out: ANN {result.ann:5.2f} %, SNN T={recipe.induction_steps} {snn:5.2f} %  "
            f"remaining {int(left) // 60}:{int(left) % 60:02}",
            flush=True,
        )
        checkpoint.save(
            path,
            {
                "format": checkpoint.FORMAT,
                "version": checkpoint.VERSION,
                "recipe": asdict(recipe),
                "data": data.digest(),
                "state": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
                "best": best,
            },
        )
    network.load_state_dict(best["state"])
    bake(network)
    info = {
        "recipe": asdict(recipe),
        "history": history,
        "epoch": best["epoch"],
        "torch": str(torch.__version__),
        "python": sys.version.split()[0],
        "validation_snn": best["snn"],
    }
    checkpoint.save(out, checkpoint.model_content(network, recipe.model, data.classes, info))
    return network.eval()


def _induce(network: Network, held_out: ImageSet, recipe: Recipe, precision: torch.dtype) -> Evaluation:
    """Measure σ_l on the held-out images and store it in the network."""
    result = evaluate(network, held_out, recipe.induction_steps, precision=precision)
    set_noise(network, result.sigma, recipe.noise_factor)
    return result
