"""The integer engine with each of the kernels that it can choose, and with each way to cut its work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from deploy.integer import IntegerEngine
from deploy.job import Part
from deploy.torch_network import TorchNetwork
from deploy.trace import Trace
from export.network import IntegerNetwork
from nqlava import reference

KINDS = ("fastest", "float32", "float64", "events", "three threads", "small parts", "pytorch")


@contextmanager
def kernels(kind: str) -> Iterator[Callable[[IntegerNetwork], IntegerEngine]]:
    """How to make an engine that computes with the given kernels."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        if kind in ("float32", "float64"):
            patch.setattr("deploy.cpu.synapses.int8_limit", lambda: 0)
        if kind == "float64":  # no sum counts as small
            patch.setattr("deploy.cpu.layer.EXACT_FLOAT32", 0)
        if kind == "events":  # however many there are
            patch.setattr("deploy.cpu.synapses.Events.break_even", lambda *_: 9.0)
        if kind == "small parts":
            patch.setattr("deploy.cpu.network._SAMPLES", 2)
            patch.setattr("deploy.cpu.network._STEPS", 2)
            patch.setattr("deploy.cpu.layer._CACHED_BYTES", 500)
            patch.setattr("deploy.cpu.layer.SEGMENT", 7)
        if kind == "pytorch":  # what runs on GPUs
            patch.setattr("deploy.integer.CpuNetwork", lambda network: TorchNetwork(network, torch.device("cpu")))
        try:
            torch.set_num_threads(3 if kind == "three threads" else 1)
            yield IntegerEngine
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
