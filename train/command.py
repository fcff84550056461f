"""The options that the training commands share; train/run.py does what they say."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from nqlava.command.parser import Parser
from train.choices import Split
from train.loop.recipe import ENTRIES, Option, Recipe
from train.shipped import NAMES

if TYPE_CHECKING:
    from train.data.stream import Images


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
    load: Callable[[argparse.Namespace, Split], "Images"]
    workers: int | None = None


def _layer_bits(text: str) -> tuple[str, int]:
    name, _, bits = text.rpartition("=")
    if not name or not bits.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be LAYER=BITS, such as layers.1=8")
    return name, int(bits)


def parser(command: Command) -> Parser:
    """The command's options."""
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
    groups = {name: made.add_argument_group(name) for name in ("network", "optimisation")}
    for name, entry in ENTRIES.items():
        option: Option = entry.metadata["option"]
        if command.workers is None or not option.in_memory:
            _add(groups[option.group], name, entry.type, option, getattr(command.default, name))
    sgd = groups["optimisation"]
    sgd.add_argument(
        "--precision",
        choices=["auto", "bfloat16", "float32"],
        default="auto",
        help="auto takes bfloat16 where the machine has instructions for it (default: %(default)s)",
    )
    sgd.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    return made


def _add(group: Any, name: str, kind: Any, option: Option, default: object) -> None:
    """Add the option of an entry of the recipe; None where it is not given."""
    help = f"default: {'that of --init, else ' if option.start else ''}{default}{option.note}"
    help = f"{option.help} ({help})" if option.help else help
    if name == "layer_bits":
        about: dict[str, Any] = {"nargs": "+", "type": _layer_bits}
        help = option.help
    elif kind in (int, float):
        about = {"type": kind}
    else:
        about = {"choices": list(option.choices) or get_args(kind)}
    flags = option.flags or [f"--{name.replace('_', '-')}"]
    group.add_argument(*flags, dest=name, metavar=option.metavar, help=help, **about)


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""

    def work(options: argparse.Namespace) -> None:
        from train.run import run

        run(command, options)

    interrupted = "; continue with the same command and --resume"
    return parser(command).run(work, argv, interrupted=interrupted)
