"""Lava against the integer engine on the same images, and against the network that lava-dl alone builds."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.markdown import table as markdown_table
from benchmarks.markdown import with_spread
from benchmarks.networks import exported, sample_images, uniform
from benchmarks.timing import Contestant, Effort, interleaved, rates, ratios, seconds, spread
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace, concatenate, count_differences

_LEAST_MORE = 4  # batches by which the longer of two runs exceeds the shorter one, at least
_TIMES_LONGER = 5  # than other runs: Lava's start varies by tenths of a second, and must not hide the difference
_UPSTREAM_STEPS = 4  # time steps by which the longer of lava-dl's runs exceeds the shorter one


def run_lava(network: IntegerNetwork, images: NDArray[np.uint8], steps: int, batch: int) -> Trace:
    """One Lava run, its start and its end included."""
    from deploy.lava import build

    return concatenate(list(build.run(network, images, steps, batch=batch)))


def run_upstream(net: str, images: NDArray[np.uint8], steps: int) -> Trace:
    """The same by lava-dl's reader with Lava's own model of Conv, one image at a time."""
    from deploy.lava import netx_network

    return concatenate(list(netx_network.run(net, images, steps, stock_convolution=True)))


def require_exact(name: str, expected: Trace, found: Trace) -> None:
    """RuntimeError where a spike or read-out differs: what computes something else is not timed."""
    if any(differences := count_differences(expected, found)):
        raise RuntimeError(f"{name}: {sum(differences)} spikes and read-outs are wrong")


def without_start(short: Sequence[float], long: Sequence[float], work: float) -> list[float]:
    """Seconds per unit of the work by which the long runs exceed the short ones: what starts and ends them cancels."""
    return [(two - one) / work for one, two in zip(short, long, strict=True)]


def against_engine(network: IntegerNetwork, steps: int, batch: int, effort: Effort) -> dict[str, Any]:
    """Images per second of Lava with and without its start, and of the engine's traces of the same images."""
    engine = Engine(network)
    trial = sample_images((1 + _LEAST_MORE) * batch)
    require_exact("Lava", engine.run(trial, steps), run_lava(network, trial, steps, batch))
    short, long = (seconds(partial(run_lava, network, part, steps, batch)) for part in (trial[:batch], trial))
    per_batch = max(0.02, (long - short) / _LEAST_MORE)
    more = max(_LEAST_MORE, round(_TIMES_LONGER * effort.seconds / per_batch))
    images = sample_images(batch * (1 + more))
    contestants = {
        "short": Contestant(partial(run_lava, network, images[:batch], steps, batch)),
        "long": Contestant(partial(run_lava, network, images, steps, batch)),
        "engine": Contestant(partial(engine.run, images, steps), len(images)),
    }
    times = interleaved(contestants, effort.repeats)
    started = [time / len(images) for time in times["long"]]
    running = without_start(times["short"], times["long"], batch * more)
    return {
        "batch": batch,
        "images": len(images),
        "images_per_second": {
            "Lava with start": rates(started),
            "Lava": rates(running),
            "engine": rates(times["engine"]),
        },
        "start_seconds": spread([short - batch * time for short, time in zip(times["short"], running, strict=True)]),
        "engine_is_faster_by": {
            "Lava with start": ratios(started, times["engine"]),
            "Lava": ratios(running, times["engine"]),
        },
    }


def against_upstream(network: IntegerNetwork, steps: int, batch: int, repeats: int) -> dict[str, Any]:
    """Seconds per image of lava-dl's network and of this project's in Lava, both without their start.

    Of lava-dl's, one image is timed in runs that differ by some time steps. Back to back, an image occupies T of them.
    Its runs are so slow that the comparison of every spike counts for nothing in their time.
    """
    engine = Engine(network)
    image, images = sample_images(1), sample_images(3 * batch)
    require_exact("Lava", engine.run(images, steps), run_lava(network, images, steps, batch))
    with tempfile.TemporaryDirectory() as folder:
        net, small = f"{folder}/net.h5", f"{folder}/small.h5"
        netx.write(network, net)
        netx.write(uniform(2, 1), small)
        run_upstream(small, image, 1)  # imports

        def upstream(count: int) -> None:
            require_exact("lava-dl", engine.run(image, count), run_upstream(net, image, count))

        contestants = {
            "upstream short": Contestant(partial(upstream, 1)),
            "upstream long": Contestant(partial(upstream, 1 + _UPSTREAM_STEPS)),
            "short": Contestant(partial(run_lava, network, images[:batch], steps, batch)),
            "long": Contestant(partial(run_lava, network, images, steps, batch)),
        }
        times = interleaved(contestants, repeats, warm=True)
    step = without_start(times["upstream short"], times["upstream long"], _UPSTREAM_STEPS)
    theirs = [steps * time for time in step]
    ours = without_start(times["short"], times["long"], 2 * batch)
    return {
        "seconds_per_step": spread(step),
        "seconds_per_image": {"lava-dl": spread(theirs), "Lava": spread(ours)},
        "lava_is_faster_by": ratios(theirs, ours),
    }


def measure(
    models: Sequence[str], steps: int, batch: int, checkpoints: Mapping[str, Path], effort: Effort
) -> list[dict[str, Any]]:
    """One row per model: Lava against the engine."""
    rows = []
    for model in models:
        rows.append({"model": model, "T": steps} | against_engine(exported(model, checkpoints), steps, batch, effort))
        print(f"lava: {model} done", flush=True)
    return rows


def measure_upstream(
    models: Sequence[str], steps: int, batch: int, checkpoints: Mapping[str, Path], repeats: int
) -> list[dict[str, Any]]:
    """One row per model: lava-dl's network against this project's."""
    rows = []
    for model in models:
        row = against_upstream(exported(model, checkpoints), steps, batch, repeats)
        rows.append({"model": model, "T": steps, "repeats": repeats} | row)
        print(f"lava: {model} of lava-dl done", flush=True)
    return rows


def table(result: dict[str, Any]) -> str:
    """Images per second against the engine, then seconds per image against lava-dl."""
    rows = []
    for row in result["engine"]:
        for name, rate in row["images_per_second"].items():
            lead = row["engine_is_faster_by"].get(name)
            shown = with_spread(lead) if lead else "1"
            start = with_spread(row["start_seconds"]) if name == "Lava" else "–"
            rows.append((row["model"], str(row["T"]), name, with_spread(rate), shown, start))
    text = markdown_table(("network", "T", "runs on", "images/s", "engine is faster by", "start, s"), rows)
    if not result["upstream"]:
        return text
    slow = []
    for row in result["upstream"]:
        costs = (*row["seconds_per_image"].values(), row["lava_is_faster_by"])
        slow.append((row["model"], str(row["T"]), str(row["repeats"]), *map(with_spread, costs)))
    header = ("network", "T", "repeats", "lava-dl alone, s/image", "Lava here, s/image", "Lava here is faster by")
    return f"{text}\n{markdown_table(header, slow)}"
