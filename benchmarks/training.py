"""Speed of training, side by side: a plain eager loop, the trainer, and the trainer with ReLU in place of NQ.

    python -m benchmarks.training --out runs/training

"plain" is what one would write first: float32, contiguous memory, NQ in PyTorch's operations with a fresh Gaussian per
element, ordinary SGD. Its images are in memory as batches and not augmented. "trainer" is an epoch of
train.loop.trainer with everything in it: bfloat16 where the processor has it, channels-last memory, compiled
activations, the noise pool, augmentation. "ReLU" is the same epoch without noise and thresholds: what training costs
without NQ.

Before anything is timed, the plain loop and the trainer compute the same loss and gradients. The noise pool is drawn
once per epoch; here it is drawn in every run of --steps steps, which is more often than in training.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.markdown import table as markdown_table
from benchmarks.markdown import with_spread
from benchmarks.options import Options
from benchmarks.timing import Contestant, interleaved, rates, ratios, spread
from deploy.files import write_json
from train.data.image_set import ImageSet
from train.data.images import load
from train.loop.recipe import Recipe
from train.loop.trainer import Training, choose_kernels, fast_bfloat16
from train.model.activation import NQ
from train.model.kernels import Kernels
from train.model.models import MODELS, Network

CPU = torch.device("cpu")
EPOCH = 50_000  # images of CIFAR-10
NOISE = 0.1  # σ while timing; its value has no influence
TOLERANCE = 3e-3  # of differences relative to the plain loop
_CHECKED = 64  # images behind the comparison of gradients


class _Floor(torch.autograd.Function):
    """⌊x⌋ with the gradient of x."""

    @staticmethod
    def forward(_ctx, x: Tensor) -> Tensor:
        return torch.floor(x)

    @staticmethod
    def backward(_ctx, grad: Tensor) -> Tensor:
        return grad


class PlainNQ(nn.Module):
    """NQ in plain operations: a = λ · ⌊clip(z/λ, 0, 1)·L + 1/2⌋ / L + σ·ε, ε ~ N(0, 1) drawn per element.

    Args:
        layer: whose L, λ and σ to use.
    """

    def __init__(self, layer: NQ) -> None:
        super().__init__()
        self.levels = layer.levels
        self.threshold = layer.threshold
        self.register_buffer("sigma", layer.sigma)

    def forward(self, z: Tensor) -> Tensor:
        clipped = torch.clamp(z / self.threshold, 0, 1)
        quantized = _Floor.apply(clipped * self.levels + 0.5) / self.levels
        return quantized * self.threshold + torch.randn_like(z) * self.sigma


class ReLU(NQ):
    """max(z, 0) in a place where the trainer expects NQ; without noise, and with a threshold that nothing uses."""

    def activate(self, z: Tensor) -> Tensor:
        return torch.relu(z)


def replace_activations(network: Network, make: Callable[[NQ], nn.Module]) -> Network:
    """The same network, with ``make`` of every activation in its place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, NQ):
                setattr(module, name, make(child))
    return network


def plain_network(model: str) -> Network:
    """A network with random weights and plain activations."""
    return replace_activations(MODELS[model](), PlainNQ)


def training_images(count: int) -> ImageSet:
    """``count`` of the training images shipped with the project, repeated where there are fewer."""
    data = load(["sample"], "train")
    return data.subset(torch.arange(count) % len(data))


def plain_epoch(
    network: nn.Module, optimizer: torch.optim.SGD, batches: Sequence[tuple[Tensor, Tensor]], label_smoothing: float
) -> float:
    """Mean loss of one pass over batches of uint8 images (N, C, H, W) and labels."""
    network.train()
    losses = 0.0
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels, label_smoothing=label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += loss.item()
    return losses / len(batches)


def plain(recipe: Recipe, network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], float]:
    """What runs an epoch of the plain loop."""
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    return partial(plain_epoch, network, optimizer, batches, recipe.label_smoothing)


def trainer(recipe: Recipe, data: ImageSet, kernels: Kernels) -> Training:
    """The trainer of a network with random weights, on all images but one."""
    training = Training(replace(recipe, validation=1), data, device=CPU)
    for layer in training.network.activations:
        layer.kernels = kernels
    return training


def compare_gradients(recipe: Recipe, count: int, kernels: Kernels) -> dict[str, float]:
    """Differences between the trainer and the plain loop in one step without noise in float32, relative to the latter.

    Both have the same weights and the same ``count`` images. Different layouts round differently, and now and then this
    moves a pre-activation over the edge of a level, behind which everything would differ. So the plain activations
    compare the pre-activations that reach them with the trainer's, and go on with the trainer's values and their own
    gradients.

    Returns:
        "pre-activations" and "gradients": the largest of ‖ours − plain‖₂ / ‖plain‖₂ over layers and over parameters;
        "loss": |ours − plain| / plain.

    Raises:
        RuntimeError: where one is above ``TOLERANCE``. Rounding was seen to leave 4e-4, in thresholds whose gradient is
            a sum that nearly cancels, and 1e-5 elsewhere; a gradient that is wrong by 1 % is found.
    """
    recipe = replace(recipe, batch=count, learning_rate=0.0, bfloat16=False)
    data = training_images(count + 1)
    images, labels = next(data.batches(count))
    training, other = trainer(recipe, data, kernels), plain_network(recipe.model)
    ours = training.network.train()
    other.load_state_dict(ours.state_dict())
    reached: list[Tensor] = []
    found = {"pre-activations": 0.0}

    def keep_input(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        reached.append(inputs[0].detach())

    def take_over(_module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (z,), expected = inputs, reached.pop(0)
        found["pre-activations"] = max(found["pre-activations"], _difference(expected, z.detach()))
        return z + (expected - z).detach()

    def gradients(network: nn.Module) -> list[Tensor]:
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    for layer in ours.activations:
        layer.register_forward_pre_hook(keep_input)
    for module in other.modules():
        if isinstance(module, PlainNQ):
            module.register_forward_pre_hook(take_over)
    loss = float(training.step(images, labels)[0])
    expected = plain(recipe, other, [(images.contiguous(), labels)])()
    found["loss"] = abs(loss - expected) / expected
    found["gradients"] = max(_difference(*pair) for pair in zip(gradients(ours), gradients(other), strict=True))
    for what, difference in found.items():
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{recipe.model}: {what} differ by {difference:.2g}; allowed: {TOLERANCE}")
    return found


def _difference(ours: Tensor, plain: Tensor) -> float:
    return float((ours - plain).norm() / plain.norm())


def measure(recipe: Recipe, steps: int, plain_steps: int, repeats: int, kernels: Kernels) -> dict[str, Any]:
    """Speed of the three loops with the recipe's network, batch and precision."""
    differences = compare_gradients(recipe, min(_CHECKED, recipe.batch), kernels)
    data = training_images(steps * recipe.batch + 1)
    noisy, relu, ordinary = trainer(recipe, data, kernels), trainer(recipe, data, kernels), plain_network(recipe.model)
    replace_activations(relu.network, lambda layer: ReLU(layer.levels))
    for module in (*noisy.network.modules(), *ordinary.modules()):
        if isinstance(module, NQ | PlainNQ):
            module.sigma.fill_(NOISE)
    batches = [
        (images.contiguous(), labels)
        for images, labels in training_images(plain_steps * recipe.batch).batches(recipe.batch)
    ]
    contestants = {
        "plain": Contestant(plain(recipe, ordinary, batches), plain_steps * recipe.batch),
        "trainer": Contestant(partial(noisy.epoch, 0), steps * recipe.batch),
        "ReLU": Contestant(partial(relu.epoch, 0), steps * recipe.batch),
    }
    times = interleaved(contestants, repeats)
    return {
        "model": recipe.model,
        "differences": differences,
        "images_per_second": {name: rates(values) for name, values in times.items()},
        "seconds_per_epoch": {name: spread([EPOCH * value for value in values]) for name, values in times.items()},
        "trainer_is_faster_by": {name: ratios(values, times["trainer"]) for name, values in times.items()},
        "trainer_takes_times": {name: ratios(times["trainer"], values) for name, values in times.items()},
    }


def report(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    rows = []
    for row in result["rows"]:
        for name, rate in row["images_per_second"].items():
            leads = [row[key][name] for key in ("trainer_is_faster_by", "trainer_takes_times")]
            shown = ["1", "1"] if name == "trainer" else map(with_spread, leads)
            rows.append((row["model"], name, with_spread(rate), with_spread(row["seconds_per_epoch"][name]), *shown))
    header = (
        "network",
        "loop",
        "images/s",
        f"s for {EPOCH:,} images",
        "trainer is faster by",
        "trainer takes × its time",
    )
    checks = "".join(
        f"* {row['model']}: in float32 without noise, the loss of the trainer differs from the plain loop's by "
        f"{row['differences']['loss']:.1g} of it, and no gradient by more than {row['differences']['gradients']:.1g}.\n"
        for row in result["rows"]
    )
    return (
        "# Speed of training\n\n"
        f"{machine.line(result['machine'], 'torch')}.\n"
        f"Batches of {result['batch']}; a run is {result['steps']} steps of the trainer "
        f"({result['precision']}), with NQ or ReLU, or {result['plain_steps']} of the plain loop (float32).\n"
        f"Median (least … largest) of {result['repeats']} interleaved repeats; ratios within a repeat.\n\n"
        f"{markdown_table(header, rows)}\n{checks}"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers from 1")
    return int(text)


def _parser() -> Options:
    parser = Options("training", __doc__)
    parser.several("--models", ["vgg_small", "resnet20", "vgg_tiny"], "networks", choices=list(MODELS))
    parser.number("--batch", 256, "images per step", kind=_count)
    parser.number("--steps", 40, "of one run of the trainer", kind=_count)
    parser.number("--plain-steps", 8, "of one run of the plain loop", kind=_count)
    parser.number("--repeats", 5, "of every comparison", kind=_count)
    parser.number("--threads", len(os.sched_getaffinity(0)), "of PyTorch", kind=_count)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.quick:
        options.models, options.batch, options.steps, options.plain_steps, options.repeats = ["vgg_tiny"], 4, 2, 1, 2
    torch.set_num_threads(options.threads)
    recipe = Recipe(batch=options.batch, learning_rate=0.01, bfloat16=fast_bfloat16(CPU))
    kernels = Kernels() if options.quick else choose_kernels(EPOCH, CPU)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "precision": "bfloat16" if recipe.bfloat16 else "float32",
        **{name: getattr(options, name) for name in ("batch", "steps", "plain_steps", "repeats")},
        "rows": [],
    }
    for model in options.models:
        row = measure(replace(recipe, model=model), options.steps, options.plain_steps, options.repeats, kernels)
        result["rows"].append(row)
        write_json(options.out / "training.json", result)
        print(f"training: {model} done", flush=True)
    (options.out / "training.md").write_text(report(result), encoding="utf-8")
    print(report(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
