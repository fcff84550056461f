"""Connections of a layer that one convolution can compute together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nqlava.network import IMAGE, INPUT_MAX, Connection, Layer


class Merged:
    """Connections from the same source, with the same shape of weights and the same geometry, as one convolution.

        2^exponent · Σ weight · in = Σ over the connections of 2^(their exponent) · Σ (their weight) · in

    Args:
        connections: at least one.
        input_shape: (C, H, W) or (N,).
        input_max: largest input: 255 for the image, 1 for spikes.

    Attributes:
        source: of the connections.
        input_shape, input_max: as given.
        is_dense: whether there is a single output position, which sees all inputs.
        convolution: geometry, windows whose sums come first, and weights (O, I/groups, kh, kw), int8 where all of them
            fit, else int64.
        exponent: of the power of two that all weights share.
        largest: input after the window sums.
        bound: A, the largest |sum|.
    """

    def __init__(self, connections: Sequence[Connection], input_shape: tuple[int, ...], input_max: int) -> None:
        self.source, self.input_shape, self.input_max = connections[0].source, input_shape, input_max
        self.is_dense = not connections[0].is_convolution
        parts = [connection.convolution(input_shape) for connection in connections]
        self.convolution, self.exponent = parts[0], connections[0].exponent
        if len(connections) > 1:
            total = np.zeros(parts[0].weight.shape, np.int64)
            for part, connection in zip(parts, connections, strict=True):
                total += part.weight.astype(np.int64) << connection.exponent
            self.exponent = _common_exponent(total)
            total >>= self.exponent
            fits = np.abs(total).max() <= np.iinfo(np.int8).max
            self.convolution = replace(parts[0], weight=total.astype(np.int8) if fits else total)
        self.largest = input_max * int(np.prod(self.convolution.window))
        rows = np.abs(self.weight.reshape(len(self.weight), -1)).sum(axis=1, dtype=np.int64)  # −128 does not occur
        self.bound = (int(rows.max()) << self.exponent) * self.largest

    @property
    def weight(self) -> NDArray[np.signedinteger[Any]]:
        """The weights of the convolution."""
        return self.convolution.weight


def merge(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> list[Merged]:
    """The connections of a layer, those together that one convolution can compute; ``shapes`` are those of sources."""
    alike: dict[tuple[Any, ...], list[Connection]] = {}
    for c in layer.connections:
        window = c.convolution(shapes[c.source]).window
        alike.setdefault((c.source, c.weight.shape, c.geometry, window), []).append(c)
    return [Merged(same, shapes[source], INPUT_MAX if source == IMAGE else 1) for (source, *_), same in alike.items()]


def _common_exponent(weight: NDArray[np.int64]) -> int:
    """Largest e for which 2^e divides every weight; 0 where all are 0."""
    bits = int(np.bitwise_or.reduce(weight, axis=None))
    return (bits & -bits).bit_length() - 1 if bits else 0
