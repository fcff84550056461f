"""Calibrate the initial potentials v0 of a trained model: ``python -m train.potentials model.pt out.pt --T 2``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nqlava.command.files import check_output
from nqlava.command.parser import Parser, add_data
from nqlava.errors import InputError
from train.loop.recipe import check
from train.shipped import NAMES, model_path


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "train.potentials",
        "Give every channel the membrane potential v(0) with which its spikes carry on average what its "
        "activation did. Free in the deployed network; gains accuracy at few time steps.",
        [
            "train.potentials model.pt calibrated.pt --T 2 --data cifar10",
            "train.potentials --pretrained resnet20 calibrated.pt --T 4",
        ],
    )
    made.add_argument("model", type=Path, nargs="?", help="model file written by train.cifar or train.imagenet")
    made.add_argument("out", type=Path, help="model file to write")
    made.add_argument("--pretrained", choices=NAMES, help="a model that ships with the project, in place of MODEL")
    made.add_argument("--T", type=int, default=2, dest="steps", help="time steps (default: %(default)s)")
    add_data(made, "training images")
    made.add_argument(
        "--calibration", type=int, default=256, help="training images for it, drawn by --seed (default: %(default)s)"
    )
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument("--rounds", type=int, default=2, help="times every layer is visited (default: %(default)s)")
    return made


def _run(options: argparse.Namespace) -> None:
    import torch

    from train.data.images import load
    from train.loop import checkpoint
    from train.loop.calibrate import calibrate_potentials
    from train.loop.origin import check_images, recipe
    from train.model.snn import neurons

    check("induction_steps", options.steps, "--T")
    if not 1 <= options.rounds <= 100:
        raise InputError(f"--rounds is {options.rounds}; allowed: 1..100")
    path = model_path(options.model, options.pretrained)
    check_output(options.out, inputs=[path, *map(Path, options.data)])
    model = checkpoint.read_model(path)
    network = model.network
    data = load(options.data, "train")
    check_images(data, model)
    made = recipe(model)
    if model.data == data.digest() and made["validation"] < len(data):
        data = data.split(made["validation"], made["seed"])[0]  # held-out images stay fit for choices
    else:
        print(f"{path}: trained on other images; those held out then may be among the ones used here")
    print(
        f"{path}: {model.architecture}; v(0) for T = {options.steps} in {options.rounds} rounds, on "
        f"{options.calibration} training images of {' '.join(options.data)}, seed {options.seed}",
        flush=True,
    )
    images = data.sample(options.calibration, options.seed).images.permute(0, 3, 1, 2)
    calibrate_potentials(network, images, options.steps, options.rounds)
    potentials = {key: getattr(options, key) for key in ("steps", "calibration", "seed", "rounds")}
    checkpoint.write_model(options.out, replace(model, info={**model.info, "potentials": potentials}))
    values = torch.cat([neuron.initial for neuron in neurons(network)])
    print(f"{options.out}: v(0)/θ from {values.min():.2f} to {values.max():.2f}, on average {values.mean():.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    sys.exit(main())
