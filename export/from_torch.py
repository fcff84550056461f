"""Convert a trained PyTorch classifier: ``python -m export.from_torch weights.pth net.h5 --model FILE.py:FACTORY``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nqlava.command.parser import Parser, add_data
from nqlava.errors import InputError
from nqlava.info import Info

_SMALL = 64  # side of images of which many are taken for calibration


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "export.from_torch",
        "Convert a trained PyTorch classifier with ReLUs to an integer spiking network. Beside it stands the model "
        "file NET.model.pt, for run_lava and for the training commands. The module that --model names is imported; no "
        "other code of yours runs, and nothing is unpickled.",
        [
            "export.from_torch resnet20.pth net.h5 --model models.py:resnet20 --T 8 --data cifar10 "
            "--mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010 --fine-tune 3",
            "export.from_torch resnet18.pth net.h5 --model 'resnet18(num_classes=10)' --data images",
            "export.from_torch resnet20.pth net.h5 --model models.py:resnet20 --check",
            "export.from_torch resnet34.pth net.h5 --model resnet34 --data imagenette2/ --mean 0.485 0.456 0.406 "
            "--std 0.229 0.224 0.225 --outputs 0 217 482 491 497 566 569 571 574 701",
        ],
    )
    made.add_argument("weights", type=Path, help="state dictionary, of torch.save or safetensors")
    made.add_argument("net", type=Path, help="netx file to write")
    made.add_argument(
        "--model",
        required=True,
        help="what makes the network: PACKAGE.MODULE:FACTORY, FILE.py:FACTORY or a name in torchvision.models; keyword "
        "arguments in brackets may follow",
    )
    made.add_argument("--T", type=int, default=8, dest="steps", help="time steps (default: %(default)s)")
    for name, what in (("mean", "subtracted from x/255"), ("std", "which divides that")):
        made.add_argument(
            f"--{name}", type=float, nargs="+", help=f"per channel, {what}; without both the network takes uint8 images"
        )
    made.add_argument(
        "--outputs",
        nargs="+",
        metavar="N",
        help="of a network with more outputs than the images have classes: the output of each class, in the order of "
        "the sorted class names, as numbers or a text file of them (default: all)",
    )
    made.add_argument("--bits", type=int, default=8, help="of the weights, 2 to 8 (default: %(default)s)")
    add_data(made, "training images, for calibration")
    made.add_argument(
        "--fine-tune",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="train that long on the labelled images, such as 1 to 3 (default: none)",
    )
    made.add_argument("--resume", action="store_true", help="continue an interrupted --fine-tune")
    made.add_argument(
        "--size",
        type=int,
        help="side of the images that the network takes (default: their own where they have one of at most 224, else "
        "224); others are resized and cropped",
    )
    made.add_argument(
        "--calibration", type=int, help="calibration images (default: 500, or 100 where they are larger than 64x64)"
    )
    made.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")
    made.add_argument("--check", action="store_true", help="list all parts that cannot be exported, and write nothing")
    return made


def _run(options: argparse.Namespace) -> int | None:
    import torch

    from export.convert import convert, normalised, trainable
    from export.describe import describe
    from export.fine_tune import fine_tune, recipe
    from export.fold.problems import problems
    from export.network import build, input_channels, load_weights, read_weights
    from export.outputs import read_outputs, with_outputs
    from export.round.quantize import Precision
    from export.round.rounding import NEAREST, Method
    from nqlava import netx
    from nqlava.command.files import check_folder, check_output
    from train.choices import MAX_SIDE
    from train.data.sized import SizedSet, load_sized
    from train.loop.checkpoint import LOWERED, ModelFile, read_model, write_model
    from train.loop.trainer import checkpoint_path

    Info().steps_or(options.steps)
    precision = Precision(options.bits)
    outputs = None if options.outputs is None else read_outputs(options.outputs)
    check_folder(options.net)
    path = options.net.with_suffix(".model.pt")
    for file in (options.net, path, checkpoint_path(path)):
        check_output(file, inputs=[options.weights, *map(Path, options.data)])
    if options.fine_tune < 0:
        raise InputError(f"--fine-tune is {options.fine_tune}; allowed: 0 or more epochs")
    if options.resume and not options.fine_tune:
        raise InputError("--resume continues a training, and none is asked for; add --fine-tune EPOCHS as before")
    weights = read_weights(options.weights)
    model = build(options.model)
    load_weights(model, weights, options.weights)
    del weights
    if options.size is not None and not 1 <= options.size <= MAX_SIDE:
        raise InputError(f"--size is {options.size}; allowed: 1..{MAX_SIDE}")
    size = None if options.size is None else (options.size, options.size)
    data = load_sized(options.data, "train", size).with_channels(input_channels(model))
    if size is not None and data.shape[1:] != size:
        raise InputError(f"--size is {options.size}; allowed: {data.shape[1]}, the size of the sample and of CIFAR")
    if (options.mean is None) != (options.std is None):
        raise InputError("--mean and --std: one is missing; allowed: both or none")
    for name, values in (("--mean", options.mean), ("--std", options.std)):
        if values is not None and len(values) != data.shape[0]:
            raise InputError(f"{name} has {len(values)} values; allowed: {data.shape[0]}, one per channel")
    if options.check:
        found = problems(with_outputs(normalised(model, options.mean, options.std), outputs, data.shape), data.shape)
        print("\n".join(found or [f"{options.model}: exports"]))
        return 1 if found else 0
    usual = 500 if max(data.shape[1:]) <= _SMALL else 100
    count = min(usual, len(data)) if options.calibration is None else options.calibration
    if not 1 <= count <= len(data):
        raise InputError(f"--calibration is {count}; allowed: 1..{len(data)}")
    if options.fine_tune:
        whole = data.whole() if isinstance(data, SizedSet) else data
        chosen = recipe(options.steps, options.fine_tune, len(data), options.seed)
        rest, others = whole.split(chosen.validation, chosen.seed)
        calibration = rest.sample(min(count, len(rest)), options.seed)
    else:
        drawn = data.sample(min(2 * count, len(data)), options.seed)
        order = torch.arange(len(drawn))
        calibration, others = (drawn.subset(part) for part in order.tensor_split([count]))
    print(
        f"{options.weights}: {options.model}; T = {options.steps}, {options.bits}-bit weights; {len(calibration)} "
        f"calibration images {data.shape[1]}x{data.shape[2]} of {' '.join(options.data)}, seed {options.seed}",
        flush=True,
    )
    made = trainable(model, calibration, steps=options.steps, mean=options.mean, std=options.std, outputs=outputs)
    info: dict[str, Any] = {"data": data.digest()}
    if options.fine_tune:
        made = fine_tune(made, whole, chosen, out=path, resume=options.resume)
        info = dict(read_model(path).info)
    write_model(path, ModelFile(made.module, LOWERED, data.classes, info))
    network, report = convert(
        made,
        calibration,
        steps=options.steps,
        precision=precision,
        method=NEAREST if options.bits == 8 else Method(),
        origin=Info(source=path.name, source_sha256=hashlib.sha256(path.read_bytes()).hexdigest()),
        notes={"architecture": options.model},
        others=others if len(others) else None,
    )
    netx.write(network, options.net)
    print(describe(report))
    print(f"wrote {options.net} ({options.net.stat().st_size:,} bytes, network {network.digest()[:16]}), and {path}")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
