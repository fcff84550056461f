"""Accuracy of a trained model by weight bits and by rounding: a table in Markdown, and everything behind it in JSON.

    python -m benchmarks.weight_bits model.pt --data ARCHIVES --out runs/weight_bits --fine-tune 4 3 2

Weights are rounded on calibration images of the training set. Held-out images, on which no weight was trained or
rounded, are for choices; the test set is read once for each number. What the JSON file already holds is not measured
again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import markdown
from benchmarks.options import Options
from export.fold.lower import lower
from export.round.calibration import output_errors
from export.round.quantize import Precision, quantize
from export.round.rounding import NEAREST, CalibratedRounding, Method
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from train.data.image_set import ImageSet
from train.data.images import load
from train.loop.calibrate import evaluate
from train.loop.checkpoint import read_model
from train.loop.recipe import Recipe
from train.loop.trainer import fast_bfloat16, train

ABLATION = (
    Method(feedback=False, scale_search=False),
    Method(scale_search=False, bias_correction=False),
    Method(scale_search=False),
)


@dataclass(frozen=True)
class Case:
    """One row: bits of the weights, those of the first layer, the rounding, epochs of fine-tuning before it."""

    bits: int
    first: int
    rounding: str
    epochs: int = 0


@dataclass(frozen=True)
class Images:
    """Images for rounding, for choices and for the result; None where they are not read."""

    calibration: ImageSet
    held_out: ImageSet
    test: ImageSet | None


def _accuracy(engine: Engine, data: ImageSet, steps: int) -> float:
    predicted = engine.classify(data.images.permute(0, 3, 1, 2).contiguous(), steps)[:, -1]
    return float((torch.from_numpy(predicted) == data.labels).double().mean() * 100)


def measure(
    model: nn.Module, case: Case, method: Method, images: Images, steps: int, *, tested: bool
) -> dict[str, Any]:
    """Accuracies in percent, relative errors of the layers' currents, and the digest of the integer network."""
    shape = tuple(images.calibration.images.permute(0, 3, 1, 2).shape[1:])
    calibration = images.calibration.images.permute(0, 3, 1, 2).contiguous()
    folded = lower(model, shape)  # type: ignore[arg-type]
    precision = Precision(case.bits, {folded.layers[0].name: case.first})
    rounding = CalibratedRounding(folded, calibration, steps, method) if method.is_calibrated else None
    network, units = quantize(folded, precision=precision, rounding=rounding)
    engine = Engine(network)
    return asdict(case) | {
        "held_out": _accuracy(engine, images.held_out, steps),
        "test": _accuracy(engine, images.test, steps) if tested and images.test is not None else None,
        "errors": output_errors(folded, network, units, calibration[:128], steps),
        "digest": network.digest()[:16],
    }


def cases(options: argparse.Namespace) -> list[tuple[Case, Method, bool]]:
    """Every row, how it is rounded, and whether the test set is read for it."""
    found = []
    for bits in options.bits:
        found += [(Case(bits, bits, str(method)), method, True) for method in (NEAREST, Method())]
    found += [(Case(bits, 8, str(Method())), Method(), True) for bits in options.first_layer_8]
    for bits in options.ablation:
        found += [(Case(bits, bits, str(method)), method, False) for method in ABLATION]
    for bits in options.fine_tune:
        first = 8 if bits in options.first_layer_8 else bits
        found.append((Case(bits, first, str(NEAREST), options.epochs), NEAREST, True))
    return found


def fine_tuned(case: Case, options: argparse.Namespace, data: ImageSet) -> nn.Module:
    """The model after some epochs with rounded weights; it is kept in the folder of the results."""
    path = options.out / f"{case.bits}-{case.first}.pt"
    if not path.exists():
        model = read_model(options.model)
        first = next(
            name for name, module in model.network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
        )
        recipe = replace(
            Recipe(**model.recipe),
            epochs=case.epochs,
            learning_rate=options.learning_rate,
            weight_bits=case.bits,
            layer_bits={first: case.first},
            validation=options.held_out,
            seed=options.seed,
            bfloat16=fast_bfloat16(torch.device("cpu")),
        )
        resume = path.with_name(path.name + ".checkpoint").exists()
        train(recipe, data, out=path, device=torch.device("cpu"), resume=resume, start=model.network)
    return read_model(path).network


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.2f}"


def table(result: dict[str, Any]) -> str:
    """The rows in Markdown, the float SNN first."""
    exact = result["float"]
    rows = [("float", "float", "–", "–", f"{exact['held_out']:.2f}", _percent(exact["test"]), "0 %")]
    for row in sorted(result["rows"], key=lambda r: (-r["bits"], r["first"], r["epochs"])):
        rows.append(
            (
                str(row["bits"]), str(row["first"]), row["rounding"],
                f"{row['epochs']} epoch(s)" if row["epochs"] else "–", f"{row['held_out']:.2f}",
                _percent(row["test"]), f"{100 * row['errors'][-1]:.0f} %",
            )
        )  # fmt: skip
    header = ("bits", "first layer", "rounding", "fine-tuning", "held-out", "test", "error of the read-out")
    return markdown.table(header, rows)


def _parser() -> Options:
    parser = Options("weight_bits", __doc__)
    parser.add_argument("model", type=Path, help="model file written by train.cifar")
    parser.add_argument("--data", nargs="+", default=["sample"], metavar="SOURCE", help="what train.cifar takes")
    parser.number("--T", 4, "time steps", dest="steps")
    parser.several("--bits", [8, 6, 4, 3, 2], "of all layers", nargs="*")
    for name, what in (
        ("--first-layer-8", "the first with 8 bits"),
        ("--ablation", "parts of the rounding alone"),
        ("--fine-tune", "train with rounded weights"),
    ):
        parser.several(name, [], what, nargs="*", metavar="BITS")
    parser.number("--epochs", 3, "of fine-tuning")
    parser.number("--learning-rate", 0.05, "of fine-tuning", kind=float)
    parser.number("--calibration", 500, "images for rounding")
    parser.number("--held-out", 2000, "as in the model's training")
    parser.number("--seed", 0, "of the split and the choice of images")
    parser.add_argument("--no-test", action="store_true", help="do not read the test set")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return _parser().run(_run, argv)


def _run(options: argparse.Namespace) -> int:
    data = load(options.data, "train")
    rest, held_out = data.split(options.held_out, options.seed)
    test = None if options.no_test else load(options.data, "test")
    images = Images(rest.sample(options.calibration, options.seed), held_out, test)
    model = read_model(options.model).network
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "weight_bits.json"
    settings = {"T": options.steps, "seed": options.seed, "calibration": options.calibration, "held_out": len(held_out)}
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else settings | {"rows": []}
    if {key: result[key] for key in settings} != settings:
        raise InputError(f"{file} holds results of other settings; name another --out, or use its settings")
    exact = result.setdefault("float", {"test": None})
    for name, part in (("held_out", held_out), ("test", test)):
        if part is not None and exact.get(name) is None:
            exact[name] = evaluate(model, part, options.steps).snn[-1]
    for case, method, tested in cases(options):
        known = [row for row in result["rows"] if asdict(case).items() <= row.items()]
        if known and (known[0]["test"] is not None or not tested or options.no_test):
            continue
        tuned = fine_tuned(case, options, data) if case.epochs else model
        row = measure(tuned, case, method, images, options.steps, tested=tested)
        result["rows"] = [r for r in result["rows"] if r not in known] + [row]
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{case}: held-out {row['held_out']:.2f} %, test {row['test']}", flush=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(table(result))
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
