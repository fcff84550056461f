"""Accuracy of training methods after T steps, over seeds: NQ, QCFS, and RMP-SNN with soft and with hard reset.

    python -m benchmarks.methods nq_*.pt qcfs_*.pt relu_*.pt --data ARCHIVES --out runs/methods

Every model file is exported with 8-bit weights, and the integer network classifies the test images: what Lava computes.
Files whose recipes differ in the seed alone make one row, with mean and standard deviation. For ReLU networks the
share α of the largest current that becomes the threshold is chosen for each file and reset, on images that were held
out in training, after ``--choice-steps`` steps; α = 1 has rows of its own.
"""

import argparse
import hashlib
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, markdown
from benchmarks.options import Options
from deploy.files import write_json
from export.fold.lower import lower
from export.round.quantize import quantize
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from train.choices import RESETS, Reset
from train.data.image_set import ImageSet
from train.data.images import load
from train.loop.calibrate import balance_thresholds
from train.loop.checkpoint import read_model
from train.loop.origin import held_out
from train.model.activation import RateReLU
from train.model.models import Network
from train.model.snn import neurons

SCALES = (1.0, 0.5, 0.25)
THRESHOLD_IMAGES = 128


def _images(data: ImageSet) -> Tensor:
    return data.images.permute(0, 3, 1, 2).contiguous()


def accuracies(network: Network, data: ImageSet, steps: int) -> tuple[list[float], str]:
    """Percent of images that the integer network classifies correctly after 1 … T steps, and its digest."""
    integer = quantize(lower(network, network.input_shape))[0]
    predicted = torch.from_numpy(Engine(integer).classify(_images(data), steps))
    return (100 * (predicted == data.labels[:, None]).double().mean(0)).tolist(), integer.digest()[:16]


def set_reset(network: Network, reset: Reset) -> None:
    """Give every ReLU's neurons the reset."""
    for neuron in neurons(network):
        assert isinstance(neuron, RateReLU)
        neuron.reset = reset


def measure(path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of one model file: one for NQ, for ReLU one for each reset with α = 1 and with the chosen α."""
    model = read_model(path)
    network, recipe, nq = model.network, model.recipe, model.activation == "nq"
    steps, choice_steps = options.steps if nq else options.relu_steps, options.choice_steps
    test = load(options.data, "test")
    if not nq and options.relu_samples is not None:
        test = test.sample(options.relu_samples, seed=0)
    common = {"model": path.name, "recipe": recipe, "epoch": model.info["epoch"], "images": len(test)}
    common["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    def result(method: str, **more: Any) -> dict[str, Any]:
        found, digest = accuracies(network, test, max(steps))
        snn = {str(count): found[count - 1] for count in steps}
        return common | {"method": method, "snn": snn, "digest": digest} | more

    if nq:
        name = "NQ" if recipe["noise_factor"] else "QCFS"
        if recipe.get("snn_steps"):
            name = f"spikes, T = {recipe['snn_steps']}"
        return [result(name + (", v(0) calibrated" if "potentials" in model.info else ""))]
    choice = held_out(options.data, model)
    calibration = _images(choice)[:THRESHOLD_IMAGES]
    rows = []
    for reset in RESETS:
        set_reset(network, reset)
        tried = {}
        for scale in SCALES:
            balance_thresholds(network, calibration, choice_steps, scale)
            tried[scale] = accuracies(network, choice, choice_steps)[0][-1]
        best = max(tried, key=lambda scale: tried[scale])
        for scale, name in ((1.0, "α = 1"), (best, "α chosen")):
            balance_thresholds(network, calibration, choice_steps, scale)
            rows.append(result(f"RMP {reset}, {name}", scale=scale, held_out=tried))
    return rows


def table(rows: Sequence[dict[str, Any]], steps: Sequence[int]) -> str:
    """Mean ± standard deviation over the seeds, in Markdown."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        recipe = {key: value for key, value in row["recipe"].items() if key != "seed"}
        groups[row["method"], json.dumps(recipe, sort_keys=True)].append(row)
    lines = []
    for (method, _), found in groups.items():
        values = [[row["snn"][str(count)] for row in found] for count in steps]
        scales = sorted({row["scale"] for row in found if "scale" in row})
        cells = [
            f"{statistics.mean(value):.2f}" + (f" ± {statistics.stdev(value):.2f}" if len(value) > 1 else "")
            for value in values
        ]
        lines.append((method, ", ".join(map(str, scales)) or "–", str(len(found)), f"{found[0]['images']:,}", *cells))
    return markdown.table(("method", "α", "seeds", "images", *(f"T = {count}" for count in steps)), lines)


def _parser() -> Options:
    parser = Options("methods", __doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="model files written by train.cifar")
    parser.add_argument("--data", nargs="+", default=["sample"], metavar="SOURCE", help="what train.cifar takes")
    parser.several("--T", [1, 2, 4, 8, 16, 32], "of NQ and QCFS", dest="steps")
    parser.several("--relu-T", [1, 2, 4, 8, 16, 32, 64, 128, 256], "of RMP", dest="relu_steps")
    parser.add_argument("--relu-samples", type=int, help="test images for RMP, drawn at random (default: all)")
    parser.number("--choice-steps", 32, "T at which α is chosen, and of the thresholds' calibration")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return _parser().run(_run, argv)


def _run(options: argparse.Namespace) -> int:
    for count in (*options.steps, *options.relu_steps, options.choice_steps):
        if not 1 <= count <= 4096:
            raise InputError(f"--T {count}: must be 1 to 4096")
    path = options.out / "methods.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    measured = {row["sha256"] for row in rows}
    for model in options.models:
        if model.is_file() and hashlib.sha256(model.read_bytes()).hexdigest() in measured:
            continue
        rows += measure(model, options)
        write_json(path, {"machine": machine.describe(), "rows": rows})
        print(f"methods: {model} done", flush=True)
    parts = []
    for steps in (options.steps, options.relu_steps):
        chosen = [row for row in rows if row["snn"].keys() == {str(count) for count in steps}]
        if chosen:
            parts.append(table(chosen, steps))
    text = "\n".join(parts)
    (options.out / "methods.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
