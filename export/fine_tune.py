"""A converted network is trained a little further: as the spiking network that it will be."""

from dataclasses import replace
from pathlib import Path

import torch

from export.convert import Trainable
from train.choices import MAX_LEVELS
from train.data.image_set import ImageSet
from train.loop.checkpoint import LOWERED
from train.loop.recipe import Recipe
from train.loop.trainer import fast_bfloat16, train
from train.model.lowered import Lowered

SPIKES = 8  # time steps that are trained where there are more, since the time of a training grows with them


def recipe(steps: int, epochs: int, images: int, seed: int = 0) -> Recipe:
    """How a network that was calibrated for T steps is trained; a tenth of the images, at most 2,000, is held out."""
    return Recipe(
        model=LOWERED,
        epochs=epochs,
        batch=min(125, max(1, images // 8)),
        optimizer="adam",
        learning_rate=2e-3,
        weight_decay=0.0,
        label_smoothing=0.0,
        distillation=0.9,
        temperature=2.0,
        cutout=0,
        border="reflect",
        levels=min(steps, MAX_LEVELS),
        induction_steps=steps,
        snn_steps=min(steps, SPIKES),
        read_outs="last",
        validation=max(1, min(2000, images // 10)),
        seed=seed,
        bfloat16=fast_bfloat16(torch.device("cpu")),
    )


def fine_tune(made: Trainable, data: ImageSet, recipe: Recipe, *, out: Path, resume: bool = False) -> Trainable:
    """The network after the training; ``out`` is its model file, and beside it stands a checkpoint of every epoch.

    Spikes are trained, over T steps or ``SPIKES``, for the read-out after the last of them. The network that it was is
    the teacher.

    Args:
        made: of export.convert.trainable; its module stays as it is.
        data: labelled training images.
        recipe: of ``recipe``.
        out, resume: as of train.loop.trainer.train.

    Raises:
        CheckpointError, InputError: as of train.loop.trainer.train.
    """
    device = torch.device("cpu")
    network = train(recipe, data, out=out, device=device, resume=resume, start=made.module, teacher=made.original)
    assert isinstance(network, Lowered)
    return replace(made, module=network, losses=(), scores=None)
