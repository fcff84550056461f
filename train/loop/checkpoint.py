"""Model and checkpoint files: written atomically, read with weights_only (nothing is unpickled)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nqlava.command.files import LFS_POINTER, is_lfs_pointer, reading, replacing
from nqlava.errors import InputError, shown
from train.choices import ACTIVATIONS, MAX_LEVELS, RESETS, Activation, Reset
from train.model.lowered import Lowered
from train.model.models import MAX_SIZE, MODELS, Network
from train.model.plan import entries, plans_from
from train.model.snn import neurons

FORMAT = "nq-lava model"
VERSION = 1
MAX_INITIAL = 4096  # v(0) / θ
LOWERED = "lowered"
"""The architecture of a network that was converted; its file holds its layers."""


class CheckpointError(InputError):
    """An unusable file: the message names the file, the key and what is allowed."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write with torch.save, complete or not at all.

    Raises:
        FileError: the file cannot be written, such as to a full disk.
    """
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # of the zip file that it cannot end
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load(path: Path) -> dict[str, Any]:
    """The dictionary in ``path``; tensors arrive on the CPU. CheckpointError where it is not one of ours."""
    with reading(path):
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        with path.open("rb") as file:
            if is_lfs_pointer(file):
                raise CheckpointError(f"{path}: {LFS_POINTER}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # on arbitrary bytes the unpickler raises IndexError, TypeError, struct.error, ...
        raise CheckpointError(
            f"{path}: not a model file (it asks to run code, or it is damaged); allowed: a file written by train.cifar"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a model file; allowed: a file written by train.cifar")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise CheckpointError(f"{path}: version is {_short(version)}; allowed: {VERSION}")
    return content


def _short(value: object) -> str:
    """A scalar as it is, of anything else the type: one line in either case."""
    return shown(repr(value)) if value is None or isinstance(value, str | int | float) else type(value).__name__


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds: a trained network, and where it comes from.

    Attributes:
        network: in evaluation mode when it was read.
        architecture: its name in train.model.models.MODELS, or "lowered".
        classes: their names.
        info: plain numbers, strings, lists and dictionaries, mostly for people; see the properties.
        activation, reset: of the network.
        path: where it was read from.
    """

    network: Network
    architecture: str
    classes: tuple[str, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    activation: Activation = "nq"
    reset: Reset = "soft"
    path: Path = Path()

    @property
    def recipe(self) -> dict[str, Any]:
        """Options that it was trained with; empty where the file does not tell."""
        found = self.info.get("recipe")
        return found if isinstance(found, dict) else {}

    @property
    def history(self) -> list[Any]:
        """Numbers of every epoch; empty where the file does not tell."""
        found = self.info.get("history")
        return found if isinstance(found, list) else []

    @property
    def data(self) -> object:
        """Digest of the training images."""
        return self.info.get("data")


def write_model(path: Path, model: ModelFile) -> None:
    """Writes a model file; errors as of ``save``."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": model.architecture,
        "activation": model.activation,
        "reset": model.reset,
        "size": model.network.input_shape[1],
        "levels": model.network.levels,
        "classes": list(model.classes),
        "initial": [neuron.initial.detach().cpu().clone() for neuron in neurons(model.network)],
        "state": {key: value.detach().cpu().clone() for key, value in model.network.state_dict().items()},
        "info": dict(model.info),
    }
    if isinstance(model.network, Lowered):
        content |= {"layers": entries(model.network.plans), "input_shape": list(model.network.input_shape)}
    save(path, content)


def read_model(path: Path) -> ModelFile:
    """What a model file holds; CheckpointError where it is not one, or damaged."""
    content = load(path)
    if "optimizer" in content:
        raise CheckpointError(f"{path}: a checkpoint; allowed: the model file, which is written when the training ends")
    architecture, levels, classes = content.get("architecture"), content.get("levels"), content.get("classes")
    if not isinstance(architecture, str) or architecture not in (*MODELS, LOWERED):
        names = ", ".join((*MODELS, LOWERED))
        raise CheckpointError(f"{path}: architecture is {_short(architecture)}; allowed: {names}")
    if type(levels) is not int or not 1 <= levels <= MAX_LEVELS:
        raise CheckpointError(f"{path}: levels is {_short(levels)}; allowed: 1..{MAX_LEVELS}")
    if not isinstance(classes, list) or not 1 <= len(classes) <= 100_000 or not all(type(c) is str for c in classes):
        raise CheckpointError(f"{path}: classes is not a list of 1 to 100000 names")
    activation, reset, size, info = (content.get(key) for key in ("activation", "reset", "size", "info"))
    for key, value, allowed in (("activation", activation, ACTIVATIONS), ("reset", reset, RESETS)):
        if value not in allowed:
            raise CheckpointError(f"{path}: {key} is {_short(value)}; allowed: {', '.join(allowed)}")
    if type(size) is not int:
        raise CheckpointError(f"{path}: size is {_short(size)}; allowed: an integer")
    if not isinstance(info, dict):
        raise CheckpointError(f"{path}: info is {_short(info)}; allowed: a dictionary")
    network: Network
    try:
        if architecture == LOWERED:
            network = _lowered(content, levels, len(classes))
        else:
            network = MODELS[architecture](len(classes), levels=levels, activation=activation, reset=reset, size=size)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None
    check_tensors(path, "state", content.get("state"), network.state_dict())
    network.load_state_dict(content["state"])
    _set_initial(network, content.get("initial"), path)
    return ModelFile(network.eval(), architecture, tuple(classes), info, activation, reset, path)  # type: ignore[arg-type]


def _lowered(content: Mapping[str, Any], levels: int, classes: int) -> Lowered:
    """The network whose layers a file holds, without its numbers; InputError where the file cannot hold them."""
    plans, state = plans_from(content.get("layers")), content.get("state")
    shape = content.get("input_shape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 1 <= n <= MAX_SIZE for n in shape):
        raise InputError(f"input_shape is no list of three numbers of 1 to {MAX_SIZE}")

    def make() -> Lowered:
        channels = [1.0] * shape[0]
        return Lowered(plans, input_shape=(shape[0], shape[1], shape[2]), levels=levels, mean=channels, std=channels)

    with torch.device("meta"):  # which takes no memory
        try:
            outline = make()
            scores = outline(torch.empty(1, *shape, dtype=torch.uint8))
        except RuntimeError as error:
            raise InputError(f"layers do not fit each other ({shown(error, 80)})") from None
    if scores.shape != (1, classes):
        raise InputError(f"layers give {tuple(scores.shape[1:])} scores; allowed: {classes}, one per class")
    needed = outline.state_dict()
    if not isinstance(state, dict) or not all(_holds(state.get(key), value.shape) for key, value in needed.items()):
        raise InputError("state does not hold the tensors of this network")
    return make()


def _holds(found: object, shape: torch.Size) -> bool:
    """Whether this is a tensor of the shape, with a value in the file for each of its places."""
    return (
        isinstance(found, Tensor)
        and found.shape == shape
        and found.untyped_storage().nbytes() >= found.numel() * found.element_size()
    )


def check_tensors(path: Path, name: str, tensors: Any, expected: Mapping[str, Tensor]) -> None:
    """CheckpointError where the value under ``name`` is no dictionary of finite tensors like those expected."""
    if not isinstance(tensors, dict) or set(tensors) != set(expected):
        raise CheckpointError(f"{path}: {name} does not hold the tensors of this network")
    for key, value in expected.items():
        found = tensors[key]
        if not isinstance(found, Tensor) or found.shape != value.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CheckpointError(f"{path}: {key} is {shape}; allowed: {tuple(value.shape)}")
        if found.layout != torch.strided or found.device.type != "cpu" or found.dtype != value.dtype:
            raise CheckpointError(f"{path}: {key} is {found.dtype}, {found.layout}; allowed: dense {value.dtype}")
        if not torch.isfinite(found.float()).all():
            raise CheckpointError(f"{path}: {key} is not finite")
        if key.endswith((".threshold", ".std")) and not (found > 0).all():
            raise CheckpointError(f"{path}: {key} is {float(found.min())}; allowed: positive numbers")
        if key.endswith(".running_var") and not (found >= 0).all():
            raise CheckpointError(f"{path}: {key} is {float(found.min())}; allowed: numbers of at least 0")


def _set_initial(network: Network, values: object, path: Path) -> None:
    """v(0)/θ of every layer of neurons, scalars or one per channel."""
    found = neurons(network)
    if not isinstance(values, list) or len(values) != len(found):
        raise CheckpointError(f"{path}: initial is not a list of {len(found)} tensors")
    for index, (neuron, shape, value) in enumerate(zip(found, network.activation_shapes(1), values, strict=True)):
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not dense or value.shape not in ((), shape[1:2]):
            raise CheckpointError(f"{path}: initial {index} is no number; allowed: one, or {shape[1]}, one per channel")
        if not (value.is_floating_point() and (value.abs() <= MAX_INITIAL).all()):
            raise CheckpointError(f"{path}: initial {index} has other values than numbers of up to ±{MAX_INITIAL}")
        neuron.initial = value.float()
