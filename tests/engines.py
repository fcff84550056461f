"""The integer engine with each of the kernels that it can choose, and with each way to cut its work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from deploy.compare.job import Part
from nqlava import reference
from nqlava.engine.integer import Engine
from nqlava.engine.torch_network import TorchNetwork
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace

KINDS = ("fastest", "float32", "float64", "events", "three threads", "small parts", "pytorch")


@contextmanager
def kernels(kind: str) -> Iterator[Callable[[IntegerNetwork], Engine]]:
    """How to make an engine that computes with the given kernels."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        if kind in ("float32", "float64"):
            patch.setattr("nqlava.engine.cpu.synapses.int8_limit", lambda: 0)
        if kind == "float64":  # no sum counts as small
            patch.setattr("nqlava.engine.cpu.layer.EXACT_FLOAT32", 0)
        if kind == "events":  # however many there are
            patch.setattr("nqlava.engine.cpu.synapses.Events.break_even", lambda *_: 9.0)
        if kind == "small parts":
            patch.setattr("nqlava.engine.cpu.network._SAMPLES", 2)
            patch.setattr("nqlava.engine.cpu.network._STEPS", 2)
            patch.setattr("nqlava.engine.cpu.layer._CACHED_BYTES", 500)
            patch.setattr("nqlava.engine.cpu.layer.SEGMENT", 7)
        if kind == "pytorch":  # what runs on GPUs
            patch.setattr(
                "nqlava.engine.integer.CpuNetwork", lambda network: TorchNetwork(network, torch.device("cpu"))
            )
        try:
            torch.set_num_threads(3 if kind == "three threads" else 1)
            yield Engine
        finally:
            torch.set_num_threads(threads)


def judged(network: IntegerNetwork, images: np.ndarray, steps: int) -> list[reference.Run]:
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


def part_of(images: np.ndarray, labels: np.ndarray | None = None, start: int = 0) -> Part:
    """Images (N, C, H, W) as a part of a run."""
    return Part(start, images.transpose(0, 2, 3, 1), np.zeros(len(images), np.int64) if labels is None else labels)
