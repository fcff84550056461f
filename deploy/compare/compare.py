"""Compare what a backend computed with the integer engine and the reference."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from math import prod

import torch

from deploy.compare.backends import traces
from deploy.compare.judge import Judge
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict
from deploy.errors import CoverageError
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace, count_differences, first_difference


def run_part(settings: Settings, part: Part) -> Generator[Verdict, None, None]:
    """Reads the file and runs the part in this process; a verdict for each chunk of samples.

    Raises:
        InputError: another network is in the file now; and what netx.read and ``compared`` raise.
    """
    torch.set_num_threads(settings.cores)
    network = netx.read(settings.net)
    if network.digest() != settings.digest:
        raise InputError(
            f"{settings.net}: network {network.digest()[:16]}; allowed: {settings.digest[:16]}, as at the start"
        )
    return compared(settings, network, part)


def compared(settings: Settings, network: IntegerNetwork, part: Part) -> Generator[Verdict, None, None]:
    """Runs the part on the backend and compares it, in this process; errors as of deploy.compare.backends.traces."""
    judge = Judge(network, part, settings)
    chunks = traces(settings, network, part.images, membranes=judge.wanted)
    return compare_traces(settings, network, part, chunks, judge)


def compare_traces(
    settings: Settings, network: IntegerNetwork, part: Part, chunks: Generator[Trace, None, None], judge: Judge
) -> Generator[Verdict, None, None]:
    """Compares traces, as they come, with the integer engine and the reference on the same images: a verdict for each.

    Traces are dropped as soon as they are compared, so that the memory does not grow with N.

    Args:
        settings: of the run.
        network: what all three run.
        part: the images and labels.
        chunks: traces of consecutive samples of the part, together all of it.
        judge: of the part.

    Raises:
        CoverageError: traces of another T, or without v(T) where the backend leaves it.
        errors of the backend.
    """
    engine, network_digest, steps = Engine(network), network.digest(), settings.T
    leaves_potentials, target = settings.backend in ("cpu", "netx", "c"), settings.target
    layers, neurons = tuple(layer.name for layer in network.layers), tuple(map(prod, network.shapes))
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
            if leaves_potentials and judge.wanted and trace.membranes is None:
                raise CoverageError("a trace has no membrane potentials; expected: those of the first samples")
            here, number = slice(done, done + trace.samples), part.start + done
            expected = engine.run(part.images[here], steps, membranes=judge.wanted > 0)
            mismatches = count_differences(expected, trace)
            first = first_difference(network, expected, trace) if any(mismatches) else None
            right, engine_right = (t.classes() == part.labels[here, None] for t in (trace, expected))
            judge.see(expected, trace)
            judged, disagreement = judge.judge()
            yield Verdict(
                layers=layers,
                neurons=neurons,
                ranges=((number, right[:, -1].tobytes()),),
                judged=judged,
                disagreement=disagreement and replace(disagreement, target=target),
                mismatches=mismatches,
                first=None if first is None else replace(first, sample=number + first.sample),
                spikes=trace.spike_counts(),
                saturations=trace.saturation_counts(),
                correct=tuple(right.sum(axis=0).tolist()),
                engine_correct=tuple(engine_right.sum(axis=0).tolist()),
                total=trace.digest(network_digest, number),
                seconds=seconds,
                target=target,
            )
            done = here.stop
    judged, disagreement = judge.judge()  # what had to wait
    if judged:
        none, no_steps = (0,) * len(layers), (0,) * steps
        found = disagreement and replace(disagreement, target=target)
        counts = (none, None, none[1:], none, no_steps, no_steps, 0, 0.0)
        yield Verdict(layers, neurons, (), judged, found, *counts, target=target)
