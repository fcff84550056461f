"""A converted network is trained a little further: as the spiking network that it will be."""

import copy
from dataclasses import replace
from pathlib import Path

import torch

from export.convert import Trainable
from export.fold.module import with_usual_potentials
from train.choices import MAX_LEVELS
from train.data.image_set import ImageSet
from train.loop.calibrate import calibrate_potentials
from train.loop.checkpoint import LOWERED
from train.loop.recipe import WITHOUT_BATCH_NORM, Recipe
from train.loop.trainer import fast_bfloat16, train
from train.model.lowered import Lowered

SPIKES = 8  # largest T for which spikes are trained, whose time grows with T; NQ noise is trained for larger ones
_POTENTIALS = 256  # images for v(0)


def recipe(steps: int, epochs: int, images: int, seed: int = 0) -> Recipe:
    """How a network that was calibrated for T steps is trained; a tenth of the images, at most 2,000, is held out."""
    return Recipe(
        model=LOWERED,
        epochs=epochs,
        batch=min(125, max(1, images // 8)),
        levels=min(steps, MAX_LEVELS),
        label_smoothing=0.0,
        distillation=0.9,
        temperature=2.0,
        cutout=0,
        crop=4,
        border="reflect",
        induction_steps=steps,
        snn_steps=steps if steps <= SPIKES else 0,
        validation=max(1, min(2000, images // 10)),
        seed=seed,
        bfloat16=fast_bfloat16(torch.device("cpu")),
        **WITHOUT_BATCH_NORM,
    )


def fine_tune(made: Trainable, data: ImageSet, recipe: Recipe, *, out: Path, resume: bool = False) -> Trainable:
    """The network after the training; ``out`` is its model file, and beside it stands a checkpoint of every epoch.

    The network that it was is the teacher. Spikes are trained where T is at most ``SPIKES``; beyond that the
    activation is, with noise, and v(0) is calibrated afterwards.

    Args:
        made: of export.convert.trainable; its module stays as it is.
        data: labelled training images.
        recipe: of ``recipe``.
        out, resume: as of train.loop.trainer.train.

    Raises:
        CheckpointError, InputError: as of train.loop.trainer.train.
    """
    start = with_usual_potentials(copy.deepcopy(made.module), recipe.induction_steps)
    device = torch.device("cpu")
    network = train(recipe, data, out=out, device=device, resume=resume, start=start, teacher=made.original)
    assert isinstance(network, Lowered)
    if not recipe.snn_steps:
        rest, _ = data.split(recipe.validation, recipe.seed)
        images = rest.sample(min(_POTENTIALS, len(rest)), recipe.seed).images.permute(0, 3, 1, 2)
        calibrate_potentials(network, images, recipe.induction_steps)
    return replace(made, module=network, losses=(), scores=None)
