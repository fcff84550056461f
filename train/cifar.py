"""Train a CIFAR network with the NQ activation: ``python -m train.cifar --data FOLDER --out model.pt``."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from train import checkpoint
from train.calibrate import evaluate
from train.data import DataError, load
from train.models import MODELS
from train.trainer import Recipe, fast_bfloat16, train

REPORTED_STEPS = (1, 2, 4, 8, 16)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; it must be at least 1")
    return value


def _layer_bits(text: str) -> tuple[str, int]:
    name, _, bits = text.rpartition("=")
    if not name or not bits.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be LAYER=BITS, such as layers.1=8")
    return name, int(bits)


def _parser() -> argparse.ArgumentParser:
    default = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m train.cifar",
        description="Train an image classifier with the NQ activation, ready for conversion to an integer SNN.",
        epilog="example: python -m train.cifar --data cifar10-archives/ --epochs 40 --out runs/vgg_small.pt",
    )
    data = parser.add_argument_group("data and files")
    data.add_argument(
        "--data",
        nargs="+",
        default=["sample"],
        metavar="SOURCE",
        help="'sample' (1,000 images shipped with the project), 'cifar10' (download), or folders or zip "
        "archives with train/<class>/<image> and test/<class>/<image> (default: sample)",
    )
    data.add_argument("--out", type=Path, default=Path("model.pt"), help="model file to write (default: %(default)s)")
    data.add_argument("--resume", action="store_true", help="continue from OUT.checkpoint")
    data.add_argument("--init", type=Path, metavar="MODEL", help="fine-tune this model file instead of random weights")
    net = parser.add_argument_group("network")
    net.add_argument("--model", choices=list(MODELS), default=default.model, help="default: %(default)s")
    net.add_argument(
        "--levels", "--L", type=_positive, default=default.levels, help="quantization levels L (default: 4)"
    )
    net.add_argument("--threshold", type=float, default=default.threshold, help="λ at the start (default: %(default)s)")
    net.add_argument(
        "--induction-steps",
        type=_positive,
        default=default.induction_steps,
        help="time steps T of the noise induction and of model choice (default: %(default)s)",
    )
    net.add_argument(
        "--noise-factor",
        type=float,
        default=default.noise_factor,
        help="times the measured σ; 0 trains plain QCFS (default: %(default)s)",
    )
    net.add_argument(
        "--weight-bits",
        type=int,
        default=default.weight_bits,
        metavar="BITS",
        help="train with weights rounded to 2 to 8 bits, for export with the same --bits and --rounding nearest; "
        "best with --init (default: %(default)s, not rounded)",
    )
    net.add_argument(
        "--layer-bits",
        nargs="+",
        type=_layer_bits,
        default=[],
        metavar="LAYER=BITS",
        help="with --weight-bits: other bits for some layers, such as layers.1=8",
    )
    sgd = parser.add_argument_group("optimisation")
    sgd.add_argument("--epochs", type=_positive, default=default.epochs, help="default: %(default)s")
    sgd.add_argument("--batch", type=_positive, default=default.batch, help="default: %(default)s")
    sgd.add_argument("--learning-rate", type=float, default=default.learning_rate, help="peak (default: %(default)s)")
    sgd.add_argument("--momentum", type=float, default=default.momentum, help="default: %(default)s")
    sgd.add_argument("--weight-decay", type=float, default=default.weight_decay, help="default: %(default)s")
    sgd.add_argument("--label-smoothing", type=float, default=default.label_smoothing, help="default: %(default)s")
    sgd.add_argument("--cutout", type=int, default=default.cutout, help="side in pixels, 0 for none (default: 8)")
    sgd.add_argument(
        "--validation",
        type=_positive,
        help="training images held out for noise induction and model choice "
        "(default: 2000, but at most a fifth of the training set)",
    )
    sgd.add_argument("--seed", type=int, default=default.seed, help="default: %(default)s")
    sgd.add_argument(
        "--precision",
        choices=["auto", "bfloat16", "float32"],
        default="auto",
        help="auto takes bfloat16 where the machine has instructions for it (default: %(default)s)",
    )
    sgd.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    return parser


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} is not usable here ({reason}); allowed: auto, cpu, cuda") from None
    return device


def _run(options: argparse.Namespace) -> None:
    device = _device(options.device)
    if options.resume and options.init is not None:
        raise ValueError("--resume and --init are both given; allowed: one of them")
    checkpoint.check_writable(options.out, inputs=[options.init])
    data = load(options.data, "train")
    names = {f.name for f in fields(Recipe)} & set(vars(options))
    values = {name: getattr(options, name) for name in names}
    values["validation"] = options.validation or max(1, min(2000, len(data) // 5))
    values["bfloat16"] = fast_bfloat16(device) if options.precision == "auto" else options.precision == "bfloat16"
    values["layer_bits"] = dict(options.layer_bits)
    recipe = Recipe(**values)
    start = None
    if options.init is not None:
        content = checkpoint.load_model(options.init)[1]
        for key in ("architecture", "levels"):
            wanted = recipe.model if key == "architecture" else recipe.levels
            if content[key] != wanted:
                raise ValueError(f"{options.init}: {key} is {content[key]!r}; allowed: {wanted!r} as asked for")
        if content["classes"] != list(data.classes):
            raise ValueError(
                f"{options.init}: classes are {', '.join(content['classes'])}; allowed: {', '.join(data.classes)}"
            )
        start = content["state"]
    test = load(options.data, "test")
    if test.classes != data.classes:
        raise DataError(
            f"data: test has classes {', '.join(test.classes)}; allowed: {', '.join(data.classes)} as in train"
        )
    print(
        f"{recipe.model}, {len(data) - recipe.validation} training and {recipe.validation} held-out images from "
        f"{' '.join(options.data)}, {recipe.epochs} epochs on {device}, "
        f"{'bfloat16' if recipe.bfloat16 else 'float32'}, seed {recipe.seed}",
        flush=True,
    )
    if options.data == ["sample"] and start is None:
        print("The sample shows that everything works; for accuracy give the whole data set with --data.", flush=True)
    network = train(recipe, data, out=options.out, device=device, resume=options.resume, start=start)
    result = evaluate(network, test.to(device), max(REPORTED_STEPS))
    print(f"\n{options.out}: accuracy on {len(test)} test images")
    print("  ANN      " + "".join(f"  SNN T={steps:<4}" for steps in REPORTED_STEPS))
    print(f"  {result.ann:5.2f} % " + "".join(f"   {result.snn[steps - 1]:5.2f} % " for steps in REPORTED_STEPS))


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except (ValueError, DataError, OSError) as error:
        print(f"train.cifar: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ntrain.cifar: interrupted; continue with --resume --out {options.out}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
