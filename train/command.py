"""What the training commands share: options, reading the data, training, and the accuracy on test images."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from nqlava.command.parser import Parser
from nqlava.errors import InputError
from train import checkpoint
from train.augment import POLICIES
from train.calibrate import evaluate
from train.data import Split
from train.kernels import Kernels
from train.models import ACTIVATIONS, MODELS
from train.neuron import RESETS
from train.processes import own_device, processes
from train.recipe import Recipe
from train.shipped import NAMES, pretrained
from train.snn import neurons
from train.stream import Images
from train.tensorboard import EpochLog
from train.trainer import Training, checkpoint_path, fast_bfloat16, require_finished, train

RELU_STEPS = 32  # of the thresholds' calibration: with fewer, spikes may not reach the last layers
REPORTED_STEPS = {"nq": (1, 2, 4, 8, 16), "relu": (4, 8, 16, 32)}


@dataclass(frozen=True)
class Command:
    """What differs between the training commands.

    Attributes:
        name: such as train.cifar.
        description, examples: for --help.
        default: the recipe without options.
        sources: what --data takes, for --help. data: its default; required where it is empty.
        load: reads one split of the sources, given the options.
        workers: default of --workers; None for no such option.
    """

    name: str
    description: str
    examples: Sequence[str]
    default: Recipe
    sources: str
    data: Sequence[str]
    load: Callable[[argparse.Namespace, Split], Images]
    workers: int | None = None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be a whole number from 1")
    return int(text)


def _layer_bits(text: str) -> tuple[str, int]:
    name, _, bits = text.rpartition("=")
    if not name or not bits.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be LAYER=BITS, such as layers.1=8")
    return name, int(bits)


def parser(command: Command) -> Parser:
    """The command's options."""
    default = command.default
    made = Parser(command.name, command.description, command.examples)
    data = made.add_argument_group("data and files")
    data.add_argument(
        "--data",
        nargs="+",
        default=command.data,
        required=not command.data,
        metavar="SOURCE",
        help=f"{command.sources} (default: {' '.join(command.data) or 'none'})",
    )
    if command.workers is not None:
        data.add_argument(
            "--workers", type=int, default=command.workers, help="processes that decode images (default: %(default)s)"
        )
    data.add_argument("--out", type=Path, default=Path("model.pt"), help="model file to write (default: %(default)s)")
    data.add_argument("--resume", action="store_true", help="continue from OUT.checkpoint")
    data.add_argument(
        "--tensorboard",
        type=Path,
        metavar="FOLDER",
        help="write loss, accuracies, σ and thresholds of every epoch there, for TensorBoard",
    )
    data.add_argument(
        "--dry-run", action="store_true", help="check options and data, say what would be trained, write nothing"
    )
    start = data.add_mutually_exclusive_group()
    start.add_argument("--init", type=Path, metavar="MODEL", help="fine-tune this model file instead of random weights")
    start.add_argument("--pretrained", choices=NAMES, help="fine-tune a model that ships with the project")
    net = made.add_argument_group("network")
    net.add_argument("--model", choices=list(MODELS), help=f"default: that of --init, else {default.model}")
    net.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        help="nq, or relu for RMP-SNN: no biases, no batch norm, thresholds from the largest currents "
        f"(default: that of --init, else {default.activation})",
    )
    net.add_argument(
        "--levels",
        "--L",
        type=_positive,
        help=f"quantization levels L of NQ (default: those of --init, else {default.levels})",
    )
    net.add_argument(
        "--threshold", type=float, help=f"λ at the start (default: that of --init, else {default.threshold})"
    )
    net.add_argument(
        "--induction-steps",
        "--T",
        type=_positive,
        help="time steps T of the noise induction and of model choice; for relu of the thresholds' calibration "
        f"(default: {default.induction_steps}, for relu {RELU_STEPS})",
    )
    net.add_argument(
        "--noise-factor",
        type=float,
        default=default.noise_factor,
        help="times the measured σ; 0 trains plain QCFS (default: %(default)s)",
    )
    net.add_argument(
        "--snn-steps",
        type=int,
        default=default.snn_steps,
        metavar="T",
        help="train the spiking network itself, for read-outs after 1 to T steps; best with --init "
        "(default: %(default)s, the activation is trained)",
    )
    net.add_argument("--reset", choices=RESETS, help=f"for relu (default: that of --init, else {default.reset})")
    net.add_argument(
        "--threshold-scale",
        type=float,
        default=default.threshold_scale,
        metavar="α",
        help="for relu: threshold as a share of the largest current (default: %(default)s)",
    )
    net.add_argument("--dropout", type=float, default=default.dropout, help="for relu (default: %(default)s)")
    net.add_argument(
        "--weight-bits",
        type=int,
        default=default.weight_bits,
        metavar="BITS",
        help="train with weights rounded to 2 to 8 bits, for export with the same --bits and --rounding nearest; "
        "best with --init (default: %(default)s, not rounded)",
    )
    net.add_argument(
        "--layer-bits",
        nargs="+",
        type=_layer_bits,
        default=[],
        metavar="LAYER=BITS",
        help="with --weight-bits: other bits for some layers, such as layers.1=8",
    )
    sgd = made.add_argument_group("optimisation")
    sgd.add_argument("--epochs", type=_positive, default=default.epochs, help="default: %(default)s")
    sgd.add_argument("--batch", type=_positive, default=default.batch, help="default: %(default)s")
    sgd.add_argument("--learning-rate", type=float, default=default.learning_rate, help="peak (default: %(default)s)")
    sgd.add_argument("--momentum", type=float, default=default.momentum, help="default: %(default)s")
    sgd.add_argument("--weight-decay", type=float, default=default.weight_decay, help="default: %(default)s")
    sgd.add_argument("--label-smoothing", type=float, default=default.label_smoothing, help="default: %(default)s")
    if command.workers is None:  # streamed images are cropped at random and not changed further
        sgd.add_argument(
            "--cutout", type=int, default=default.cutout, help="side in pixels, 0 for none (default: %(default)s)"
        )
        sgd.add_argument(
            "--augment",
            choices=POLICIES,
            default=default.policy,
            dest="policy",
            help="beside crop and flip: TrivialAugment or CIFAR-10's AutoAugment (default: %(default)s)",
        )
    sgd.add_argument(
        "--average",
        type=float,
        default=default.average,
        metavar="DECAY",
        help="keep an exponential moving average of the weights, such as 0.999 (default: %(default)s, none)",
    )
    sgd.add_argument(
        "--validation",
        type=_positive,
        help="training images held out for noise induction and model choice "
        f"(default: {default.validation}, but at most a fifth of the training set)",
    )
    sgd.add_argument("--seed", type=int, default=default.seed, help="default: %(default)s")
    sgd.add_argument(
        "--precision",
        choices=["auto", "bfloat16", "float32"],
        default="auto",
        help="auto takes bfloat16 where the machine has instructions for it (default: %(default)s)",
    )
    sgd.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    return made


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


def _start(options: argparse.Namespace) -> dict[str, Any] | None:
    """The content of the model file to start from; fills in what the options leave to it."""
    path = pretrained(options.pretrained) if options.pretrained else options.init
    if path is None:
        return None
    network, content = checkpoint.load_model(path)
    if options.threshold is not None:
        raise InputError(
            f"--threshold is {options.threshold}; allowed with a model to start from: none, it has its own"
        )
    if any(neuron.initial.dim() for neuron in neurons(network)):
        print(f"{path}: its calibrated v(0) is not kept; run train.potentials again afterwards")
    for option, key in (
        ("model", "architecture"),
        ("levels", "levels"),
        ("activation", "activation"),
        ("reset", "reset"),
    ):
        found = content[key]
        asked = getattr(options, option)
        if asked is not None and asked != found:
            raise InputError(f"{path}: {key} is {found!r}; allowed: {asked!r} as asked for")
        setattr(options, option, found)
    return content | {"path": path, "shape": network.input_shape}


def _run(command: Command, options: argparse.Namespace) -> None:
    device = _device(options.device)
    checkpoint.check_writable(options.out, inputs=[options.init, *map(Path, options.data)])
    log = None if options.tensorboard is None else EpochLog(options.tensorboard)
    start = _start(options)
    data = command.load(options, "train")
    if start is not None and start["shape"] != data.shape:
        raise InputError(f"data: images are {data.shape}; allowed: {start['shape']} as {start['path']}")
    if start is not None and start["classes"] != list(data.classes):
        raise InputError(
            f"{start['path']}: classes are {', '.join(start['classes'])}; allowed: {', '.join(data.classes)}"
        )
    given = {key: value for key, value in vars(options).items() if value is not None}
    values = {f.name: given.get(f.name, getattr(command.default, f.name)) for f in fields(Recipe)}
    if values["activation"] == "relu" and options.induction_steps is None:
        values["induction_steps"] = RELU_STEPS
    values["validation"] = options.validation or max(1, min(command.default.validation, len(data) // 5))
    values["bfloat16"] = fast_bfloat16(device) if options.precision == "auto" else options.precision == "bfloat16"
    values["layer_bits"] = dict(options.layer_bits)
    recipe = Recipe(**values)
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
        state = None if start is None else start["state"]
        if options.dry_run:
            training = Training(recipe, data, device=device, start=state, processes=everyone, kernels=Kernels())
            say(_plan(options, training, len(data), len(test)), flush=True)
            return
        with closing(log) if log is not None else nullcontext():
            network = train(
                recipe,
                data,
                out=options.out,
                device=device,
                resume=options.resume,
                start=state,
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


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    interrupted = "; continue with the same command and --resume"
    return parser(command).run(lambda options: _run(command, options), argv, interrupted=interrupted)
