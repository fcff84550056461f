"""The integer spiking network: the one representation that export produces, files hold and every engine runs.

docs/semantics.md defines what the network computes. Only numpy is needed here, and nqlava.errors, which needs nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from nqlava.errors import InputError
from nqlava.geometry import Convolution, find_window
from nqlava.geometry import Pair as Pair

MEMBRANE_MAX = 2**23 - 1
"""Largest membrane potential and largest magnitude of a bias, threshold or v0: a signed 24-bit register, symmetric."""
INPUT_MAX = 255
"""Largest input value: the images are 8 bits, unsigned."""
EXPONENT_MAX = 15
"""Largest exponent of a connection."""
IMAGE = "input"
"""Source of the connections that take the image."""

Reset = Literal["soft", "hard"]
_DENSE_GEOMETRY = ((1, 1), (0, 0), (1, 1), 1)


class NetworkError(InputError):
    """An invalid network: the message names the layer, the key, the value and what is allowed."""


def _frozen(owner: object, key: str, dtype: type) -> str | None:
    """Replaces an array attribute by a private, read-only copy; what it is instead, where it is no such array."""
    value = getattr(owner, key)
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        return str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
    value = np.array(value, order="C")
    value.flags.writeable = False
    object.__setattr__(owner, key, value)
    return None


@dataclass(frozen=True)
class Connection:
    """Synapses from one source to all neurons of a layer: they contribute 2^exponent · Σ w · in.

    Attributes:
        source: name of the layer whose spikes arrive, or "input" for the image.
        weight: int8, (O, I/groups, kh, kw) for a convolution, (O, N) for N inputs in (C, H, W) order.
        exponent: power of two that all weights share, 0 … 15.
        stride, padding, dilation: (y, x), for convolutions.
        groups: for convolutions.
    """

    source: str
    weight: NDArray[np.int8]
    exponent: int = 0
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            self._fail("source", type(self.source).__name__, "the name of a layer")
        if (found := _frozen(self, "weight", np.int8)) is not None:
            self._fail("weight", found, "an array of int8")
        if self.weight.ndim not in (2, 4) or 0 in self.weight.shape:
            self._fail("weight", f"shape {self.weight.shape}", "(O, I, kh, kw) or (O, N), every size at least 1")
        if (self.weight < -127).any():
            self._fail("weight", -128, "-127..127")
        if type(self.exponent) is not int or not 0 <= self.exponent <= EXPONENT_MAX:
            self._fail("exponent", self.exponent, f"0..{EXPONENT_MAX}")
        for key, low in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, key)
            if not (isinstance(value, tuple) and len(value) == 2 and all(type(v) is int and v >= low for v in value)):
                self._fail(key, value, f"two integers (y, x) of at least {low}")
        if type(self.groups) is not int or self.groups < 1 or self.outputs % self.groups:
            self._fail("groups", self.groups, f"a divisor of the {self.outputs} outputs")
        if not self.is_convolution and self.geometry != _DENSE_GEOMETRY:
            self._fail("stride, padding, dilation, groups", "set", "defaults in a dense connection")

    def _fail(self, key: str, value: object, allowed: str) -> NoReturn:
        raise NetworkError(f"connection from {self.source}: {key} is {value}; allowed: {allowed}")

    @property
    def is_convolution(self) -> bool:
        return self.weight.ndim == 4

    @property
    def outputs(self) -> int:
        """O."""
        return self.weight.shape[0]

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair, int]:
        """(stride, padding, dilation, groups)."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def bits(self) -> int:
        """Bits of a signed, symmetric integer that holds every weight: 2 … 8."""
        return max(2, int(np.abs(self.weight.astype(np.int16)).max()).bit_length() + 1)

    def convolution(self, input_shape: tuple[int, ...]) -> Convolution:
        """The synapses as a convolution behind the average pooling that its weights hold; found once, and kept.

        A dense connection behind (C, H, W) is a convolution with one output position.
        """
        kept = self.__dict__.get("_convolution")
        if kept is None or kept[0] != input_shape:
            weight, stride, padding, size = self.weight, self.stride, self.padding, input_shape[1:]
            if not self.is_convolution:
                shape = input_shape if len(input_shape) == 3 else (int(np.prod(input_shape)), 1, 1)
                weight, stride, padding, size = weight.reshape(-1, *shape), (shape[1], shape[2]), (0, 0), shape[1:]
            found = find_window(weight, (size[0], size[1]), stride, padding, self.dilation, self.groups)
            kept = self.__dict__["_convolution"] = (input_shape, found)
        return kept[1]

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(O, H', W') or (O,) for the given input shape; NetworkError where the connection does not fit it."""
        if not self.is_convolution:
            count = int(np.prod(input_shape))
            if self.weight.shape[1] != count:
                self._fail("weight", f"shape {self.weight.shape}", f"(O, {count}) behind an output of {input_shape}")
            return (self.outputs,)
        if len(input_shape) != 3:
            self._fail("weight", "a convolution", f"a dense connection behind an output of {input_shape}")
        _, inputs, *kernel = self.weight.shape
        if inputs * self.groups != input_shape[0]:
            self._fail("weight", f"for {inputs * self.groups} channels", f"{input_shape[0]} input channels")
        size = []
        for axis in (0, 1):
            reach = self.dilation[axis] * (kernel[axis] - 1) + 1
            padded = input_shape[1 + axis] + 2 * self.padding[axis]
            if reach > padded:
                self._fail("weight", f"a kernel reaching over {reach}", f"at most {padded}")
            size.append((padded - reach) // self.stride[axis] + 1)
        return (self.outputs, *size)


@dataclass(frozen=True)
class Layer:
    """Neurons with the same rule, and the connections whose sums they integrate.

    Attributes:
        name: unique within the network, and not "input".
        connections: at least one; all lead to the same output shape.
        bias: int32, (O,), or (O, H, W) where it differs between positions (normalisation at zero-padded borders).
        threshold: int32 (O,), at least 1; None for the read-out, whose neurons integrate and never spike.
        v0: int32 (O,), membrane potential before the first step of a sample.
        reset: at a spike, "soft" subtracts the threshold and "hard" sets the membrane potential to 0.
    """

    name: str
    connections: tuple[Connection, ...]
    bias: NDArray[np.int32]
    threshold: NDArray[np.int32] | None
    v0: NDArray[np.int32]
    reset: Reset = "soft"

    def __post_init__(self) -> None:
        object.__setattr__(self, "connections", tuple(self.connections))
        if not self.connections:
            self._fail("connections", "empty", "at least one")
        for key in ("bias", "threshold", "v0"):
            if key == "threshold" and self.threshold is None:
                continue
            if (found := _frozen(self, key, np.int32)) is not None:
                self._fail(key, found, "an array of int32")
        outputs = self.connections[0].outputs
        for connection in self.connections:
            if connection.outputs != outputs or connection.is_convolution != self.is_convolution:
                found = f"{connection.outputs} outputs, {'convolution' if connection.is_convolution else 'dense'}"
                wanted = f"{outputs} outputs, {'convolution' if self.is_convolution else 'dense'}"
                self._fail(f"connection from {connection.source}", found, f"{wanted} as the first connection")
        if self.bias.ndim not in (1, 3) or self.bias.shape[0] != outputs or 0 in self.bias.shape:
            self._fail("bias", f"shape {self.bias.shape}", f"({outputs},) or ({outputs}, H, W)")
        if self.bias.ndim == 3 and not self.is_convolution:
            self._fail("bias", "3-dimensional", f"({outputs},)")
        for key in ("threshold", "v0"):
            value = getattr(self, key)
            if value is not None and value.shape != (outputs,):
                self._fail(key, f"shape {value.shape}", f"({outputs},)")
        if self.threshold is not None:
            self._range("threshold", self.threshold, 1)
        self._range("bias", self.bias, -MEMBRANE_MAX)
        self._range("v0", self.v0, -MEMBRANE_MAX)
        if self.reset not in ("soft", "hard") or (self.is_readout and self.reset != "soft"):
            self._fail("reset", repr(self.reset), "'soft'" if self.is_readout else "'soft' or 'hard'")

    def _fail(self, key: str, value: object, allowed: str) -> NoReturn:
        raise NetworkError(f"layer {self.name}: {key} is {value}; allowed: {allowed}")

    def _range(self, key: str, value: NDArray[np.int32], low: int) -> None:
        for worst in (int(value.min()), int(value.max())):
            if not low <= worst <= MEMBRANE_MAX:
                self._fail(key, worst, f"{low}..{MEMBRANE_MAX}")

    @property
    def is_convolution(self) -> bool:
        """Whether the neurons are (O, H, W)."""
        return self.connections[0].is_convolution

    @property
    def is_readout(self) -> bool:
        return self.threshold is None

    @property
    def outputs(self) -> int:
        """O, channels or neurons."""
        return self.connections[0].outputs

    @property
    def sources(self) -> tuple[str, ...]:
        """The different sources, in the order of the connections."""
        return tuple(dict.fromkeys(connection.source for connection in self.connections))

    def output_shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """(O, H, W) or (O,), given the shapes of the sources; NetworkError where something does not fit."""
        found: list[tuple[int, ...]] = []
        for connection in self.connections:
            if connection.source not in shapes:
                allowed = ", ".join(shapes)
                self._fail("source", connection.source, f"one of {allowed}, which come before")
            try:
                found.append(connection.output_shape(shapes[connection.source]))
            except NetworkError as error:
                raise NetworkError(f"layer {self.name}: {error}") from None
            if found[-1] != found[0]:
                self._fail(f"connection from {connection.source}", f"for an output of {found[-1]}", str(found[0]))
        if self.bias.ndim == 3 and self.bias.shape != found[0]:
            self._fail("bias", f"shape {self.bias.shape}", f"({self.outputs},) or {found[0]}")
        return found[0]


@dataclass(frozen=True)
class IntegerNetwork:
    """A graph of layers from an 8-bit image to a read-out, without loops.

    Attributes:
        input_shape: (C, H, W).
        layers: spiking layers, each behind its sources, then one dense read-out.
        info: what deployment and reviewers need to know: scalars and strings only (see docs/format.md).
    """

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    info: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or any(type(n) is not int or n < 1 for n in self.input_shape):
            raise NetworkError(f"input: shape is {self.input_shape}; allowed: (C, H, W), every size at least 1")
        if not self.layers:
            raise NetworkError("network: layers is empty; allowed: at least the read-out")
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "info", MappingProxyType(dict(self.info)))
        names = [layer.name for layer in self.layers]
        for name in names:
            if name == IMAGE:
                raise NetworkError(f"layer {name}: name is {name}; allowed: other names, this one means the image")
            if names.count(name) > 1:
                raise NetworkError(f"layer {name}: name is used twice; allowed: unique names")
        for layer in self.layers[:-1]:
            if layer.is_readout:
                raise NetworkError(f"layer {layer.name}: threshold is missing; allowed only in the last layer")
        last = self.layers[-1]
        if not last.is_readout or last.is_convolution:
            raise NetworkError(
                f"layer {last.name}: the last layer is not a read-out; allowed: dense, without threshold"
            )
        used = {source for layer in self.layers for source in layer.sources}
        for name in (IMAGE, *names[:-1]):
            if name not in used:
                raise NetworkError(f"layer {name}: it is the source of nothing; allowed: only what the read-out needs")
        self.shape_of  # noqa: B018  computing it checks that the layers fit each other

    @cached_property
    def shape_of(self) -> Mapping[str, tuple[int, ...]]:
        """Output shape by layer name, and that of the image as "input"."""
        shapes: dict[str, tuple[int, ...]] = {IMAGE: self.input_shape}
        for layer in self.layers:
            shapes[layer.name] = layer.output_shape(shapes)
        return MappingProxyType(shapes)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Output shape of every layer."""
        return tuple(self.shape_of[layer.name] for layer in self.layers)

    @cached_property
    def depth_of(self) -> Mapping[str, int]:
        """Place in the pipeline by layer name: 1 + the largest place among the sources, where the image has 0."""
        depths = {IMAGE: 0}
        for layer in self.layers:
            depths[layer.name] = 1 + max(depths[source] for source in layer.sources)
        return MappingProxyType(depths)

    @property
    def depth(self) -> int:
        """N, the place of the read-out."""
        return self.depth_of[self.layers[-1].name]

    @property
    def classes(self) -> int:
        return self.layers[-1].outputs

    @property
    def is_sequence(self) -> bool:
        """Whether every layer has one connection, from the layer before it."""
        before = (IMAGE, *(layer.name for layer in self.layers))
        return all(
            len(layer.connections) == 1 and layer.sources == (source,)
            for source, layer in zip(before, self.layers, strict=False)
        )

    def digest(self) -> str:
        """SHA-256 over everything that decides what the network computes (not over names and info)."""
        sha = hashlib.sha256(repr(self.input_shape).encode())
        index = {IMAGE: -1} | {layer.name: number for number, layer in enumerate(self.layers)}
        for layer in self.layers:
            wiring = [(index[c.source], c.exponent) for c in layer.connections]
            if wiring != [(index[layer.name] - 1, 0)] or layer.reset != "soft":
                sha.update(repr(("graph", wiring, layer.reset)).encode())
            for connection in layer.connections:
                sha.update(repr(connection.geometry).encode())
                _update(sha, (connection.weight,))
            _update(sha, (layer.bias, layer.threshold, layer.v0))
        return sha.hexdigest()


def _update(sha: "hashlib._Hash", values: Sequence[NDArray[np.integer[Any]] | None]) -> None:
    for value in values:
        sha.update(b"none" if value is None else repr((value.shape, value.dtype.str)).encode())
        if value is not None:
            sha.update(value.astype(value.dtype.newbyteorder("<")).tobytes())
