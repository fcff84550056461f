"""What a model file tells of its training: the recipe, and which images were held out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.data.images import DataError, ImageSet, load
from train.loop.checkpoint import CheckpointError
from train.model.models import Network


def recipe(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What the file's network was trained with. CheckpointError where the file does not tell."""
    found = content["info"].get("recipe")
    keys = ("validation", "seed", "induction_steps")
    if not isinstance(found, dict) or not all(type(found.get(key)) is int for key in keys):
        raise CheckpointError(f"{path}: holds no recipe; allowed here: a file written by train.cifar")
    return found


def held_out(sources: Sequence[str], path: Path, content: dict[str, Any]) -> ImageSet:
    """The training images that were held out when the file's network was trained. DataError for other images."""
    made, data = recipe(path, content), load(sources, "train")
    if content["info"].get("data") != data.digest():
        raise DataError(f"data: other training images than those of {path}; allowed: the same, in the same order")
    return data.split(made["validation"], made["seed"])[1]


def check_images(data: ImageSet, path: Path, network: Network, content: dict[str, Any]) -> None:
    """DataError for images of other classes or another size than those of the file's network."""
    if list(data.classes) != content["classes"] or data.shape != network.input_shape:
        raise DataError(
            f"data: {len(data.classes)} classes and images {data.shape}; allowed: those of {path}, "
            f"{len(content['classes'])} classes and images {network.input_shape}"
        )
