"""How much of the machine's own int8 matrix rate the integer engine reaches, from images to read-outs.

Where the engine does not use int8 (``int8_limit()`` is 0), the float32 rate is measured alone.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.markdown import table as markdown_table
from benchmarks.markdown import with_spread
from benchmarks.networks import exported, sample_images
from benchmarks.timing import Contestant, Effort, interleaved, rates, ratios, seconds
from nqlava.engine.cpu.machine import int8_limit, prepare_int8_product
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, IntegerNetwork

NO_INT8 = "The engine does not use int8 on this processor, so the int8 product was not measured."


def multiplications_by_layer(network: IntegerNetwork, steps: int) -> dict[str, int]:
    """Multiply-accumulates of one image in T steps: poolings add only, and the image's layers count once."""
    found = {}
    for layer in network.layers:
        positions = int(np.prod(network.shape_of[layer.name][1:]))
        weights = [
            c.convolution(network.shape_of[c.source]).weight.size * (1 if c.source == IMAGE else steps)
            for c in layer.connections
        ]
        found[layer.name] = sum(weights) * positions
    return found


def float32_product(size: int) -> Callable[[], object]:
    """A size x size matrix product."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return lambda: a @ b


def int8_product(size: int) -> Callable[[], object]:
    """A uint8 x int8 matrix product of oneDNN with exact sums in float32; the inputs go up to ``int8_limit()``.

    Raises:
        RuntimeError: it computes something else.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, int8_limit() + 1, (size, size), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-127, 128, (size, size), dtype=torch.int8, generator=generator)
    multiply = prepare_int8_product(weight, 1.0, size)
    rows = x[:8].double() @ weight.double().T
    if not torch.equal(multiply(x)[:8].double(), rows.float().double()):
        raise RuntimeError(f"the int8 matrix product of size {size} is wrong")
    return partial(multiply, x)


class AllCores:
    """The same work on all cores at the same time, each with one thread of PyTorch.

    Args:
        make: makes the work of one core.
        cores: how many.
        effort: how long each core works in one run.
    """

    def __init__(self, make: Callable[[], Callable[[], object]], cores: int, effort: Effort) -> None:
        self._works = [make() for _ in range(cores)]
        self._barrier = threading.Barrier(cores)
        self._works[0]()
        # this call has all threads, those of a run have one each
        self.times = max(1, round(effort.seconds / (cores * seconds(self._works[0]))))
        self.calls = self.times * cores

    def __call__(self) -> None:
        with ThreadPoolExecutor(len(self._works)) as pool:
            list(pool.map(self._work, self._works))
        torch.set_num_threads(len(self._works))  # MKL's number is the same in all threads

    def _work(self, call: Callable[[], object]) -> None:
        torch.set_num_threads(1)
        self._barrier.wait()
        for _ in range(self.times):
            call()


def measure(
    model: str, steps: int, sizes: Sequence[int], checkpoints: Mapping[str, Path], effort: Effort
) -> dict[str, Any]:
    """Peak rates in operations (two per multiply-accumulate) per second, and the engine's share of them.

    The share of the int8 rate is None where int8 is not in use.
    """
    threads = torch.get_num_threads()
    network = exported(model, checkpoints)
    engine = Engine(network)
    images = sample_images(64)
    time = seconds(lambda: engine.scores(images, steps)) / len(images)
    images = sample_images(max(len(images), round(effort.seconds / time)))
    operations = 2 * sum(multiplications_by_layer(network, steps).values())
    contestants = {"engine": Contestant(lambda: engine.scores(images, steps), operations * len(images))}
    products = {"int8": int8_product, "float32": float32_product} if int8_limit() else {"float32": float32_product}
    for name, product in products.items():
        for size in sizes:
            work = AllCores(lambda product=product, size=size: product(size), threads, effort)
            contestants[f"{name} {size}"] = Contestant(work, 2 * size**3 * work.calls)
    times = interleaved(contestants, effort.repeats)
    best = {
        name: [min(column) for column in zip(*(times[f"{name} {size}"] for size in sizes), strict=True)]
        for name in products
    }
    shares = {name: ratios(peak, times["engine"]) for name, peak in best.items()}
    return {
        "model": model,
        "T": steps,
        "multiply_accumulates_per_image": operations // 2,
        "operations_per_second": {name: rates(values) for name, values in times.items()},
        "peak": {name: rates(values) for name, values in best.items()},
        "engine_over_int8_peak": shares.get("int8"),
        "engine_over_float32_peak": shares["float32"],
    }


def table(result: dict[str, Any]) -> str:
    """Rates, and the engine's share."""

    def billions(values: Mapping[str, float]) -> str:
        return with_spread({key: value / 1e9 for key, value in values.items()})

    rows = [(f"{name} matrix product, best size", billions(values), "–") for name, values in result["peak"].items()]
    kind = "int8" if "int8" in result["peak"] else "float32"
    share = {key: 100 * value for key, value in result[f"engine_over_{kind}_peak"].items()}
    name = f"engine, {result['model']}, T = {result['T']}, end to end"
    rows.append((name, billions(result["operations_per_second"]["engine"]), f"{with_spread(share)} %"))
    note = "" if kind == "int8" else f"\n{NO_INT8}\n"
    return markdown_table(("what", "10⁹ operations/s", f"of the {kind} peak"), rows) + note
