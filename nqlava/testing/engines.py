"""The integer engine with each of the kernels that it can choose, and with each way to cut its work."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from nqlava import reference
from nqlava.engine.integer import Engine
from nqlava.engine.torch_network import TorchNetwork
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace

KINDS = ("fastest", "float32", "float64", "events", "three threads", "small parts", "pytorch")


_SMALL = {"network._SAMPLES": 2, "network._STEPS": 2, "layer._CACHED_BYTES": 500, "layer.SEGMENT": 7}
_NO_INT8 = {"cpu.synapses.int8_limit": lambda: 0}
_CHANGED: Mapping[str, Mapping[str, object]] = {
    "float32": _NO_INT8,
    "float64": _NO_INT8 | {"cpu.layer.EXACT_FLOAT32": 0},  # no sum counts as small
    "events": {"cpu.synapses.Events.break_even": lambda *_: 9.0},  # however many there are
    "small parts": {f"cpu.{name}": value for name, value in _SMALL.items()},
    "pytorch": {"integer.CpuNetwork": lambda network: TorchNetwork(network, torch.device("cpu"))},  # as on GPUs
}
"""What of nqlava.engine is replaced."""


@contextmanager
def kernels(kind: str) -> Iterator[Callable[[IntegerNetwork], Engine]]:
    """How to make an engine that computes with the given kernels."""
    threads = torch.get_num_threads()
    with ExitStack() as changes:
        for name, value in _CHANGED.get(kind, {}).items():
            changes.enter_context(patch(f"nqlava.engine.{name}", value))
        torch.set_num_threads(3 if kind == "three threads" else 1)
        changes.callback(torch.set_num_threads, threads)
        yield Engine


def judged(network: IntegerNetwork, images: NDArray[np.uint8], steps: int) -> list[reference.Run]:
    """What the reference computes of images (N, C, H, W)."""
    return [reference.run(network, image, steps) for image in images]


def saturations(expected: list[reference.Run]) -> tuple[int, ...]:
    """Per layer, of all images."""
    return tuple(map(sum, zip(*(run.saturations for run in expected), strict=True)))


def assert_same(expected: list[reference.Run], got: Trace) -> None:
    """Every spike, every read-out, the saturations and, where the trace has them, the potentials at the end."""
    assert got.samples == len(expected)
    if not expected:
        return
    for index in range(len(got.spikes)):
        np.testing.assert_array_equal(got.layer_spikes(index), np.stack([run.spikes[index] for run in expected]))
        if got.membranes is not None:
            potentials = np.stack([run.potentials[index] for run in expected])
            np.testing.assert_array_equal(got.layer_membranes(index), potentials)
    np.testing.assert_array_equal(got.readout, np.stack([run.readout for run in expected]))
    np.testing.assert_array_equal(got.saturations.T, [run.saturations for run in expected])
