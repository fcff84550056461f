"""Three training steps in as many processes as torchrun starts: ``... tests/train/loop/shares.py OUT``."""

import sys
from pathlib import Path

import torch

from tests.tiny import image_set
from train.data.image_set import ImageSet
from train.loop.processes import Processes, processes
from train.loop.recipe import Recipe
from train.loop.trainer import Training
from train.model import models

# No batch norm, whose statistics are each process's own, so that the steps are the same but for rounding.
RECIPE = Recipe(
    model="plain", activation="relu", batch=12, epochs=1, validation=10, cutout=0, learning_rate=0.1, induction_steps=2
)


def plain(classes: int = 10, **form: object) -> models.Network:
    made = models.Form(**form)
    layers = [
        models.Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3)),
        *made.block(3, 4),
        torch.nn.Flatten(),
        made.linear(4 * 8 * 6, classes),
    ]
    return models.Network(layers, input_shape=(3, 8, 6), levels=made.levels)


def main(out: Path) -> None:
    models.MODELS["plain"] = plain
    with processes(torch.device("cpu")) as everyone:
        torch.save(steps(image_set(46), everyone), out / f"{everyone.rank}.pt")


def steps(data: ImageSet, everyone: Processes) -> dict[str, object]:
    """Weights after three steps, and the accuracy of the held-out images."""
    training = Training(RECIPE, data, device=torch.device("cpu"), processes=everyone)
    training.optimizer.set_rate(1)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    for step in range(3):
        share, size = everyone.share(order[step * 12 : step * 12 + 12], 12)
        training.step(data.images[share[:size]].permute(0, 3, 1, 2), data.labels[share[:size]])
    return {"ann": training.measure().ann, "state": training.network.state_dict()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
