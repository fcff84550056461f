"""The integer engine against SpikingJelly and plain PyTorch, which compute the same read-outs in float32."""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.markdown import table as markdown_table
from benchmarks.markdown import with_spread
from benchmarks.networks import exported, sample_images
from benchmarks.peers import Peer, PlainPyTorch
from benchmarks.timing import Contestant, Effort, interleaved, rates, ratios, seconds
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork

NO_SPIKINGJELLY = "SpikingJelly is not installed, so its rows are missing: pip install -e '.[benchmark]'"
_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def peers(network: IntegerNetwork) -> dict[str, Peer]:
    """All peers that can be made here, by name."""
    found: dict[str, Peer] = {"PyTorch": PlainPyTorch(network)}
    if importlib.util.find_spec("spikingjelly") is not None:
        from benchmarks.spikingjelly_peer import SpikingJelly

        found |= {f"SpikingJelly '{mode}'": SpikingJelly(network, mode) for mode in ("s", "m")}
    return found


def require_equal(name: str, found: NDArray[np.int32], expected: NDArray[np.int32]) -> None:
    """RuntimeError where a read-out is wrong: what computes something else is not timed."""
    if wrong := np.count_nonzero(found != expected):
        raise RuntimeError(f"{name}: {wrong} of {expected.size} read-outs are wrong")


def fastest_setting(
    name: str, peer: Peer, images: NDArray[np.uint8], expected: NDArray[np.int32], batches: Sequence[int]
) -> tuple[int, float]:
    """Batch size and seconds per image of a peer's fastest setting, which it is left in.

    Both memory formats are tried with the smallest batch, then larger batches as long as they are faster. The read-outs
    of every setting are compared with ``expected``, (N, T, K), first.
    """
    steps = expected.shape[1]

    def per_image(batch: int) -> float:
        require_equal(f"{name}, batch {batch}", peer.scores(images[:batch], steps, batch), expected[:batch])
        return min(seconds(lambda: peer.scores(images[:batch], steps, batch)) for _ in range(2)) / batch

    found = {}
    for memory_format in _FORMATS.values():
        peer.use(memory_format)
        found[memory_format] = per_image(batches[0])
    peer.use(min(found, key=lambda memory_format: found[memory_format]))
    best = (batches[0], min(found.values()))
    for batch in batches[1:]:
        if (time := per_image(batch)) >= best[1]:
            break
        best = (batch, time)
    return best


def compare(network: IntegerNetwork, steps: int, batches: Sequence[int], effort: Effort) -> dict[str, Any]:
    """Images per second of the engine and of its peers, and how many times faster the engine is."""
    engine = Engine(network)
    images = sample_images(max(batches))
    expected = engine.scores(images, steps)
    time = seconds(lambda: engine.scores(images, steps)) / len(images)
    count = max(len(images), round(effort.seconds / time))
    contestants = {"engine": Contestant(partial(engine.scores, sample_images(count), steps), count)}
    settings = {}
    for name, peer in peers(network).items():
        batch, time = fastest_setting(name, peer, images, expected, batches)
        chosen = next(key for key, value in _FORMATS.items() if value == peer.memory_format)
        settings[name] = {"batch": batch, "memory_format": chosen}
        count = batch * max(1, round(effort.seconds / time / batch))
        contestants[name] = Contestant(partial(peer.scores, sample_images(count), steps, batch), count)
    times = interleaved(contestants, effort.repeats)
    return {
        "images_per_second": {name: rates(values) for name, values in times.items()},
        "engine_is_faster_by": {name: ratios(values, times["engine"]) for name, values in times.items()},
        "images_per_run": {name: contestant.work for name, contestant in contestants.items()},
        "settings": settings,
    }


def measure(
    models: Sequence[str], steps: Sequence[int], batches: Sequence[int], checkpoints: Mapping[str, Path], effort: Effort
) -> dict[str, Any]:
    """One row per model and T."""
    rows = []
    for model in models:
        network = exported(model, checkpoints)
        for count in steps:
            row = {"model": model, "T": count, "trained": model in checkpoints}
            rows.append(row | compare(network, count, batches, effort))
            print(f"engine: {model}, T = {count} done", flush=True)
    return {"rows": rows, "note": None if importlib.util.find_spec("spikingjelly") else NO_SPIKINGJELLY}


def table(result: dict[str, Any]) -> str:
    """Images per second, and the engine's lead, by model, T and contestant."""
    rows = []
    for row in result["rows"]:
        for name, rate in row["images_per_second"].items():
            setting = row["settings"].get(name)
            shown = f"{setting['batch']}, {setting['memory_format']}" if setting else "–"
            lead = with_spread(row["engine_is_faster_by"][name]) if setting else "1"
            rows.append((row["model"], str(row["T"]), name, with_spread(rate), lead, shown))
    header = ("network", "T", "runs on", "images/s", "engine is faster by", "batch, memory format")
    return markdown_table(header, rows) + (f"\n{result['note']}\n" if result["note"] else "")
