"""What a run of an integer network leaves behind, and where two runs differ."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nqlava.network import IntegerNetwork

_Value = TypeVar("_Value", bound=np.generic)

DIGESTS = 2**256  # how many different digests there are


@dataclass(frozen=True)
class Trace:
    """Spikes, read-outs and saturations of some samples over T steps.

    Spikes are kept as bits: a VGG-16 emits 2.2 million of them per sample in 8 steps.

    Attributes:
        shapes: (C, H, W) or (N,) of every spiking layer.
        spikes: per spiking layer uint8 (samples, T, ⌈neurons/8⌉), as ``pack`` makes it, neurons in (H, W, C) order.
        readout: int32 (samples, T, K), the membrane potential of the read-out after each step.
        saturations: int64 (layers, samples), how often a clip changed a membrane potential, the read-out included.
        membranes: per spiking layer int32 (samples, neurons), v(T) in (H, W, C) order; None if not recorded.
    """

    shapes: tuple[tuple[int, ...], ...]
    spikes: tuple[NDArray[np.uint8], ...]
    readout: NDArray[np.int32]
    saturations: NDArray[np.int64]
    membranes: tuple[NDArray[np.int32], ...] | None = None

    @property
    def samples(self) -> int:
        return self.readout.shape[0]

    @property
    def steps(self) -> int:
        """T."""
        return self.readout.shape[1]

    def layer_spikes(self, layer: int) -> NDArray[np.bool_]:
        """Spikes of one layer, bool (samples, T, *layer shape)."""
        return _unpack(self.spikes[layer], self.shapes[layer])

    def layer_membranes(self, layer: int) -> NDArray[np.int32]:
        """v(T) of one spiking layer, int32 (samples, *layer shape); ValueError where they were not recorded."""
        if self.membranes is None:
            raise ValueError("membranes are not in this trace; ask for them where it is made: membranes=True")
        return _channels_first(self.membranes[layer], self.shapes[layer])

    def spike_counts(self) -> tuple[int, ...]:
        """Number of spikes per spiking layer."""
        return tuple(_ones(packed) for packed in self.spikes)

    def saturation_counts(self) -> tuple[int, ...]:
        """Number of saturations per layer, the read-out included."""
        return tuple(self.saturations.sum(axis=1).tolist())

    def part(self, samples: slice) -> "Trace":
        """The trace of some of the samples: views."""
        membranes = None if self.membranes is None else tuple(v[samples] for v in self.membranes)
        spikes = tuple(layer[samples] for layer in self.spikes)
        return Trace(self.shapes, spikes, self.readout[samples], self.saturations[:, samples], membranes)

    def classes(self) -> NDArray[np.int64]:
        """Class after each step, (samples, T); of equal values the lowest index."""
        classes: NDArray[np.int64] = self.readout.argmax(axis=-1)
        return classes

    def digest(self, network: str, start: int = 0) -> int:
        """D of docs/semantics.md, over these samples: those of further samples are added, modulo 2²⁵⁶.

        Args:
            network: its digest, 64 hexadecimal digits.
            start: number of the first of these samples among all.
        """
        total = 0
        for index in range(self.samples):
            sha = hashlib.sha256(bytes.fromhex(network) + (start + index).to_bytes(8, "little"))
            for layer in self.spikes:
                sha.update(layer[index].tobytes())
            sha.update(self.readout[index].astype("<i4").tobytes())
            total += int.from_bytes(sha.digest(), "big")
        return total % DIGESTS


def pack(spikes: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bits of spikes (..., neurons) as uint8 (..., ⌈neurons/8⌉), first neuron in the highest bit."""
    return np.packbits(spikes, axis=-1)


def _unpack(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Spikes bool (..., C, H, W) or (..., N) from what ``pack`` made of them in (H, W, C) order."""
    return _channels_first(np.unpackbits(packed, axis=-1, count=int(np.prod(shape))).view(np.bool_), shape)


def _channels_first(values: NDArray[_Value], shape: tuple[int, ...]) -> NDArray[_Value]:
    """(..., C, H, W) or (..., N) from (..., neurons) in (H, W, C) order."""
    if len(shape) == 1:
        return values
    channels, height, width = shape
    return np.moveaxis(values.reshape(*values.shape[:-1], height, width, channels), -1, -3)


def _ones(packed: NDArray[np.uint8]) -> int:
    """Number of bits that are set."""
    from nqlava.engine.cpu.kernels import count_ones  # here, since importing numba takes longer than printing --help

    flat = np.ascontiguousarray(packed).reshape(-1)
    whole = flat.size // 8 * 8
    return int(count_ones(flat[:whole].view(np.uint64))) + int(np.unpackbits(flat[whole:]).sum())


def concatenate(traces: Sequence[Trace]) -> Trace:
    """The traces of consecutive samples of one network as one."""
    if not traces:
        raise ValueError("traces is empty; allowed: at least one")
    kept = [trace.membranes for trace in traces if trace.membranes is not None]
    return Trace(
        shapes=traces[0].shapes,
        spikes=tuple(np.concatenate(parts) for parts in zip(*(t.spikes for t in traces), strict=True)),
        readout=np.concatenate([t.readout for t in traces]),
        saturations=np.concatenate([t.saturations for t in traces], axis=1),
        membranes=tuple(map(np.concatenate, zip(*kept, strict=True))) if len(kept) == len(traces) else None,
    )


@dataclass(frozen=True)
class Mismatch:
    """One place where two traces differ.

    Attributes:
        sample: from 0.
        layer: name of the layer.
        step: local step k = 1 … T; 0 where the saturations of the sample differ.
        neuron: (c, y, x) or (n,); empty for saturations.
        expected, got: spike (0 or 1), membrane potential in the read-out, or number of saturations.
    """

    sample: int
    layer: str
    step: int
    neuron: tuple[int, ...]
    expected: int
    got: int

    def __str__(self) -> str:
        place = f"step {self.step}, neuron {self.neuron}" if self.step else "saturations"
        return f"sample {self.sample}, layer {self.layer}, {place}: expected {self.expected}, got {self.got}"


def first_difference(network: IntegerNetwork, reference: Trace, other: Trace) -> Mismatch | None:
    """The difference that explains the others: lowest sample, in it the earliest layer, in that the first step.

    Within one sample a layer depends only on the layers before it, so the earliest layer that differs is the one that
    computed something wrong from correct inputs.

    Raises:
        ValueError: the traces have different shapes.
    """
    _require_same_shapes(reference, other)
    best: Mismatch | None = None
    for index, layer in enumerate(network.layers):
        readout = index == len(reference.spikes)
        expected, got = (t.readout if readout else t.spikes[index] for t in (reference, other))
        wrong = np.flatnonzero((expected != got).any(axis=(1, 2)))
        if not len(wrong) or (best is not None and wrong[0] >= best.sample):
            continue
        sample = int(wrong[0])
        if readout:
            one, two = expected[sample], got[sample]
        else:
            one, two = (_unpack(bits[sample], reference.shapes[index]) for bits in (expected, got))
        place = tuple(int(n) for n in np.argwhere(one != two)[0])
        best = Mismatch(sample, layer.name, place[0] + 1, place[1:], int(one[place]), int(two[place]))
    clips = np.argwhere(reference.saturations.T != other.saturations.T)
    if best is None and len(clips):
        sample, index = map(int, clips[0])
        counts = (int(trace.saturations[index, sample]) for trace in (reference, other))
        best = Mismatch(sample, network.layers[index].name, 0, (), *counts)
    return best


def count_differences(reference: Trace, other: Trace) -> tuple[int, ...]:
    """Per layer, the read-out last, how many values differ: one per sample, step and neuron, and saturations, one per
    sample."""
    _require_same_shapes(reference, other)
    pairs = zip(reference.spikes, other.spikes, strict=True)
    values = [0 if np.array_equal(a, b) else int(np.unpackbits(a ^ b).sum()) for a, b in pairs]
    values.append(int((reference.readout != other.readout).sum()))
    clips = (reference.saturations != other.saturations).sum(axis=1).tolist()
    return tuple(value + clip for value, clip in zip(values, clips, strict=True))


def _require_same_shapes(reference: Trace, other: Trace) -> None:
    for name, one, two in (
        ("layer shapes", reference.shapes, other.shapes),
        ("(samples, T, classes)", reference.readout.shape, other.readout.shape),
    ):
        if one != two:
            raise ValueError(f"traces of different {name} cannot be compared: {one} and {two}")
