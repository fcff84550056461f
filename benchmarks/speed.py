"""Speed, side by side: the integer engine, Lava, SpikingJelly, PyTorch, and what the machine could do.

    python -m benchmarks.speed --out runs/speed

Whatever is compared runs in turn in one process, several times; a ratio is formed within each repeat, and its median,
least and largest value are reported. Nothing is timed before its results were compared with the integer engine's.
The speed of dense kernels does not depend on the values of weights, so untrained networks serve; --checkpoint takes
trained ones.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import engine_speed, lava_speed, layers, machine, peak, scaling, startup
from benchmarks.timing import Effort
from deploy.files import write_json
from train.model.models import MODELS

_TITLES = {
    "engine": "Integer engine against SpikingJelly and PyTorch",
    "lava": "Lava",
    "scaling": "Growth of time and memory",
    "peak": "Share of the machine's int8 rate",
    "layers": "Where the engine's time goes",
    "startup": "Start",
}
_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "engine": engine_speed.table,
    "lava": lava_speed.table,
    "scaling": scaling.table,
    "peak": peak.table,
    "layers": layers.table,
    "startup": startup.table,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for speed.json and speed.md")
    parser.add_argument("--only", nargs="+", choices=list(_TITLES), default=list(_TITLES), help="these parts alone")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=list(MODELS),
        default=["vgg16", "resnet18", "resnet20", "vgg_small"],
        metavar="MODEL",
        help="networks for the part 'engine' (default: %(default)s)",
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 4, 8], metavar="T", help="default: %(default)s")
    parser.add_argument(
        "--batches",
        nargs="+",
        type=int,
        default=[8, 32, 128],
        metavar="IMAGES",
        help="batch sizes to try for SpikingJelly and PyTorch, growing (default: %(default)s)",
    )
    parser.add_argument(
        "--lava-models", nargs="+", choices=list(MODELS), default=["vgg_small", "vgg16"], metavar="MODEL",
        help="networks for the part 'lava' (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--upstream", nargs="*", choices=["vgg_small", "vgg16"], default=["vgg_small"], metavar="MODEL",
        help="those that lava-dl alone runs too, very slowly: vgg_small, vgg16 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", nargs="+", type=_checkpoint, default=[], metavar="NAME=PATH", help="trained models to use"
    )
    parser.add_argument(
        "--upstream-repeats", type=int, default=2, help="of those: minutes each for vgg16 (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of every comparison (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.8, help="of one timed run, about (default: %(default)s)")
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
    settings = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items() if version)
    text = (
        f"# Speed\n\n{settings['processor']}, {settings['cores']} core(s), {settings['threads']} thread(s); "
        f"{versions}; commit {settings['commit']}.\nMedian (least … largest) of {result['repeats']} interleaved "
        "repeats.\n"
    )
    return text + "".join(
        f"\n## {_TITLES[part]}\n\n{_TABLES[part](result[part])}" for part in _TITLES if part in result
    )


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
