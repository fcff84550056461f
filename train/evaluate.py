"""Accuracy of a trained model as ANN and as float SNN: ``python -m train.evaluate model.pt --data ... --T 1 2 4``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from nqlava.command.columns import wrapped
from nqlava.command.files import check_output, replacing
from nqlava.command.parser import Parser, add_data
from nqlava.errors import InputError
from train.choices import RESETS
from train.loop.recipe import check
from train.shipped import NAMES, model_path


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "train.evaluate",
        "Accuracy of a trained model, as ANN and as spiking network in floating point after T steps.",
        [
            "train.evaluate --pretrained resnet20 --data cifar10 --T 1 2 4 8",
            "train.evaluate model.pt --data cifar10 --split held-out --json result.json",
        ],
    )
    made.add_argument("model", type=Path, nargs="?", help="model file written by train.cifar or train.imagenet")
    made.add_argument("--pretrained", choices=NAMES, help="a model that ships with the project, in place of MODEL")
    add_data(made, "images")
    made.add_argument(
        "--split",
        choices=["test", "held-out"],
        default="test",
        help="held-out: the training images that were held out in training (default: %(default)s)",
    )
    made.add_argument("--samples", type=int, help="images, drawn by --seed (default: all)")
    made.add_argument(
        "--seed", type=int, default=0, help="seed for --samples and --input poisson (default: %(default)s)"
    )
    made.add_argument("--T", type=int, nargs="+", default=[1, 2, 4, 8], dest="steps", help="default: 1 2 4 8")
    made.add_argument(
        "--input",
        choices=["constant", "poisson"],
        default="constant",
        help="the image as a constant current, or as Poisson spikes (default: %(default)s)",
    )
    relu = made.add_argument_group("ReLU networks")
    relu.add_argument("--reset", choices=RESETS, help="reset of the neurons (default: as in the model file)")
    relu.add_argument(
        "--threshold-scale",
        type=float,
        metavar="α",
        help="calibrate the thresholds anew, on held-out images: α times the largest current (default: as in the file)",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    return made


def _run(options: argparse.Namespace) -> None:
    import torch

    from train.data.images import load
    from train.loop.calibrate import balance_thresholds, evaluate
    from train.loop.checkpoint import read_model
    from train.loop.origin import check_images, held_out, recipe
    from train.loop.trainer import THRESHOLD_IMAGES
    from train.model.activation import RateReLU
    from train.model.snn import neurons, poisson_input

    for steps in options.steps:
        check("induction_steps", steps, "--T")
    check("seed", options.seed, "--seed")
    path = model_path(options.model, options.pretrained)
    model = read_model(path)
    network = model.network
    if options.json is not None:
        check_output(options.json, inputs=[path, *map(Path, options.data)])
    rate_coded = [neuron for neuron in neurons(network) if isinstance(neuron, RateReLU)]
    if (options.reset or options.threshold_scale is not None) and not rate_coded:
        raise InputError(f"{path}: has NQ activations; allowed with --reset or --threshold-scale: ReLU networks")
    if options.threshold_scale is not None:
        check("threshold_scale", options.threshold_scale, "--threshold-scale")
    data = load(options.data, "test") if options.split == "test" else held_out(options.data, model)
    check_images(data, model)
    if options.samples is not None:
        data = data.sample(options.samples, options.seed)
    for neuron in rate_coded:
        neuron.reset = options.reset or neuron.reset
    if options.threshold_scale is not None:
        images = next(held_out(options.data, model).batches(THRESHOLD_IMAGES))[0]
        steps = recipe(model)["induction_steps"]
        balance_thresholds(network, images, steps, options.threshold_scale)
    spikes = poisson_input(network, torch.Generator().manual_seed(options.seed))
    with spikes if options.input == "poisson" else nullcontext():
        result = evaluate(network, data, max(options.steps))
    found = {str(steps): result.snn[steps - 1] for steps in options.steps}
    if options.json is not None:
        settings = {key: getattr(options, key) for key in ("split", "input", "reset", "threshold_scale", "seed")}
        report = {"model": str(path), "images": len(data), **settings, "ann": result.ann, "snn": found}
        with replacing(options.json) as file:
            file.write(json.dumps(report, indent=2).encode() + b"\n")
    print(f"{path}: accuracy on {len(data)} {options.split} images")
    columns = [(f"  SNN T={steps:<4}", f"   {value:5.2f} % ") for steps, value in found.items()]
    print("\n".join(wrapped(["  ANN      ", f"  {result.ann:5.2f} % "], columns)))


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    sys.exit(main())
