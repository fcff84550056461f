"""Run a network on a backend and hold every spike and read-out against the integer engine."""

import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.errors import LavaMissingError
from deploy.integer import IntegerEngine
from deploy.trace import Mismatch, Trace, count_differences, first_difference
from export.network import IntegerNetwork


@dataclass(frozen=True)
class Verdict:
    """What a run showed.

    Attributes:
        layers: names, the read-out last.
        samples, steps: how many images, and T.
        deployed, reference: accuracy in percent after each step 1 .. T, of the backend and of the integer engine.
        mismatches: per layer, how many spikes (membrane potentials in the read-out) differ.
        first: the first mismatch, or None.
        spike_rates: per spiking layer, spikes per neuron and step.
        saturations: per layer, clipped membrane potentials.
        seconds: time in the backend, its start included, comparison excluded.
    """

    layers: tuple[str, ...]
    samples: int
    steps: int
    deployed: tuple[float, ...]
    reference: tuple[float, ...]
    mismatches: tuple[int, ...]
    first: Mismatch | None
    spike_rates: tuple[float, ...]
    saturations: tuple[int, ...]
    seconds: float

    @property
    def exact(self) -> bool:
        return not any(self.mismatches)


def verify(
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    chunks: Iterator[Trace],
    on_progress: Callable[[int, float], None] | None = None,
) -> Verdict:
    """Compare the traces of a backend, as they come, with the integer engine on the same images.

    Args:
        network: what both run.
        images: uint8 (N, C, H, W). labels: (N,).
        chunks: traces of consecutive samples, together N.
        on_progress: called with the samples compared so far and the accuracy at T so far in percent.

    Raises:
        whatever the backend raises; RuntimeError where it returns another number of samples.
    """
    engine = IntegerEngine(network)
    neurons = [int(np.prod(shape)) for shape in network.shapes[:-1]]
    done, seconds = 0, 0.0
    steps = 0
    first: Mismatch | None = None
    mismatches = np.zeros(len(network.layers), np.int64)
    saturations = np.zeros(len(network.layers), np.int64)
    spikes = np.zeros(len(neurons), np.int64)
    correct: list[NDArray[np.int64]] = []
    while True:
        began = time.monotonic()
        trace = next(chunks, None)
        seconds += time.monotonic() - began
        if trace is None:
            break
        part = slice(done, done + trace.samples)
        reference = engine.run(images[part], trace.steps)
        mismatches += count_differences(reference, trace)
        saturations += trace.saturations
        spikes += trace.spike_counts()
        if first is None and mismatches.any():
            found = first_difference(network, reference, trace)
            if found is not None:
                first = Mismatch(found.sample + done, found.layer, found.step, found.neuron, found.expected, found.got)
        hits = [(t.classes() == labels[part, None]).sum(axis=0) for t in (trace, reference)]
        correct.append(np.stack(hits))
        done += trace.samples
        steps = trace.steps
        if on_progress is not None:
            on_progress(done, 100 * float(sum(c[0, -1] for c in correct)) / done)
    if done != len(images):
        raise RuntimeError(f"the backend returned {done} samples of {len(images)}")
    deployed, reference_accuracy = (np.sum(correct, axis=0) * 100 / done).tolist()
    return Verdict(
        layers=tuple(layer.name for layer in network.layers),
        samples=done,
        steps=steps,
        deployed=tuple(deployed),
        reference=tuple(reference_accuracy),
        mismatches=tuple(mismatches.tolist()),
        first=first,
        spike_rates=tuple(float(s) / (n * done * steps) for s, n in zip(spikes, neurons, strict=True)),
        saturations=tuple(saturations.tolist()),
        seconds=seconds,
    )


def backend_traces(
    backend: str, path: Path, network: IntegerNetwork, images: NDArray[np.uint8], steps: int, batch: int
) -> Iterator[Trace]:
    """Traces of ``images`` from the backend "cpu", "netx", "stock" or "loihi2"; Lava is imported only here."""
    if importlib.util.find_spec("lava") is None:
        raise LavaMissingError(
            "Lava is not installed; it needs Python 3.10: pip install -e '.[lava]' -c constraints.txt"
        )
    _let_lava_choose_the_start_method()
    if backend == "cpu":
        from deploy.lava import build

        return build.run(network, images, steps, batch=batch)
    if backend == "stock":
        from deploy.lava import stock

        return stock.run(network, images, steps)
    from deploy.lava import netx_network

    return netx_network.run(path, images, steps, backend="cpu" if backend == "netx" else backend)


def _let_lava_choose_the_start_method() -> None:
    """Importing Lava sets the start method to fork, and fails where something, such as a progress bar, did before."""
    if "lava" not in sys.modules and multiprocessing.get_start_method(allow_none=True) is not None:
        multiprocessing.set_start_method(None, force=True)
