"""The third column: what the engine and Lava computed, compared with the reference, image by image.

The comparison unpacks and orders bits itself, so that a fault in what the engine and Lava share cannot hide in it.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.compare.part import Part
from deploy.compare.settings import Settings
from nqlava import reference
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace


@dataclass(frozen=True)
class Disagreement:
    """One place where the engine or Lava differs from the reference.

    Attributes:
        sample: from 0.
        what: a value, in words, such as "layer conv1, step 2, spike of neuron (0, 3, 1)".
        expected: by the reference.
        engine, lava: what they have; None where they leave no such value.
        target: what was run in the place of Lava.
    """

    sample: int
    what: str
    expected: int
    engine: int | None
    lava: int | None
    target: str = "Lava"

    def __str__(self) -> str:
        columns = (("reference", self.expected), ("engine", self.engine), (self.target, self.lava))
        values = ", ".join(f"{name} {_shown(value)}" for name, value in columns if value is not None)
        return f"sample {self.sample}, {self.what}: {values}"


SECONDS = 3.0
"""What the reference may take by default, if the rest of the run takes as long."""
_KEPT = 2**26
"""Bytes of v(T) and spikes kept for the reference by default."""


def _shown(value: int) -> str:
    """A number; of a digest the first digits."""
    return str(value) if abs(value) < 2**64 else f"{value:064x}"[:16]


def most_judged(network: IntegerNetwork, part: Part, settings: Settings) -> int:
    """How many of the first samples of the part the reference may judge: those asked for, else what fits in memory."""
    if settings.reference_samples is not None:
        return min(len(part.images), max(0, settings.reference_samples - part.start))
    neurons = sum(int(np.prod(shape)) for shape in network.shapes)
    each = neurons * (4 + settings.T // 8)  # v(T), and spikes as bits
    return min(len(part.images), max(1, _KEPT // each))


class Judge:
    """Compares the first samples of a run with the reference, as their traces come and as time allows.

    By default it judges at least one sample, and more until it has spent SECONDS, or as much time as the rest of the
    run. The clock starts when the judge is made. What has to wait is kept. The images are copied at once, so that
    nothing that runs later can change what the judge sees.

    Args:
        network: what is run.
        part: the samples.
        settings: of the run; reference_samples judges so many of all samples, however long it takes.

    Attributes:
        judged: number of samples so far.
    """

    def __init__(self, network: IntegerNetwork, part: Part, settings: Settings) -> None:
        self._network, self._start, self._timed = network, part.start, settings.reference_samples is None
        self._digest = network.digest()
        self._most = most_judged(network, part, settings)
        self._images = part.images[: self._most].copy()
        self._began, self._spent = time.monotonic(), 0.0
        self._waiting: deque[tuple[Trace, Trace]] = deque()
        self.judged = 0

    @property
    def wanted(self) -> int:
        """How many more samples may be judged."""
        return self._most - self.judged - sum(engine.samples for engine, _ in self._waiting)

    def see(self, engine: Trace, lava: Trace) -> None:
        """Takes the traces of the next samples, with v(T), as far as they are wanted."""
        taken = slice(min(self.wanted, engine.samples))
        if taken.stop:
            self._waiting.append((engine.part(taken), lava.part(taken)))

    def judge(self) -> tuple[int, Disagreement | None]:
        """Judges what waits while there is time: how many samples it did, and the first disagreement."""
        first, before = None, self.judged
        while self._waiting and self._has_time():
            first = first or self._judge_chunk(*self._waiting.popleft())
        return self.judged - before, first

    def _judge_chunk(self, engine: Trace, lava: Trace) -> Disagreement | None:
        """Judges samples of a chunk one by one, and then together, as the run counts them; what is left waits on."""
        first, runs, number = None, list[reference.Run](), self._start + self.judged
        while len(runs) < engine.samples and self._has_time():
            began, one = time.monotonic(), slice(len(runs), len(runs) + 1)
            runs.append(reference.run(self._network, self._images[self.judged], engine.steps))
            traces = engine.part(one), lava.part(one)
            first = first or compare(self._network, runs[-1], *traces, number=self._start + self.judged)
            self.judged += 1
            self._spent += time.monotonic() - began
        done, left = slice(len(runs)), slice(len(runs), None)
        parts = engine.part(done), lava.part(done)
        first = first or compare_together(self._network, runs, *parts, number=number, digest=self._digest)
        if self._timed and self._spent >= SECONDS:
            self._most = self.judged
            self._waiting.clear()
        elif len(runs) < engine.samples:
            self._waiting.appendleft((engine.part(left), lava.part(left)))
        return first

    def _has_time(self) -> bool:
        rest = time.monotonic() - self._began - self._spent
        return not self._timed or self.judged == 0 or self._spent < min(SECONDS, rest)


def compare(
    network: IntegerNetwork, expected: reference.Run, engine: Trace, lava: Trace, *, number: int
) -> Disagreement | None:
    """The first difference of one sample, in the order of the layers; None where all three are equal.

    Compared are the spikes of every layer at every step, v(T), the read-outs, classes and saturations. v(T) and
    saturations are compared where the traces have them: in Lava only neurons of this project leave them.

    Args:
        network: what was run.
        expected: what the reference computes.
        engine, lava: traces of this sample alone.
        number: of the sample among all.
    """
    for what, value, *found in _values(network, expected, engine, lava):
        for one in found:
            if one is not None and one.shape != value.shape:
                raise ValueError(f"{what}: shape is {one.shape}; expected {value.shape}")
        wrong = np.any([one != value for one in found if one is not None], axis=0)
        if wrong.any():
            place = tuple(int(n) for n in np.argwhere(wrong)[0])
            ours, theirs = (None if one is None else int(one[place]) for one in found)
            return Disagreement(number, _place(what, place), int(value[place]), ours, theirs)
    return None


def compare_together(
    network: IntegerNetwork, runs: Sequence[reference.Run], engine: Trace, lava: Trace, *, number: int, digest: str
) -> Disagreement | None:
    """The first difference in what the run says of several samples: digest, classes, counts of spikes and saturations.

    Args:
        network: what was run.
        runs: what the reference computes of the samples.
        engine, lava: traces of these samples.
        number: of the first of them among all.
        digest: of the network.
    """
    traces = engine, lava
    digests = sum(reference.digest(digest, number + index, run) for index, run in enumerate(runs)) % 2**256
    rows = [("digest", digests, [trace.digest(digest, number) for trace in traces])]
    for index, layer in enumerate(network.layers[:-1]):
        spikes = sum(int(run.spikes[index].sum()) for run in runs)
        rows.append((f"spikes of layer {layer.name}", spikes, [trace.spike_counts()[index] for trace in traces]))
    for index, layer in enumerate(network.layers):
        clips = sum(run.saturations[index] for run in runs)
        counts = [trace.saturation_counts()[index] for trace in traces]
        rows.append((f"saturations of layer {layer.name}", clips, counts if lava.membranes is not None else counts[:1]))
    for index, run in enumerate(runs):
        rows.append((f"class of sample {index}", int(run.classes[-1]), [int(t.classes()[index, -1]) for t in traces]))
    for what, expected, (one, *two) in rows:
        if [one, *two] != [expected] * (1 + len(two)):
            return Disagreement(number, f"{what}, {len(runs)} samples together", expected, one, two[0] if two else None)
    return None


_Row = tuple[str, NDArray, NDArray | None, NDArray | None]


def _values(network: IntegerNetwork, expected: reference.Run, engine: Trace, lava: Trace) -> Iterator[_Row]:
    """Name, reference, engine and Lava of everything that is compared, in the order of the layers."""
    for index, layer in enumerate(network.layers[:-1]):
        spikes, final = expected.spikes[index], expected.potentials[index]
        fired = [_spikes(trace.spikes[index][0], spikes.shape) for trace in (engine, lava)]
        yield f"layer {layer.name}, step {{}}, spike of neuron", spikes, fired[0], fired[1]
        left = [_potentials(trace, index, final.shape) for trace in (engine, lava)]
        yield f"layer {layer.name}, potential after the last step of neuron", final, left[0], left[1]
    name = network.layers[-1].name
    yield f"layer {name}, step {{}}, read-out of class", expected.readout, engine.readout[0], lava.readout[0]
    chosen = [trace.classes()[0] for trace in (engine, lava)]
    yield "class after step {}", expected.classes, chosen[0], chosen[1]
    clips = None if lava.membranes is None else lava.saturations[:, 0]
    yield "saturations of layer", np.array(expected.saturations), engine.saturations[:, 0], clips


def _place(what: str, place: tuple[int, ...]) -> str:
    """The name with the step, from 1, and the neuron."""
    if "{}" in what:
        what, place = what.format(place[0] + 1), place[1:]
    return f"{what} {place[0] if len(place) == 1 else place}" if place else what


def _spikes(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(T, C, H, W) or (T, N) from bytes (T, ⌈neurons/8⌉) of bits in (H, W, C) order, the first in the highest."""
    digits = packed[:, :, None] >> np.arange(7, -1, -1, dtype=np.uint8) & 1
    flat = digits.reshape(len(packed), -1)
    count = int(np.prod(shape[1:]))
    return np.stack([_ordered(row, shape[1:]) for row in flat[:, :count]])


def _potentials(trace: Trace, layer: int, shape: tuple[int, ...]) -> NDArray[np.int32] | None:
    """v(T) of a layer, (C, H, W) or (N,); None where the trace has none."""
    return None if trace.membranes is None else _ordered(trace.membranes[layer][0], shape)


def _ordered(values: NDArray, shape: tuple[int, ...]) -> NDArray:
    """(C, H, W) or (N,) from values in (H, W, C) order."""
    if len(shape) == 1:
        return values
    channels, height, width = shape
    return values.reshape(height, width, channels).transpose(2, 0, 1)
