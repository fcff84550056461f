"""Run a network on a backend and compare it with the integer engine and the reference."""

import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from platform import python_version

import numpy as np

from deploy.compare.job import Job, Part
from deploy.compare.judge import Disagreement, Judge, most_judged
from deploy.compare.tally import Tally
from deploy.errors import CoverageError, LavaMissingError
from deploy.images import channels_first
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.trace import Mismatch, Trace, count_differences, first_difference

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
        deployed, engine: accuracy in percent after each step 1 .. T, of the backend and of the integer engine.
        right: a byte for each image, 1 where the backend's class after step T is right.
        judged: how many of the images were compared with the reference too.
        disagreement: the first difference to the reference, or None.
        mismatches: per layer, how many spikes (membrane potentials in the read-out) differ between backend and engine.
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
    engine: tuple[float, ...]
    right: bytes
    judged: int
    disagreement: Disagreement | None
    mismatches: tuple[int, ...]
    first: Mismatch | None
    spike_rates: tuple[float, ...]
    saturations: tuple[int, ...]
    digest: str
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether backend and engine agree on all images, and both agree with the reference on those that it judged."""
        return not any(self.mismatches) and self.disagreement is None

    def __str__(self) -> str:
        """What was compared with what, on how many images, and the outcome, in a line."""
        if self.disagreement is not None:
            more = f"; Lava and the engine differ in {_count(sum(self.mismatches), 'value')}" if self.first else ""
            return f"NOT EXACT: {self.disagreement}{more}"
        if self.first is not None:
            found = _count(sum(self.mismatches), "value")
            return f"NOT EXACT: Lava and the engine differ in {found}; the first: {self.first}"
        return (
            f"EXACT: Lava = engine in every spike and read-out of {_count(self.samples, 'image')}, "
            f"reference = engine = Lava on {self.judged} of them"
        )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def verdict_of(network: IntegerNetwork, tally: Tally, samples: int) -> Verdict:
    """What the tally says; CoverageError if it is not of exactly ``samples`` samples, or the reference judged none."""
    tally.require_all(samples)
    if not tally.judged:
        raise CoverageError("no sample was compared with the reference; expected: at least one")
    values = [int(np.prod(shape)) * samples * tally.steps for shape in network.shapes[:-1]]
    return Verdict(
        layers=tuple(layer.name for layer in network.layers),
        samples=samples,
        steps=tally.steps,
        deployed=tuple(100 * correct / samples for correct in tally.deployed),
        engine=tuple(100 * correct / samples for correct in tally.engine),
        right=tally.right[0][1],
        judged=tally.judged,
        disagreement=tally.disagreement,
        mismatches=tally.mismatches,
        first=tally.first,
        spike_rates=tuple(spikes / value for spikes, value in zip(tally.spikes, values, strict=True)),
        saturations=tally.saturations,
        digest=f"{tally.digest:064x}",
        seconds=tally.seconds,
    )


def tallies(
    network: IntegerNetwork,
    part: Part,
    steps: int,
    chunks: Generator[Trace, None, None],
    judged: int | None = None,
    *,
    potentials: bool = False,
) -> Generator[Tally, None, None]:
    """Compares traces, as they come, with the integer engine and the reference on the same images: a tally for each.

    Traces are dropped as soon as they are compared, so that the memory does not grow with N.

    Args:
        network: what all three run.
        part: the images and labels.
        steps: T.
        chunks: traces of consecutive samples of the part, together all of it.
        judged: how many of the first of all samples the reference judges; None for as many as it has time for.
        potentials: whether the traces must have v(T) of the samples that the reference may judge.

    Raises:
        CoverageError: traces of another T, or without v(T).
        whatever the backend raises.
    """
    engine, images = Engine(network), channels_first(part.images)
    most = _most_judged(network, part, steps, judged)
    judge = Judge(network, part.images[:most], part.start, timed=judged is None)
    network_digest = network.digest()
    done = 0
    with closing(chunks):  # ends the backend also where the comparison fails
        while True:
            began = time.monotonic()
            trace = next(chunks, None)
            seconds = time.monotonic() - began
            if trace is None:
                break
            if trace.steps != steps:
                raise CoverageError(f"{trace.steps} time steps were run; expected: {steps}")
            if potentials and judge.wanted and trace.membranes is None:
                raise CoverageError("a trace has no membrane potentials; expected: those of the first samples")
            here, number = slice(done, done + trace.samples), part.start + done
            expected = engine.run(images[here], steps, membranes=judge.wanted > 0)
            mismatches = count_differences(expected, trace)
            first = first_difference(network, expected, trace) if any(mismatches) else None
            right, engine_right = (t.readout.argmax(axis=-1) == part.labels[here, None] for t in (trace, expected))
            judge.see(expected, trace)
            seen, disagreement = judge.judge()
            yield Tally(
                right=((number, right[:, -1].tobytes()),),
                judged=seen,
                disagreement=disagreement,
                mismatches=mismatches,
                first=None if first is None else replace(first, sample=number + first.sample),
                spikes=trace.spike_counts(),
                saturations=trace.saturation_counts(),
                deployed=tuple(right.sum(axis=0).tolist()),
                engine=tuple(engine_right.sum(axis=0).tolist()),
                digest=trace.digest(network_digest, number),
                seconds=seconds,
            )
            done = here.stop
    seen, disagreement = judge.judge()  # what had to wait
    if seen:
        yield Tally.of_reference(seen, disagreement, layers=len(network.layers), steps=steps)


def _most_judged(network: IntegerNetwork, part: Part, steps: int, judged: int | None) -> int:
    """How many samples of the part the reference may judge."""
    return most_judged(network, len(part.images), steps, None if judged is None else max(0, judged - part.start))


def compared(job: Job, network: IntegerNetwork, part: Part) -> Generator[Tally, None, None]:
    """Runs the part on the backend and compares it, in this process; errors as of ``backend_traces``."""
    chunks = backend_traces(job, network, part)
    return tallies(network, part, job.steps, chunks, job.judged, potentials=job.backend in ("cpu", "netx"))


def backend_traces(job: Job, network: IntegerNetwork, part: Part) -> Generator[Trace, None, None]:
    """Traces of the part from the backend of the job; Lava is imported only here.

    Raises:
        InputError: the backend cannot run this network.
        LavaMissingError, Loihi2UnavailableError: something is missing.
        LavaRunError: a process failed, was killed or stalled.
    """
    require_lava()
    images, kept = channels_first(part.images), _most_judged(network, part, job.steps, job.judged)
    if job.backend == "cpu":
        from deploy.lava import build

        return build.run(network, images, job.steps, batch=job.batch, processes=job.cores, membranes=kept)
    if job.backend == "stock":
        from deploy.lava import stock

        return stock.run(network, images, job.steps)
    from deploy.lava import netx_network

    if job.backend == "netx":
        return netx_network.run(job.net, images, job.steps, membranes=kept)
    return netx_network.run(job.net, images, job.steps, backend=job.backend)


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
