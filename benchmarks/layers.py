"""Where the integer engine's time goes: synapses and neurons of every layer, on one core."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.markdown import significant
from benchmarks.markdown import table as markdown_table
from benchmarks.networks import exported, sample_images
from benchmarks.peak import multiplications_by_layer
from benchmarks.timing import Effort, seconds, spread
from nqlava.engine.cpu import layer as cpu_layer
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork

PARTS = ("synapses", "neurons", "rest")


class _Clock:
    """Seconds by layer and part, of calls that it is put around.

    Args:
        network: whose layers run in order, again and again, on one thread.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        self._names = [layer.name for layer in network.layers]
        self._next = 0
        self.seconds = {name: dict.fromkeys(PARTS, 0.0) for name in self._names}

    def part(self, name: str, function: Callable) -> Callable:
        """The function, with its time counted as that part of the layer at hand, and no longer as its rest."""

        def timed(*arguments: Any, **options: Any) -> Any:
            results = []
            time = seconds(lambda: results.append(function(*arguments, **options)))
            layer = self.seconds[self._names[self._next]]
            layer[name] += time
            layer["rest"] -= time
            return results[0]

        return timed

    def layer(self, function: Callable) -> Callable:
        """The function, with its time counted as the rest of one layer after the other."""

        def timed(*arguments: Any, **options: Any) -> None:
            time = seconds(lambda: function(*arguments, **options))
            self.seconds[self._names[self._next]]["rest"] += time
            self._next = (self._next + 1) % len(self._names)

        return timed


@contextmanager
def _watched(clock: _Clock) -> Iterator[None]:
    """Puts the clock around layers, synapses and neurons."""
    with ExitStack() as stack:
        for owner, name, wrap in (
            (cpu_layer.CpuLayer, "advance", clock.layer),
            (cpu_layer.Synapses, "sums", lambda f: clock.part("synapses", f)),
            (cpu_layer, "integrate_fire", lambda f: clock.part("neurons", f)),
            (cpu_layer, "integrate", lambda f: clock.part("neurons", f)),
        ):
            stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))
        yield


def measure(model: str, steps: int, images: int, checkpoints: Mapping[str, Path], effort: Effort) -> dict[str, Any]:
    """Milliseconds per image of every layer's parts, and multiply-accumulates per image; one thread."""
    network, pixels = exported(model, checkpoints), sample_images(images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engine = Engine(network)
        engine.scores(pixels, steps)
        repeats = []
        for _ in range(effort.repeats):
            clock = _Clock(network)
            with _watched(clock):
                engine.scores(pixels, steps)
            repeats.append(clock.seconds)
    finally:
        torch.set_num_threads(threads)
    work = multiplications_by_layer(network, steps)
    return {
        "model": model,
        "T": steps,
        "layers": {
            name: {
                "multiply_accumulates": work[name],
                "milliseconds": {
                    part: spread([1e3 * repeat[name][part] / images for repeat in repeats]) for part in PARTS
                },
            }
            for name in work
        },
    }


def table(result: dict[str, Any]) -> str:
    """Median milliseconds per image of the parts, their sum over the layers, and rates of the synapses."""
    layers = result["layers"]
    medians = {name: {p: v["median"] for p, v in layer["milliseconds"].items()} for name, layer in layers.items()}
    work = {name: layer["multiply_accumulates"] for name, layer in layers.items()}
    medians["all"] = {part: sum(times[part] for times in medians.values()) for part in PARTS}
    work["all"] = sum(work.values())
    rows = [
        (
            name,
            significant(work[name] / 1e6),
            *(f"{times[part]:.3f}" for part in PARTS),
            significant(2 * work[name] / times["synapses"] / 1e6),
        )
        for name, times in medians.items()
    ]
    header = ("layer", "10⁶ multiplications", *(f"{part}, ms" for part in PARTS), "10⁹ operations/s of synapses")
    return f"{result['model']}, T = {result['T']}, one core, per image.\n\n" + markdown_table(header, rows)
