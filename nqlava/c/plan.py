"""What the C program of a network consists of: maps of bits, tables of weights, buffers, and the memory they take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nqlava.network import IMAGE, INPUT_MAX, MEMBRANE_MAX, Connection, IntegerNetwork, Layer, Pair

INT32_MAX = 2**31 - 1
WORD = 4
"""Weights in a word: rows are filled up to whole words."""
POINTER = 4
"""Bytes of a pointer on a microcontroller, as memory is counted."""


@dataclass(frozen=True)
class Map:
    """Whole numbers (height, width, channels) as binary digits: ``planes`` planes of a bit for each number.

    Attributes:
        source: the layer whose spikes they are, or whose spikes are summed; "input" for the image.
        window: (y, x) of the windows that are summed; (1, 1) for none.
    """

    source: str
    window: Pair
    height: int
    width: int
    channels: int
    planes: int

    @property
    def words(self) -> int:
        """32-bit words of a plane."""
        return -(-self.height * self.width * self.channels // 32)


@dataclass(frozen=True)
class Synapses:
    """A convolution of a map; a dense connection has one output position.

    Attributes:
        map: what arrives.
        weight: (O, I / groups, kh, kw): int8 with one group, int64 with the exponent included with several.
        exponent, stride, padding, dilation, groups: as in ``Connection``, behind the window.
    """

    map: Map
    weight: NDArray[np.signedinteger[Any]]
    exponent: int
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @cached_property
    def bound(self) -> NDArray[np.int64]:
        """Σ 2^e · |w| · (largest input) of every output channel."""
        largest = (INPUT_MAX if self.map.source == IMAGE else 1) * self.map.window[0] * self.map.window[1]
        magnitude = np.abs(self.weight.astype(np.int64)).reshape(len(self.weight), -1).sum(1)
        bound: NDArray[np.int64] = (magnitude << self.exponent) * largest
        return bound

    @cached_property
    def table(self) -> NDArray[np.signedinteger[Any]]:
        """One group: uint32 (kh · kw · I, words), rows of weights to all outputs, four in a word, each plus 128.
        Several groups: int32 (kh · kw · I · groups, O / groups), rows of weights to the outputs of a group."""
        outputs, inputs, kh, kw = self.weight.shape
        if self.groups == 1:
            rows = np.full((kh * kw * inputs, -(-outputs // WORD) * WORD), 128, np.uint8)
            rows[:, :outputs] += self.weight.transpose(2, 3, 1, 0).reshape(-1, outputs).astype(np.uint8)
            return rows.view("<u4").astype(np.uint32)
        grouped = self.weight.reshape(self.groups, outputs // self.groups, inputs, kh, kw)
        return grouped.transpose(3, 4, 0, 2, 1).reshape(-1, outputs // self.groups).astype(np.int32)


@dataclass(frozen=True)
class Neurons:
    """A layer, with what its neurons need.

    Attributes:
        shape: (height, width, O).
        synapses: those of the image first.
        images: how many of them are of the image.
        bias: int32 (vectors, O), the different vectors of a position.
        bias_of: (height · width,), which of them a position takes; None where there is one.
        pools: maps of summed windows of its spikes.
    """

    layer: Layer
    identifier: str
    shape: tuple[int, int, int]
    synapses: tuple[Synapses, ...]
    images: int
    bias: NDArray[np.int32]
    bias_of: NDArray[np.int64] | None
    spikes: Map | None
    pools: tuple[Map, ...]

    @property
    def count(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))

    @property
    def stride(self) -> int:
        """O in whole words: distance of the sums of neighbouring positions."""
        return -(-self.shape[2] // WORD) * WORD

    @property
    def largest_sum(self) -> int:
        """The largest magnitude of v + I + b."""
        bias = np.abs(self.bias.astype(np.int64)).max(0)
        sums = sum((synapses.bound for synapses in self.synapses), np.zeros_like(bias))
        return int((bias + sums).max()) + MEMBRANE_MAX


@dataclass(frozen=True)
class Memory:
    """Bytes on a 32-bit processor.

    Attributes:
        tables: constants: weights, biases, thresholds, initial potentials and the description of the layers.
        potentials, spikes, current, buffers: static variables: membrane potentials; maps of bits, the image included;
            what arrives from the image at every step, which can be left away; the rest.
    """

    tables: int
    potentials: int
    spikes: int
    current: int
    buffers: int

    @property
    def ram(self) -> int:
        """Bytes of all static variables."""
        return self.potentials + self.spikes + self.current + self.buffers


@dataclass(frozen=True)
class Plan:
    """A network as it is written.

    Attributes:
        image: the image as bits.
        image_pools: maps of its summed windows.
        early: whether a classification ends when the class cannot change any more.
    """

    network: IntegerNetwork
    layers: tuple[Neurons, ...]
    image: Map
    image_pools: tuple[Map, ...]
    early: bool

    @property
    def wide(self) -> bool:
        """Whether sums need 64 bits."""
        return max(layer.largest_sum for layer in self.layers) > INT32_MAX

    @property
    def index_bits(self) -> int:
        """Bits of the number of a bias vector."""
        most = max(len(layer.bias) for layer in self.layers)
        return 8 if most <= 2**8 else 16 if most <= 2**16 else 32

    @property
    def maps(self) -> list[Map]:
        """All of them."""
        spikes = [one for layer in self.layers if layer.spikes is not None for one in (layer.spikes, *layer.pools)]
        return [self.image, *self.image_pools, *spikes]

    @cached_property
    def most(self) -> Mapping[str, int]:
        """Largest sizes: of a row of a map that a connection takes, of a row of a layer, of a map that is pooled."""
        taken = [one.map for layer in self.layers for one in layer.synapses]
        pooled = [one.channels for one in self.maps if one.window != (1, 1)]
        return {
            "INPUTS": max((one.width * one.channels for one in taken), default=1),
            "COLUMNS": max((one.width for one in taken), default=1),
            "SUMS": max(4 * WORD, *(layer.shape[1] * layer.stride for layer in self.layers)),  # snn.c has loops over 4
            "POSITIONS": max(layer.shape[1] for layer in self.layers),
            "CHANNELS": max(pooled, default=1),
        }

    @cached_property
    def memory(self) -> Memory:
        """What the program needs."""
        sum_bytes, most = 8 if self.wide else 4, self.most
        tables = 4 * self.network.classes**2 + 4 if self.early else 0
        tables += sum(24 + (16 if one.window != (1, 1) else 0) for one in self.maps) + 4
        for layer in self.layers:
            tables += 18 * POINTER + len(safe(layer.layer.name)) + 1 + 4 * layer.bias.size + 4 * layer.shape[2]
            tables += 0 if layer.bias_of is None else layer.bias_of.size * self.index_bits // 8
            tables += 0 if layer.layer.is_readout else 4 * layer.shape[2]
            tables += sum(15 * POINTER + synapses.table.nbytes for synapses in layer.synapses)
        return Memory(
            tables=tables,
            potentials=4 * sum(layer.count for layer in self.layers),
            spikes=4 * sum(one.words * one.planes for one in self.maps),
            current=sum_bytes
            * sum(layer.shape[0] * layer.shape[1] * layer.stride for layer in self.layers if layer.images),
            buffers=4 * (most["INPUTS"] + most["COLUMNS"] + 1 + most["POSITIONS"] + most["CHANNELS"])
            + (sum_bytes + 2) * most["SUMS"]
            + 4 * (1 + len(self.layers)),
        )


@dataclass
class _Maps:
    """The maps that connections take, each made once."""

    network: IntegerNetwork
    found: dict[tuple[str, Pair], Map] = field(default_factory=dict)

    def of(self, source: str, window: Pair = (1, 1)) -> Map:
        if (source, window) not in self.found:
            height, width, channels = positions(self.network.shape_of[source])
            largest = (INPUT_MAX if source == IMAGE else 1) * window[0] * window[1]
            size = height // window[0], width // window[1]
            self.found[source, window] = Map(source, window, *size, channels, largest.bit_length())
        return self.found[source, window]

    def pools(self, source: str) -> tuple[Map, ...]:
        return tuple(one for (name, window), one in self.found.items() if name == source and window != (1, 1))


def plan(network: IntegerNetwork, *, early: bool = False) -> Plan:
    """The C program of a network; ``early``: whether a classification may end early."""
    maps = _Maps(network)
    names = identifiers([layer.name for layer in network.layers])
    synapses = [tuple(_synapses(layer, maps)) for layer in network.layers]
    layers = []
    for layer, found, name in zip(network.layers, synapses, names, strict=True):
        bias, bias_of = _bias(layer)
        spikes = None if layer.is_readout else maps.of(layer.name)
        images = sum(one.map.source == IMAGE for one in found)
        shape = positions(network.shape_of[layer.name])
        layers.append(Neurons(layer, name, shape, found, images, bias, bias_of, spikes, maps.pools(layer.name)))
    return Plan(network, tuple(layers), maps.of(IMAGE), maps.pools(IMAGE), early)


def _synapses(layer: Layer, maps: _Maps) -> list[Synapses]:
    """The connections, those of the image first; those alike with several groups as one, and none of zeros."""
    alike: dict[tuple[Any, ...], list[Connection]] = {}
    for number, c in enumerate(layer.connections):
        window = c.convolution(maps.network.shape_of[c.source]).window
        key = (c.source, window, c.weight.shape, c.geometry, -1 if c.groups > 1 else number)
        alike.setdefault(key, []).append(c)
    found = []
    for (source, window, *_), connections in alike.items():
        parts = [c.convolution(maps.network.shape_of[source]) for c in connections]
        exponents = [c.exponent for c in connections]
        weight, exponent = parts[0].weight, exponents[0]
        if parts[0].groups > 1:
            pairs = zip(parts, exponents, strict=True)
            weight, exponent = np.sum([part.weight.astype(np.int64) << by for part, by in pairs], axis=0), 0
        if weight.any():
            p = parts[0]
            found.append(Synapses(maps.of(source, window), weight, exponent, p.stride, p.padding, p.dilation, p.groups))
    return sorted(found, key=lambda one: one.map.source != IMAGE)


def _bias(layer: Layer) -> tuple[NDArray[np.int32], NDArray[np.int64] | None]:
    """The different vectors (n, O), and which of them each position takes, None for one."""
    if layer.bias.ndim == 1:
        return layer.bias[None], None
    vectors, which = np.unique(layer.bias.reshape(layer.outputs, -1).T, axis=0, return_inverse=True)
    return vectors, None if len(vectors) == 1 else which.reshape(-1)


def positions(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) or (N,) as (height, width, channels)."""
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else (1, 1, shape[0])


def safe(name: str) -> str:
    """A name without characters that could end a comment or a string, or mean something to C, make or Markdown."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.- ") else "_" for c in name)[:64]


def identifiers(names: Sequence[str]) -> list[str]:
    """Different identifiers, made of the names: what follows an underscore tells what each one names."""
    taken: dict[str, None] = {}
    for name in names:
        plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
        if not plain[:1].isalpha() or plain.lower().startswith("snn"):
            plain = f"layer_{plain}"
        chosen, number = plain, 2
        while chosen in taken:
            chosen, number = f"{plain}_{number}", number + 1
        taken[chosen] = None
    return list(taken)


def gains(network: IntegerNetwork) -> tuple[NDArray[np.int64], int]:
    """The largest change of the read-out in one step, over all inputs.

    gain[a, b] = max over inputs of (I + b of class b) − (I + b of class a)
               = Σ over inputs of max(0, w_b − w_a) · (largest input) + b_b − b_a

    Returns:
        gain (K, K), limited to ±2²⁵, and the largest |I + b| of a class, at most 2²⁵: potentials differ by less than
        2²⁴, so that what is beyond decides nothing.
    """
    layer = network.layers[-1]
    weights: dict[str, NDArray[np.int64]] = {}
    for c in layer.connections:
        scale = np.int64(1 << c.exponent) * (INPUT_MAX if c.source == IMAGE else 1)
        weights[c.source] = weights.get(c.source, np.int64(0)) + c.weight.astype(np.int64) * scale
    joined = np.concatenate(list(weights.values()), axis=1)
    bias = layer.bias.astype(np.int64)
    gain = np.stack([np.maximum(joined - one, 0).sum(1) for one in joined]) + bias[None, :] - bias[:, None]
    reach = np.maximum(np.maximum(joined, 0).sum(1) + bias, np.maximum(-joined, 0).sum(1) - bias).max()
    return np.clip(gain, -(2**25), 2**25), min(int(reach), 2**25)
