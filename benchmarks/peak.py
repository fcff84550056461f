"""How much of the machine's own int8 matrix rate the integer engine reaches, from images to read-outs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.markdown import table as markdown_table
from benchmarks.markdown import with_spread
from benchmarks.networks import exported, sample_images
from benchmarks.timing import Contestant, Effort, interleaved, rates, ratios, seconds
from deploy.integer import IntegerEngine
from deploy.pooling import unfold
from export.network import IMAGE, IntegerNetwork


def multiplications_by_layer(network: IntegerNetwork, steps: int) -> dict[str, int]:
    """Multiply-accumulates of one image in T steps: poolings add only, and the image's layers count once."""
    found = {}
    for layer in network.layers:
        positions = int(np.prod(network.shape_of[layer.name][1:]))
        weights = [
            unfold(c, network.shape_of[c.source]).weight.size * (1 if c.source == IMAGE else steps)
            for c in layer.connections
        ]
        found[layer.name] = sum(weights) * positions
    return found


def float32_product(size: int) -> Callable[[], object]:
    """A size x size matrix product."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return lambda: a @ b


def int8_product(size: int) -> Callable[[], object]:
    """A uint8 x int8 matrix product of oneDNN with exact sums in float32.

    Raises:
        RuntimeError: it computes something else.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (size, size), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-127, 128, (size, size), dtype=torch.int8, generator=generator)
    prepared = torch.ops.onednn.qlinear_prepack(weight, [size, size])
    scale, zero = torch.ones(size), torch.zeros(size, dtype=torch.int64)

    def product() -> torch.Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, prepared, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )

    rows = x[:8].double() @ weight.double().T
    if not torch.equal(product()[:8].double(), rows.float().double()):
        raise RuntimeError(f"the int8 matrix product of size {size} is wrong")
    return product


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
    """Peak rates in operations (two per multiply-accumulate) per second, and the engine's share of the int8 one."""
    threads = torch.get_num_threads()
    network = exported(model, checkpoints)
    engine = IntegerEngine(network)
    images = sample_images(64)
    time = seconds(lambda: engine.scores(images, steps)) / len(images)
    images = sample_images(max(len(images), round(effort.seconds / time)))
    operations = 2 * sum(multiplications_by_layer(network, steps).values())
    contestants = {"engine": Contestant(lambda: engine.scores(images, steps), operations * len(images))}
    for name, product in (("int8", int8_product), ("float32", float32_product)):
        for size in sizes:
            work = AllCores(lambda product=product, size=size: product(size), threads, effort)
            contestants[f"{name} {size}"] = Contestant(work, 2 * size**3 * work.calls)
    times = interleaved(contestants, effort.repeats)
    best = {
        name: [min(column) for column in zip(*(times[f"{name} {size}"] for size in sizes), strict=True)]
        for name in ("int8", "float32")
    }
    return {
        "model": model,
        "T": steps,
        "multiply_accumulates_per_image": operations // 2,
        "operations_per_second": {name: rates(values) for name, values in times.items()},
        "peak": {name: rates(values) for name, values in best.items()},
        "engine_over_int8_peak": ratios(best["int8"], times["engine"]),
        "engine_over_float32_peak": ratios(best["float32"], times["engine"]),
    }


def table(result: dict[str, Any]) -> str:
    """Rates, and the engine's share."""

    def billions(values: Mapping[str, float]) -> str:
        return with_spread({key: value / 1e9 for key, value in values.items()})

    rows = [(f"{name} matrix product, best size", billions(values), "–") for name, values in result["peak"].items()]
    share = {key: 100 * value for key, value in result["engine_over_int8_peak"].items()}
    name = f"engine, {result['model']}, T = {result['T']}, end to end"
    rows.append((name, billions(result["operations_per_second"]["engine"]), f"{with_spread(share)} %"))
    return markdown_table(("what", "10⁹ operations/s", "of the int8 peak"), rows)
