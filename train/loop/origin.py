"""The images that a model file's network was trained on, and those held out then."""

from collections.abc import Sequence

from train.data.image_set import DataError, ImageSet
from train.data.images import load
from train.loop.checkpoint import CheckpointError, ModelFile


def recipe(model: ModelFile) -> dict[str, int]:
    """What decides the split and the thresholds: validation, seed, induction_steps; CheckpointError without them."""
    keys = ("validation", "seed", "induction_steps")
    if not all(type(model.recipe.get(key)) is int for key in keys):
        raise CheckpointError(f"{model.path}: holds no recipe; allowed here: a file written by train.cifar")
    return {key: model.recipe[key] for key in keys}


def held_out(sources: Sequence[str], model: ModelFile) -> ImageSet:
    """The training images that were held out when the network was trained. DataError for other images."""
    made, data = recipe(model), load(sources, "train")
    if model.data != data.digest():
        raise DataError(f"data: other training images than those of {model.path}; allowed: the same, in the same order")
    return data.split(made["validation"], made["seed"])[1]


def check_images(data: ImageSet, model: ModelFile) -> None:
    """DataError for images of other classes or another size than those of the network."""
    if data.classes != model.classes or data.shape != model.network.input_shape:
        raise DataError(
            f"data: {len(data.classes)} classes and images {data.shape}; allowed: those of {model.path}, "
            f"{len(model.classes)} classes and images {model.network.input_shape}"
        )
