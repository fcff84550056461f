"""Run a network on a backend and hold every spike and read-out against the integer engine."""

import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from platform import python_version

import numpy as np
from numpy.typing import NDArray

from deploy.errors import LavaMissingError
from deploy.integer import IntegerEngine
from deploy.tally import Tally, merge
from deploy.trace import Mismatch, Trace, count_differences, first_difference
from export.network import IntegerNetwork

_INSTALL = "pip install -e '.[lava]' -c constraints.txt"
_SETS_METHOD = "lava.magma.runtime.message_infrastructure.multiprocessing"
if sys.version_info >= (3, 11):
    _INSTALL += "; pip install --no-deps --ignore-requires-python lava-nc==0.10.0"


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
        digest: of the network, all spikes and all read-outs of the backend (docs/semantics.md), 64 hexadecimal digits.
        seconds: time in the backend, its start included, comparison excluded; summed over processes.
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
    digest: str
    seconds: float

    @property
    def exact(self) -> bool:
        return not any(self.mismatches)


def verdict_of(network: IntegerNetwork, tally: Tally, samples: int) -> Verdict:
    """What the tally of all ``samples`` samples says; CoverageError if it is not of exactly these."""
    tally.require_all(samples)
    values = [int(np.prod(shape)) * samples * tally.steps for shape in network.shapes[:-1]]
    return Verdict(
        layers=tuple(layer.name for layer in network.layers),
        samples=samples,
        steps=tally.steps,
        deployed=tuple(100 * correct / samples for correct in tally.deployed),
        reference=tuple(100 * correct / samples for correct in tally.reference),
        mismatches=tally.mismatches,
        first=tally.first,
        spike_rates=tuple(spikes / value for spikes, value in zip(tally.spikes, values, strict=True)),
        saturations=tally.saturations,
        digest=f"{tally.digest:064x}",
        seconds=tally.seconds,
    )


def tallies(
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    chunks: Generator[Trace, None, None],
    start: int = 0,
) -> Generator[Tally, None, None]:
    """Compare the traces of a backend, as they come, with the integer engine on the same images: a tally for each.

    Traces are dropped as soon as they are compared, so that the memory does not grow with N.

    Args:
        network: what both run.
        images: uint8 (N, C, H, W). labels: (N,).
        chunks: traces of consecutive samples, together N.
        start: number of the first of these samples among all.

    Raises:
        whatever the backend raises.
    """
    engine = IntegerEngine(network)
    network_digest = network.digest()
    done = 0
    with closing(chunks):  # ends the backend also where the comparison fails
        while True:
            began = time.monotonic()
            trace = next(chunks, None)
            seconds = time.monotonic() - began
            if trace is None:
                return
            part = slice(done, done + trace.samples)
            reference = engine.run(images[part], trace.steps)
            mismatches = count_differences(reference, trace)
            first = first_difference(network, reference, trace) if any(mismatches) else None
            deployed, expected = ((t.classes() == labels[part, None]).sum(axis=0).tolist() for t in (trace, reference))
            yield Tally(
                ranges=((start + part.start, start + part.stop),),
                mismatches=mismatches,
                first=None if first is None else replace(first, sample=start + part.start + first.sample),
                spikes=trace.spike_counts(),
                saturations=trace.saturations,
                deployed=tuple(deployed),
                reference=tuple(expected),
                digest=trace.digest(network_digest, start + part.start),
                seconds=seconds,
            )
            done = part.stop


def verify(
    network: IntegerNetwork, images: NDArray[np.uint8], labels: NDArray[np.int64], chunks: Generator[Trace, None, None]
) -> Verdict:
    """The verdict on all images; arguments and errors as of ``tallies``, and CoverageError if traces are missing."""
    return verdict_of(network, merge(tallies(network, images, labels, chunks)), len(images))


def backend_traces(
    backend: str,
    path: Path,
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    steps: int,
    batch: int,
    cores: int,
) -> Generator[Trace, None, None]:
    """Traces of ``images`` from the backend "cpu", "netx", "stock" or "loihi2"; Lava is imported only here.

    ``batch`` and ``cores``, over which the layers are spread, matter to "cpu".
    """
    require_lava()
    if backend == "cpu":
        from deploy.lava import build

        return build.run(network, images, steps, batch=batch, processes=cores)
    if backend == "stock":
        from deploy.lava import stock

        return stock.run(network, images, steps)
    from deploy.lava import netx_network

    return netx_network.run(path, images, steps, backend="cpu" if backend == "netx" else backend)


def _lava_is_installed() -> bool:
    """Whether a module of lava-nc is there; folders alone may be left of a Lava that was uninstalled."""
    try:
        return importlib.util.find_spec("lava.magma.core.process.process") is not None
    except ModuleNotFoundError:
        return False


def require_lava() -> None:
    """To be called before Lava is imported; LavaMissingError where it is not installed.

    Importing Lava sets the start method to fork, and fails where something, such as a progress bar, did before.
    """
    if not _lava_is_installed():
        raise LavaMissingError(f"Lava is not installed: {_INSTALL} (docs/install.md)")
    if _SETS_METHOD not in sys.modules and multiprocessing.get_start_method(allow_none=True) is not None:
        multiprocessing.set_start_method(None, force=True)


def require_lava_dl(option: str, instead: str) -> None:
    """LavaMissingError where lava-dl is not installed, which ``option`` needs; ``instead`` says what does without."""
    if importlib.util.find_spec("lava.lib") is None or importlib.util.find_spec("lava.lib.dl") is None:
        raise LavaMissingError(
            f"{option} needs lava-dl, which is not installed; it needs Python 3.10, and this is {python_version()} "
            f"(docs/install.md); {instead}"
        )
