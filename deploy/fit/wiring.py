"""Which source neuron reaches which neuron of a layer: synapses, fan-in and fan-out without listing synapses.

The synapses of a convolution form a product: neuron (o, y, x) is connected to source neuron (c, i, j) where o and c are
in the same group, y reaches i along the rows and x reaches j along the columns. So every count is a product of counts
along the three axes. Taps that fall into the padding reach nothing and are no synapses. A dense connection is a
convolution whose kernel covers the whole source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nqlava.network import Connection, IntegerNetwork

Shape = tuple[int, int, int]


def volume(shape: tuple[int, ...]) -> Shape:
    """(C, H, W); (N,) becomes (N, 1, 1)."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


@dataclass(frozen=True)
class Axis:
    """Rows, or columns, of a connection.

    Attributes:
        taps: bool (outputs, kernel), whether the tap lies inside the source.
        reaches: bool (outputs, inputs), whether some tap joins the two positions; never more than one does.
    """

    taps: NDArray[np.bool_]
    reaches: NDArray[np.bool_]

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, padding: int, dilation: int) -> "Axis":
        """The axis of a convolution over ``size`` positions."""
        outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        positions = np.arange(outputs)[:, None] * stride - padding + dilation * np.arange(kernel)
        taps = (positions >= 0) & (positions < size)
        reaches = np.zeros((outputs, size), np.bool_)
        reaches[np.nonzero(taps)[0], positions[taps]] = True
        return cls(taps, reaches)


@dataclass(frozen=True)
class Wiring:
    """The synapses of one connection, without their weights.

    Attributes:
        source: name of the source.
        bits: of a weight.
        outputs, inputs: channels of the layer and of the source.
        groups: of the convolution.
        rows, columns: the axes.
    """

    source: str
    bits: int
    outputs: int
    inputs: int
    groups: int
    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, connection: Connection, source_shape: tuple[int, ...]) -> "Wiring":
        """The wiring of a connection from a source of shape (C, H, W) or (N,)."""
        channels, *size = volume(source_shape)
        if connection.is_convolution:
            kernel = connection.weight.shape[2:]
            geometry = zip(size, kernel, connection.stride, connection.padding, connection.dilation, strict=True)
            rows, columns = (Axis.of(*one) for one in geometry)
        else:
            rows, columns = (Axis.of(one, one, 1, 0, 1) for one in size)
        return cls(connection.source, connection.bits, connection.outputs, channels, connection.groups, rows, columns)

    @property
    def inputs_per_group(self) -> int:
        return self.inputs // self.groups

    @property
    def synapses(self) -> int:
        """Pairs of a source neuron and a neuron of the layer that a tap joins; a weight of 0 counts."""
        return self.outputs * self.inputs_per_group * int(self.rows.taps.sum()) * int(self.columns.taps.sum())

    @property
    def weights(self) -> int:
        """Weights that at least one synapse uses."""
        used = int(self.rows.taps.any(axis=0).sum()) * int(self.columns.taps.any(axis=0).sum())
        return self.outputs * self.inputs_per_group * used

    @cached_property
    def channels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(first, end) of the source channels that each output channel reaches."""
        group = np.arange(self.outputs, dtype=np.int64) // (self.outputs // self.groups)
        return group * self.inputs_per_group, (group + 1) * self.inputs_per_group

    def fan_in(self) -> NDArray[np.int64]:
        """Synapses onto a neuron by its position, (H', W'); it is the same in every channel."""
        rows, columns = (axis.taps.sum(axis=1, dtype=np.int64) for axis in (self.rows, self.columns))
        return self.inputs_per_group * np.outer(rows, columns)

    def fan_out(self) -> NDArray[np.int64]:
        """Synapses from a source neuron by its position, (H, W); it is the same in every channel."""
        rows, columns = (axis.reaches.sum(axis=0, dtype=np.int64) for axis in (self.rows, self.columns))
        return self.outputs // self.groups * np.outer(rows, columns)

    def within(self, other: "Wiring") -> bool:
        """Whether every pair of neurons that this wiring joins is joined by the other too."""
        (first, end), (low, high) = self.channels, other.channels
        return (
            self.rows.reaches.shape == other.rows.reaches.shape
            and bool((first >= low).all() and (end <= high).all())
            and bool((self.rows.reaches <= other.rows.reaches).all())
            and bool((self.columns.reaches <= other.columns.reaches).all())
        )


def wire(network: IntegerNetwork) -> dict[str, tuple[Wiring, ...]]:
    """The wiring of every connection, by the name of its layer."""
    return {
        layer.name: tuple(
            Wiring.of(connection, network.shape_of[connection.source]) for connection in layer.connections
        )
        for layer in network.layers
    }


def largest_fan_in(wired: Sequence[Wiring]) -> int:
    """Synapses onto the neuron of a layer that has most of them, given the layer's wirings."""
    return int(np.sum([wiring.fan_in() for wiring in wired], axis=0).max())


def largest_fan_out(name: str, shape: tuple[int, ...], wired: Mapping[str, Sequence[Wiring]]) -> int:
    """Synapses from the neuron of a layer that has most of them; 0 for the read-out.

    Args:
        name, shape: of the layer.
        wired: of the whole network, as ``wire`` returns it.
    """
    total = np.zeros(volume(shape)[1:], np.int64)
    for wiring in (one for several in wired.values() for one in several):
        if wiring.source == name:
            total += wiring.fan_out()
    return int(total.max())
