"""The integer spiking network: the one representation that export produces, files hold and every engine runs.

docs/semantics.md defines what the network computes. Only numpy is needed here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

MEMBRANE_MAX = 2**23 - 1
"""Largest membrane potential and largest magnitude of a bias, threshold or v0: a signed 24-bit register, symmetric."""
INPUT_MAX = 255
"""Largest input value: the images are 8 bits, unsigned."""

Pair = tuple[int, int]


class NetworkError(ValueError):
    """An invalid network: the message names the layer, the key, the value and what is allowed."""


@dataclass(frozen=True)
class Layer:
    """Integer weights and the neurons behind them.

    Attributes:
        name: unique within the network.
        weight: int8, (O, I, kh, kw) for a convolution, (O, N) for a dense layer over N inputs in (C, H, W) order.
        bias: int32, (O,), or (O, H, W) where it differs between positions (normalisation at zero-padded borders).
        threshold: int32 (O,), at least 1; None for the read-out, whose neurons integrate and never spike.
        v0: int32 (O,), membrane potential before the first step of a sample.
        stride, padding, dilation: (y, x), for convolutions.
        groups: for convolutions.
    """

    name: str
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    threshold: NDArray[np.int32] | None
    v0: NDArray[np.int32]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        for key, dtype in (("weight", np.int8), ("bias", np.int32), ("threshold", np.int32), ("v0", np.int32)):
            value = getattr(self, key)
            if value is None and key == "threshold":
                continue
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
                self._fail(key, found, f"an array of {np.dtype(dtype).name}")
            value = np.array(value, order="C")  # a private copy, so that freezing it freezes nothing of the caller's
            value.flags.writeable = False
            object.__setattr__(self, key, value)
        if self.weight.ndim not in (2, 4) or 0 in self.weight.shape:
            self._fail("weight", f"shape {self.weight.shape}", "(O, I, kh, kw) or (O, N), every size at least 1")
        if (self.weight < -127).any():
            self._fail("weight", -128, "-127..127")
        outputs = self.weight.shape[0]
        if self.bias.ndim not in (1, 3) or self.bias.shape[0] != outputs or 0 in self.bias.shape:
            self._fail("bias", f"shape {self.bias.shape}", f"({outputs},) or ({outputs}, H, W)")
        for key in ("threshold", "v0"):
            value = getattr(self, key)
            if value is not None and value.shape != (outputs,):
                self._fail(key, f"shape {value.shape}", f"({outputs},)")
        if self.threshold is not None:
            self._range("threshold", self.threshold, 1)
        self._range("bias", self.bias, -MEMBRANE_MAX)
        self._range("v0", self.v0, -MEMBRANE_MAX)
        for key, low in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, key)
            if not (isinstance(value, tuple) and len(value) == 2 and all(type(v) is int and v >= low for v in value)):
                self._fail(key, value, f"two integers (y, x) of at least {low}")
        if type(self.groups) is not int or self.groups < 1 or outputs % self.groups:
            self._fail("groups", self.groups, f"a divisor of the {outputs} outputs")
        if not self.is_convolution and (self.stride, self.padding, self.dilation, self.groups) != (
            (1, 1),
            (0, 0),
            (1, 1),
            1,
        ):
            self._fail("stride, padding, dilation, groups", "set", "defaults in a dense layer")

    def _fail(self, key: str, value: object, allowed: str) -> None:
        raise NetworkError(f"layer {self.name}: {key} is {value}; allowed: {allowed}")

    def _range(self, key: str, value: NDArray[np.int32], low: int) -> None:
        for worst in (int(value.min()), int(value.max())):
            if not low <= worst <= MEMBRANE_MAX:
                self._fail(key, worst, f"{low}..{MEMBRANE_MAX}")

    @property
    def is_convolution(self) -> bool:
        return self.weight.ndim == 4

    @property
    def is_readout(self) -> bool:
        return self.threshold is None

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(O, H', W') or (O,) for the given input shape; NetworkError where the layer does not fit it."""
        if not self.is_convolution:
            count = int(np.prod(input_shape))
            if self.weight.shape[1] != count:
                self._fail("weight", f"shape {self.weight.shape}", f"(O, {count}) behind an output of {input_shape}")
            return (self.weight.shape[0],)
        if len(input_shape) != 3:
            self._fail("weight", "a convolution", f"a dense layer behind an output of {input_shape}")
        outputs, inputs, *kernel = self.weight.shape
        if inputs * self.groups != input_shape[0]:
            self._fail("weight", f"for {inputs * self.groups} channels", f"{input_shape[0]} input channels")
        size = []
        for axis in (0, 1):
            reach = self.dilation[axis] * (kernel[axis] - 1) + 1
            free = input_shape[1 + axis] + 2 * self.padding[axis] - reach
            if free < 0:
                self._fail(
                    "weight",
                    f"a kernel reaching over {reach}",
                    f"at most {input_shape[1 + axis] + 2 * self.padding[axis]}",
                )
            size.append(free // self.stride[axis] + 1)
        shape = (outputs, *size)
        if self.bias.ndim == 3 and self.bias.shape != shape:
            self._fail("bias", f"shape {self.bias.shape}", f"({outputs},) or {shape}")
        return shape


@dataclass(frozen=True)
class IntegerNetwork:
    """A sequence of layers from an 8-bit image to a read-out.

    Attributes:
        input_shape: (C, H, W).
        layers: spiking layers, then one dense read-out.
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
        shape: tuple[int, ...] = self.input_shape
        for layer in self.layers:
            if layer.bias.ndim == 3 and not layer.is_convolution:
                raise NetworkError(f"layer {layer.name}: bias is 3-dimensional; allowed: ({layer.weight.shape[0]},)")
            shape = layer.output_shape(shape)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Output shape of every layer."""
        shapes: list[tuple[int, ...]] = [self.input_shape]
        for layer in self.layers:
            shapes.append(layer.output_shape(shapes[-1]))
        return tuple(shapes[1:])

    @property
    def classes(self) -> int:
        return self.layers[-1].weight.shape[0]

    def digest(self) -> str:
        """SHA-256 over everything that decides what the network computes (not over names and info)."""
        sha = hashlib.sha256(repr(self.input_shape).encode())
        for layer in self.layers:
            sha.update(repr((layer.stride, layer.padding, layer.dilation, layer.groups)).encode())
            for value in (layer.weight, layer.bias, layer.threshold, layer.v0):
                sha.update(b"none" if value is None else repr((value.shape, value.dtype.str)).encode())
                if value is not None:
                    sha.update(value.astype(value.dtype.newbyteorder("<")).tobytes())
        return sha.hexdigest()
