"""How time and memory of the engine and of Lava grow with T, images, batch, width and depth: fitted exponents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.lava_speed import require_exact, run_lava, without_start
from benchmarks.markdown import significant, with_spread
from benchmarks.markdown import table as markdown_table
from benchmarks.memory import peak_memory
from benchmarks.networks import exported, sample_images, uniform
from benchmarks.timing import Contestant, interleaved, spread
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork


@dataclass(frozen=True)
class Sizes:
    """What is varied, one at a time, while the rest stays small.

    Attributes:
        model: name of the network where neither width nor depth is varied.
        steps, images, batches, widths, depths: the values; ``images`` and ``batches`` are multiples of ``batches[0]``.
        memory_images: the numbers of images for which memory is measured.
        memory_of: runs whose memory is measured, as in ``benchmarks.memory``.
        lava: what is varied for Lava.
    """

    model: str = "vgg_small"
    steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    images: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    batches: tuple[int, ...] = (8, 16, 32, 64, 128)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = (2, 4, 8, 16, 32)
    memory_images: tuple[int, ...] = (64, 128, 256, 512)
    memory_of: tuple[str, ...] = ("scores", "engine", "lava")
    lava: tuple[str, ...] = ("T", "images", "batch", "depth")


@dataclass(frozen=True)
class Point:
    """One run: a network on some images, in batches where it is Lava's."""

    network: IntegerNetwork
    images: int
    steps: int
    batch: int = 16


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """p of cost = c · size^p, fitted in logarithms, and R² of the fit."""
    found = stats.linregress(np.log(sizes), np.log(costs))
    return float(found.slope), float(found.rvalue**2)


def growth(sizes: Sequence[float], costs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Median costs by size, the exponent fitted in every repeat, and a straight line through the medians.

    ``costs`` holds the repeats by size. Exponent and R² are None where a difference between two runs was lost in noise,
    so that a cost is not positive.
    """
    medians = [spread(values)["median"] for values in costs.values()]
    line = stats.linregress(sizes, medians)
    straight = {"at_zero": float(line.intercept), "each": float(line.slope), "r_squared": float(line.rvalue**2)}
    found: dict[str, Any] = {"sizes": list(sizes), "medians": medians, "line": straight}
    found |= {"exponent": None, "r_squared": None}
    repeats = list(zip(*costs.values(), strict=True))
    if min(map(min, repeats)) > 0:
        found["exponent"] = spread([exponent(sizes, column)[0] for column in repeats])
        found["r_squared"] = exponent(sizes, medians)[1]
    return found


def engine_growth(points: Mapping[int, Point], repeats: int) -> dict[str, Any]:
    """Seconds for all read-outs of every point."""
    contestants = {}
    for size, point in points.items():
        engine = Engine(point.network)
        contestants[str(size)] = Contestant(partial(engine.scores, sample_images(point.images), point.steps))
    return growth(list(points), interleaved(contestants, repeats))


def lava_growth(points: Mapping[int, Point], repeats: int) -> dict[str, Any]:
    """Seconds of every point beyond those of one batch, so without Lava's start."""
    contestants = {}
    for size, point in points.items():
        images = sample_images(point.images)
        for name, part in (("long", images), ("short", images[: point.batch])):
            run = partial(run_lava, point.network, part, point.steps, point.batch)
            contestants[f"{name} {size}"] = Contestant(run)
        require_exact("Lava", Engine(point.network).run(part, point.steps), run())
    times = interleaved(contestants, repeats, warm=True)
    costs = {str(size): without_start(times[f"short {size}"], times[f"long {size}"], 1) for size in points}
    return growth(list(points), costs)


def measure(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """Rows of time and of memory."""
    network = exported(sizes.model, {})
    images, steps = sizes.images[1], 4
    engine_sweeps = {
        "T": {n: Point(network, images, n) for n in sizes.steps},
        "images": {n: Point(network, n, steps) for n in sizes.images},
        "width": {n: Point(uniform(n, 4), images, steps) for n in sizes.widths},
        "depth": {n: Point(uniform(32, n), images, steps) for n in sizes.depths},
    }
    # A run of one batch is subtracted: what remains are images, 2 batches, and as many as it takes to exceed noise.
    first, batch = sizes.batches[:2]
    lava_sweeps = {
        "T": {n: Point(network, 17 * batch, n, batch) for n in sizes.steps},
        "images": {n: Point(network, n + first, steps, first) for n in sizes.images},
        "batch": {n: Point(network, 3 * n, steps, n) for n in sizes.batches},
        "depth": {n: Point(uniform(32, n), 17 * batch, steps, batch) for n in sizes.depths},
    }
    lava_sweeps = {name: points for name, points in lava_sweeps.items() if name in sizes.lava}
    time = []
    for name, sweeps, grow in (("engine", engine_sweeps, engine_growth), ("Lava", lava_sweeps, lava_growth)):
        for varied, points in sweeps.items():
            time.append({"runs on": name, "varied": varied} | grow(points, repeats))
            print(f"scaling: {name}, {varied} done", flush=True)
    return {"time": time, "memory": memory(sizes, network)}


def memory(sizes: Sizes, network: IntegerNetwork) -> list[dict[str, Any]]:
    """MiB by images, and by Lava's batch, with how much one image, or one more in a batch, raises it."""
    sweeps = [(kind, "samples", sizes.memory_images) for kind in sizes.memory_of]
    if "lava" in sizes.memory_of:
        sweeps.append(("lava", "batch", sizes.batches))
    rows = []
    for kind, varied, values in sweeps:
        fixed = {"samples": sizes.memory_images[0], "steps": 4, "batch": sizes.batches[1]}
        found = [peak_memory(kind, network, **(fixed | {varied: value})) for value in values]
        for process in found[0]:
            peaks = [peak[process] for peak in found]
            line = stats.linregress(values, peaks)
            row = {"runs on": kind, "process": process, "varied": varied, "sizes": list(values), "mebibytes": peaks}
            rows.append(row | {"mebibytes_each": float(line.slope), "mebibytes_at_zero": float(line.intercept)})
        print(f"scaling: memory of {kind} by {varied} done", flush=True)
    return rows


def table(result: dict[str, Any]) -> str:
    """Exponents of time, then peak memory."""
    rows = [
        (
            row["runs on"], row["varied"], ", ".join(map(str, row["sizes"])),
            ", ".join(significant(value) for value in row["medians"]),
            *((with_spread(row["exponent"]), f"{row['r_squared']:.3f}") if row["exponent"] else ("–", "–")),
            f"{row['line']['at_zero']:.3f} + {row['line']['each']:.2e} · size", f"{row['line']['r_squared']:.4f}",
        )
        for row in result["time"]
    ]  # fmt: skip
    text = markdown_table(("runs on", "varied", "sizes", "seconds", "exponent", "R²", "line", "R²"), rows)
    rows = [
        (
            row["runs on"], row["process"], row["varied"], ", ".join(map(str, row["sizes"])),
            ", ".join(f"{value:.0f}" for value in row["mebibytes"]), significant(row["mebibytes_each"]),
        )
        for row in result["memory"]
    ]  # fmt: skip
    return f"{text}\n{markdown_table(('runs on', 'process', 'varied', 'sizes', 'peak, MiB', 'MiB each'), rows)}"
