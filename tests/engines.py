"""The integer engine with each of the kernels that it can choose, and with each way to cut its work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from deploy.integer import IntegerEngine
from deploy.torch_network import TorchNetwork
from deploy.trace import Trace
from export.network import IntegerNetwork
from tests.oracle import Run

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


def assert_same(expected: Run, got: Trace) -> None:
    """Every spike, every read-out, the saturations and, where the trace has them, the potentials at the end."""
    for index, values in enumerate(expected.spikes):
        np.testing.assert_array_equal(got.layer_spikes(index), values)
        if got.membranes is not None:
            np.testing.assert_array_equal(got.layer_membranes(index), expected.membranes[index])
    np.testing.assert_array_equal(got.readout, expected.readout)
    assert got.saturations == tuple(expected.saturations)
