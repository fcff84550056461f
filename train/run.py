"""What the training commands do: read the data, train, and measure the accuracy on test images."""

import argparse
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from nqlava.command.files import check_output
from nqlava.errors import InputError
from train.command import Command
from train.data.stream import Images
from train.loop import checkpoint
from train.loop.calibrate import evaluate
from train.loop.memory import keep_freed_memory
from train.loop.processes import own_device, processes
from train.loop.recipe import ENTRIES, RELU_STEPS, Recipe
from train.loop.tensorboard import EpochLog
from train.loop.trainer import (
    Training,
    checkpoint_path,
    fast_bfloat16,
    require_finished,
    train,
)
from train.model.kernels import Kernels
from train.model.snn import neurons
from train.shipped import pretrained

REPORTED_STEPS = {"nq": (1, 2, 4, 8, 16), "relu": (4, 8, 16, 32)}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(own_device(name))
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("not supported")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} is not usable here ({reason}); allowed: auto, cpu, cuda") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _start(options: argparse.Namespace) -> checkpoint.ModelFile | None:
    """The model to start from; fills in what the options leave to it."""
    path = pretrained(options.pretrained) if options.pretrained else options.init
    if path is None:
        return None
    model = checkpoint.read_model(path)
    if options.threshold is not None:
        raise InputError(
            f"--threshold is {options.threshold}; allowed with a model to start from: none, it has its own"
        )
    if any(neuron.initial.dim() for neuron in neurons(model.network)):
        print(f"{path}: its calibrated v(0) is not kept; run train.potentials again afterwards")
    decided = {
        "model": model.architecture,
        "levels": model.network.levels,
        "activation": model.activation,
        "reset": model.reset,
    }
    for option, found in decided.items():
        asked = getattr(options, option)
        if asked is not None and asked != found:
            raise InputError(f"{path}: {option} is {found!r}; allowed: {asked!r} as asked for")
        setattr(options, option, found)
    return model


def _recipe(default: Recipe, options: argparse.Namespace, device: torch.device) -> Recipe:
    """The recipe that the options give; InputError where it is not allowed."""
    given = {name: getattr(options, name, None) for name in ENTRIES}
    given["bfloat16"] = fast_bfloat16(device) if options.precision == "auto" else options.precision == "bfloat16"
    if options.layer_bits is not None:
        given["layer_bits"] = dict(options.layer_bits)
    if options.activation == "relu" and options.induction_steps is None:
        given["induction_steps"] = RELU_STEPS
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def run(command: Command, options: argparse.Namespace) -> None:
    """Trains as the options of the command say; InputError where they, the data or a file are not valid."""
    device = _device(options.device)
    keep_freed_memory()
    check_output(options.out, inputs=[options.init, *map(Path, options.data)])
    log = None if options.tensorboard is None else EpochLog(options.tensorboard)
    start = _start(options)
    recipe = _recipe(command.default, options, device)
    data = command.load(options, "train")
    if start is not None and start.network.input_shape != data.shape:
        raise InputError(f"data: images are {data.shape}; allowed: {start.network.input_shape} as {start.path}")
    if start is not None and start.classes != data.classes:
        raise InputError(f"{start.path}: classes are {', '.join(start.classes)}; allowed: {', '.join(data.classes)}")
    if options.validation is None:
        recipe = replace(recipe, validation=max(1, min(recipe.validation, len(data) // 5)))
    test = command.load(options, "test")
    with processes(device) as everyone:
        say = print if everyone.rank == 0 else _silent
        say(
            f"{recipe.model}, {len(data) - recipe.validation} training and {recipe.validation} held-out images from "
            f"{' '.join(options.data)}, {recipe.epochs} epochs on {device}"
            f"{f' in {everyone.count} processes' if everyone.count > 1 else ''}, "
            f"{'bfloat16' if recipe.bfloat16 else 'float32'}, seed {recipe.seed}",
            flush=True,
        )
        say(_choices(recipe), flush=True)
        if list(options.data) == ["sample"] and start is None:
            say("The sample shows that everything works; for accuracy give the whole data set with --data.", flush=True)
        network = None if start is None else start.network
        if options.dry_run:
            training = Training(recipe, data, device=device, start=network, processes=everyone, kernels=Kernels())
            say(_plan(options, training, len(data), len(test)), flush=True)
            return
        with closing(log) if log is not None else nullcontext():
            network = train(
                recipe,
                data,
                out=options.out,
                device=device,
                resume=options.resume,
                start=network,
                processes=everyone,
                log=log,
            )
        if everyone.rank == 0:
            _report(options.out, network, test.to(device), REPORTED_STEPS[recipe.activation])


def _choices(recipe: Recipe) -> str:
    """The options that matter most, defaults included, in one line."""
    if recipe.activation == "relu":
        what = f"ReLU, {recipe.reset} reset, thresholds from T={recipe.induction_steps}, dropout {recipe.dropout:g}"
    elif recipe.snn_steps:
        what = f"spikes over T={recipe.snn_steps} steps, L={recipe.levels}"
    else:
        what = f"NQ, L={recipe.levels}, noise {recipe.noise_factor:g} x sigma at T={recipe.induction_steps}"
    if recipe.weight_bits:
        what += f", {recipe.weight_bits}-bit weights"
    return (
        f"{what}; batch {recipe.batch}, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, "
        f"label smoothing {recipe.label_smoothing:g}, cutout {recipe.cutout}, augmentation {recipe.policy}"
    )


def _plan(options: argparse.Namespace, training: Training, images: int, test: int) -> str:
    """What the training would do, in a few lines. CheckpointError where it cannot continue, or start anew."""
    recipe = training.recipe
    parameters = sum(parameter.numel() for parameter in training.network.parameters())
    steps = (images - recipe.validation) // recipe.batch
    saved = checkpoint_path(options.out)
    if options.resume:
        done = len(training.restore(saved)[0])
        state = f"continues after epoch {done} of {saved}"
    else:
        require_finished(saved)
        state = f"starts anew{f', and replaces {saved}' if saved.exists() else ''}"
    lines = [
        f"network: {parameters:,} parameters, {len(training.classes)} classes",
        f"training: {steps} steps per epoch, {steps * recipe.epochs:,} in all; {test} test images are read at the end",
        f"writes: {saved} after every epoch, {options.out} at the end{', replacing it' if options.out.exists() else ''}"
        + ("" if options.tensorboard is None else f", {options.tensorboard}/ for TensorBoard"),
        f"state: {state}",
        "dry run: nothing was trained or written",
    ]
    return "\n".join(lines)


def _report(path: Path, network: torch.nn.Module, test: Images, steps: Sequence[int]) -> None:
    result = evaluate(network, test, max(steps))
    print(f"\n{path}: accuracy on {len(test)} test images")
    print("  ANN      " + "".join(f"  SNN T={t:<4}" for t in steps))
    print(f"  {result.ann:5.2f} % " + "".join(f"   {result.snn[t - 1]:5.2f} % " for t in steps))


def _silent(*_values: object, flush: bool = False) -> None:
    """Print nothing."""
