"""Speed, side by side: the integer engine, Lava, SpikingJelly, PyTorch, and what the machine could do.

    python -m benchmarks.speed --out runs/speed

Whatever is compared runs in turn in one process, several times; a ratio is formed within each repeat, and its median,
least and largest value are reported. Nothing is timed before its results were compared with the integer engine's.
The speed of dense kernels does not depend on the values of weights, so untrained networks serve; --checkpoint takes
trained ones.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import engine_speed, lava_speed, layers, machine, peak, scaling, startup
from benchmarks.options import Options
from benchmarks.timing import Effort
from deploy.files import write_json
from train.model.models import MODELS

_TITLES = {
    "engine": ("Integer engine against SpikingJelly and PyTorch", engine_speed),
    "lava": ("Lava", lava_speed),
    "scaling": ("Growth of time and memory", scaling),
    "peak": ("Share of the machine's int8 rate", peak),
    "layers": ("Where the engine's time goes", layers),
    "startup": ("Start", startup),
}
_QUICK_SIZES = scaling.Sizes(
    steps=(1, 2),
    images=(2, 4),
    batches=(2, 4),
    widths=(4, 8),
    depths=(1, 2),
    memory_images=(2, 4),
    memory_of=("scores",),
    lava=("batch",),
)


def _checkpoint(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or name not in MODELS:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: NAME=PATH with a NAME of {', '.join(MODELS)}")
    return name, Path(path)


def _parser() -> Options:
    parser = Options("speed", __doc__)
    parser.several("--only", list(_TITLES), "these parts alone", choices=list(_TITLES))
    models = ["vgg16", "resnet18", "resnet20", "vgg_small"]
    parser.several("--models", models, "networks for the part 'engine'", choices=list(MODELS))
    parser.several("--steps", [1, 4, 8], "T", metavar="T")
    parser.several("--batches", [8, 32, 128], "images at once to try for SpikingJelly and PyTorch, growing")
    parser.several("--lava-models", ["vgg_small", "vgg16"], "networks for the part 'lava'", choices=list(MODELS))
    upstream = "those that lava-dl alone runs too, very slowly: vgg_small, vgg16"
    parser.several("--upstream", ["vgg_small"], upstream, nargs="*", choices=["vgg_small", "vgg16"])
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=_checkpoint,
        default=[],
        metavar="NAME=PATH",
        help="model files in place of random weights",
    )
    parser.number("--upstream-repeats", 2, "of those: minutes each for vgg16")
    parser.number("--repeats", 5, "of every comparison")
    parser.number("--seconds", 0.8, "of one timed run, about", kind=float)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    return parser


def _make_quick(options: argparse.Namespace) -> None:
    options.models, options.steps, options.batches = ["resnet20"], [2], [2, 4]
    options.lava_models, options.upstream = ["vgg_small"], []
    options.repeats, options.seconds = 1, 0.01


def measure(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """One part of the benchmark."""
    effort = Effort(options.repeats, options.seconds)
    checkpoints = dict(options.checkpoint)
    quick = options.quick
    if part == "engine":
        return engine_speed.measure(options.models, options.steps, options.batches, checkpoints, effort)
    if part == "lava":
        batch = 2 if quick else 64
        fast = lava_speed.measure(options.lava_models, 4, batch, checkpoints, effort)
        slow = lava_speed.measure_upstream(options.upstream, 4, batch, checkpoints, options.upstream_repeats)
        return {"engine": fast, "upstream": slow}
    if part == "scaling":
        return scaling.measure(_QUICK_SIZES if quick else scaling.Sizes(), min(3, options.repeats))
    if part == "peak":
        model, sizes = ("vgg_small", [128]) if quick else ("vgg16", [512, 1024, 2048])
        return peak.measure(model, 4, sizes, checkpoints, effort)
    if part == "layers":
        model, images = ("vgg_small", 2) if quick else ("vgg16", 128)
        return layers.measure(model, 4, images, checkpoints, effort)
    return startup.measure("vgg_small", 2 if quick else 16, checkpoints, effort)


def report(result: dict[str, Any]) -> str:
    """All parts in Markdown."""
    text = f"# Speed\n\n{machine.line(result['machine'])}.\n"
    text += f"Median (least … largest) of {result['repeats']} interleaved repeats.\n"
    parts = {part: of for part, of in _TITLES.items() if part in result}
    return text + "".join(f"\n## {title}\n\n{module.table(result[part])}" for part, (title, module) in parts.items())


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.quick:
        _make_quick(options)
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine.describe(), "repeats": options.repeats, "seconds": options.seconds}
    for part in options.only:
        result[part] = measure(options, part)
        write_json(options.out / "speed.json", result)
    (options.out / "speed.md").write_text(report(result), encoding="utf-8")
    print(report(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
