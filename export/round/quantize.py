"""From folded float64 layers to integers: steps 4 to 6 of docs/semantics.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from export.fold.folded import ExportError, Floats, FoldedConnection, FoldedLayer, FoldedNetwork
from nqlava.network import EXPONENT_MAX, IMAGE, INPUT_MAX, MEMBRANE_MAX, Connection, IntegerNetwork, Layer

Granularity = Literal["channel", "layer"]
CONSTANT_MAX = 2**20
"""Largest threshold and bias before Δ is enlarged: 20 bits of precision, and room for v + I + b in 24."""
_DEAD = 1024  # a channel of a connection counts as dead where its weights are so many times smaller than the largest
_DIGIT = 7  # bits of the digits in which the factor of an identity shortcut is written


@dataclass(frozen=True)
class Precision:
    """How many bits weights get, and what shares a scale.

    Attributes:
        bits: of the weights, 2 … 8.
        layers: other bits for some layers, by name.
        granularity: one Δ per output channel, or one per layer; the read-out always has one.
    """

    bits: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)
    granularity: Granularity = "channel"

    def __post_init__(self) -> None:
        for place, bits in (("bits", self.bits), *((f"bits of {name}", b) for name, b in self.layers.items())):
            if not 2 <= bits <= 8:
                raise ExportError(f"{place}: is {bits}; allowed: 2..8")

    def bits_of(self, layer: FoldedLayer) -> int:
        return self.layers.get(layer.name, self.bits)

    def shares_scale(self, layer: FoldedLayer) -> bool:
        """Whether one Δ serves all output channels."""
        return self.granularity == "layer" or layer.threshold is None


@dataclass(frozen=True)
class Grid:
    """The scales of one layer.

    Attributes:
        unit: Δ, float64 (O,): what one unit of the membrane potential stands for.
        exponents: of the connections that have learned weights: their weights are multiples of 2^exponent · Δ.
        limit: largest weight, 2^(bits − 1) − 1.
    """

    unit: Floats
    exponents: tuple[int, ...]
    limit: int

    def steps(self, index: int) -> Floats:
        """Difference of two neighbouring weights of the index-th learned connection, (O, 1, 1, 1)."""
        return (self.unit * 2.0 ** self.exponents[index]).reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Rounded:
    """What rounding decides about one layer.

    Attributes:
        grid: the scales.
        weights: int8, per learned connection, of the shape of its weight.
        bias: takes the place of the folded layer's, float64 (O,); None keeps that.
    """

    grid: Grid
    weights: Sequence[NDArray[np.int8]]
    bias: Floats | None = None


class Rounding(Protocol):
    """Chooses the integers of one layer after the other; it is told every layer when it is made."""

    def __call__(self, layer: FoldedLayer, precision: Precision) -> Rounded: ...

    def finished(self, layer: Layer) -> None: ...


def quantize(
    folded: FoldedNetwork,
    *,
    precision: Precision | None = None,
    rounding: Rounding | None = None,
    info: Mapping[str, str | int | float] | None = None,
) -> tuple[IntegerNetwork, tuple[Floats, ...]]:
    """The integer network, and per layer the Δ (O,) that one unit of its membrane potential stands for.

    Args:
        folded: what is exported.
        precision: 8 bits and one scale per channel without it.
        rounding: to the nearest integers, on the grid of ``choose_grid``, without it.
        info: for the network.

    Raises:
        ExportError: a bias that does not fit into 24 bits, or bits for a layer that is not there.
        NetworkError: layers that do not fit each other.
    """
    precision = precision or Precision()
    if folded.uncalibrated:
        raise ExportError(
            f"{folded.uncalibrated[0]}: its activation has no threshold; allowed: export.convert, which finds one on "
            "images, or NQ or RateReLU in its place"
        )
    names = [layer.name for layer in folded.layers]
    for name in precision.layers:
        if name not in names:
            raise ExportError(f"bits of {name}: no such layer; allowed: {', '.join(names)}")
    layers: list[Layer] = []
    units: list[Floats] = []
    for layer in folded.layers:
        if layer.is_maximum:
            layers.append(_maximum(layer))
            units.append(np.ones(len(layer.bias)))
            if rounding is not None:
                rounding.finished(layers[-1])
            continue
        if rounding is None:
            grid = choose_grid(layer, folded, precision)
            rounded = Rounded(grid, nearest(layer, folded, grid))
        else:
            rounded = rounding(layer, precision)
        layers.append(integer_layer(layer, folded, rounded.grid, rounded.weights, rounded.bias))
        units.append(rounded.grid.unit)
        if rounding is not None:
            rounding.finished(layers[-1])
    return IntegerNetwork(folded.input_shape, tuple(layers), info or {}), tuple(units)


def _maximum(layer: FoldedLayer) -> Layer:
    """The layer that fires where a spike arrives: weights 0 and 1, θ = 1, v(0) = 0, b = 0, hard reset."""
    zeros = np.zeros(len(layer.bias), np.int32)
    connections = tuple(_connection(c, c.weight.astype(np.int8), 0) for c in layer.connections)
    return Layer(layer.name, connections, zeros, zeros + 1, zeros, "hard")


def nearest(layer: FoldedLayer, folded: FoldedNetwork, grid: Grid) -> list[NDArray[np.int8]]:
    """The nearest integers, half to even, per learned connection."""
    return [
        np.clip(np.rint(effective(c, folded) / grid.steps(i)), -grid.limit, grid.limit).astype(np.int8)
        for i, c in enumerate(learned(layer))
    ]


def learned(layer: FoldedLayer) -> list[FoldedConnection]:
    """The connections with weights of their own, in order; the others are identity shortcuts."""
    return [c for c in layer.connections if not c.is_identity or c.source == IMAGE]


def effective(connection: FoldedConnection, folded: FoldedNetwork) -> Floats:
    """Weights per unit of the integer input: spikes summed over the window, or pixels 0 … 255."""
    weight = connection.weight / (connection.window[0] * connection.window[1])
    if connection.source != IMAGE:
        return weight
    factor = (1 / (INPUT_MAX * folded.std)).reshape(connection.groups, -1)
    return weight * factor.repeat(len(weight) // connection.groups, axis=0)[:, :, None, None]


def choose_grid(
    layer: FoldedLayer, folded: FoldedNetwork, precision: Precision, ranges: Sequence[Floats] | None = None
) -> Grid:
    """Δ and the exponents of one layer.

    A connection alone would use steps g = range / limit per channel, where the range is max|w|, or what is given. With
    b bits its exponent is 8 − b, so that Δ, in which θ and b are rounded, is as fine as with 8 bits. Of several
    connections those with larger steps get larger exponents: the exponent of k grows by the rounded median of
    log2(g_k / smallest g) over the channels in which no connection is dead (below 1/1024 of its largest g). Then
    Δ = max over k of g_k / 2^exponent, at least max(λ, |b|, |factor of an identity shortcut|) / 2²⁰, and 1 where all of
    it is 0.

    Args:
        layer, folded, precision: what is exported, and how.
        ranges: per learned connection (O,), the weight that the largest integer stands for.
    """
    bits = precision.bits_of(layer)
    limit = 2 ** (bits - 1) - 1
    largest = layer.largest_bias if layer.threshold is None else np.maximum(layer.largest_bias, layer.threshold)
    for connection in layer.connections:
        if connection.is_identity and connection.source != IMAGE:
            factors = np.abs(effective(connection, folded)).reshape(len(largest), -1)
            largest = np.maximum(largest, factors.max(axis=1))
    unit = largest / CONSTANT_MAX
    if ranges is None:
        ranges = [np.abs(effective(c, folded)).reshape(len(unit), -1).max(axis=1) for c in learned(layer)]
    steps = [reach / limit for reach in ranges]
    exponents = [8 - bits] * len(steps)
    alive = np.all([g > g.max() / _DEAD for g in steps], axis=0)
    if len(steps) > 1 and alive.any():
        logarithms = [np.log2(g[alive]) for g in steps]
        smallest = np.min(logarithms, axis=0)
        exponents = [min(EXPONENT_MAX, 8 - bits + round(float(np.median(value - smallest)))) for value in logarithms]
    for g, exponent in zip(steps, exponents, strict=True):
        unit = np.maximum(unit, g / 2.0**exponent)
    if precision.shares_scale(layer):
        unit = np.full_like(unit, unit.max())
    return Grid(np.where(unit > 0, unit, 1.0), tuple(exponents), limit)


def integer_layer(
    layer: FoldedLayer,
    folded: FoldedNetwork,
    grid: Grid,
    weights: Sequence[NDArray[np.int8]],
    bias: Floats | None = None,
) -> Layer:
    """The layer with the given integers for its learned connections; θ, b and identity shortcuts are rounded here.

    Args:
        layer, folded: what is exported.
        grid: from ``choose_grid``.
        weights: per learned connection, of the shape of its weight.
        bias: takes the place of ``layer.bias``, of its shape.
    """
    connections: list[Connection] = []
    shift: NDArray[np.float64] | float = 0.0
    remaining = iter(zip(weights, grid.exponents, strict=True))
    for connection in layer.connections:
        if connection.is_identity and connection.source != IMAGE:
            connections += _identity(connection, grid.unit)
            continue
        weight, exponent = next(remaining)
        connections.append(_connection(connection, weight, exponent))
        if connection.source == IMAGE:
            shift = shift + _image_shift(connections[-1], folded)
    scaled = layer.bias if bias is None else bias
    scaled = scaled / grid.unit.reshape(-1, *[1] * (scaled.ndim - 1))
    if isinstance(shift, np.ndarray):
        varies = scaled.ndim == 3
        scaled = scaled.reshape(-1, *[1] * (shift.ndim - 1)) if not varies else scaled
        scaled = scaled - shift
        if shift.ndim == 3 and not varies and all(c.padding == (0, 0) for c in connections if c.source == IMAGE):
            scaled = scaled[:, 0, 0]
    scaled = np.rint(scaled)
    if np.abs(scaled).max() > MEMBRANE_MAX:
        raise ExportError(f"{layer.name}: bias is {scaled.flat[np.abs(scaled).argmax()]:.0f}; allowed: ±{MEMBRANE_MAX}")
    threshold = None
    v0 = np.zeros(len(grid.unit), np.int32)
    if layer.threshold is not None:
        threshold = np.maximum(1, np.rint(layer.threshold / grid.unit)).astype(np.int32)
        v0 = np.floor(threshold * layer.initial).astype(np.int32)
    return Layer(layer.name, tuple(connections), scaled.astype(np.int32), threshold, v0, layer.reset)


def _connection(connection: FoldedConnection, weight: NDArray[np.int8], exponent: int) -> Connection:
    """A connection to the source itself: weights repeat over the windows of average pooling."""
    expanded = connection.expand(weight)
    if connection.is_dense:
        return Connection(connection.source, _matrix(connection, expanded), exponent)
    (py, px), (sy, sx), (my, mx) = connection.window, connection.stride, connection.padding
    return Connection(
        connection.source,
        expanded,
        exponent,
        stride=(py * sy, px * sx),
        padding=(py * my, px * mx),
        dilation=connection.dilation,
        groups=connection.groups,
    )


def _matrix(connection: FoldedConnection, weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """(O, N) of a dense connection; one with groups is a diagonal matrix."""
    return np.diag(weight.ravel()) if connection.groups > 1 else weight.reshape(len(weight), -1)


def _identity(connection: FoldedConnection, unit: Floats) -> list[Connection]:
    """An identity shortcut: its factor, rounded to an integer a per channel, in digits a = Σ d_i · 2^(7 i), |d_i| ≤ 64.

    The digits are connections of their own, so that the factor is not limited to 8 bits; Δ keeps it below 2²⁰.
    """
    factor = connection.weight / (connection.window[0] * connection.window[1]) / unit.reshape(-1, 1, 1, 1)
    rest = np.rint(factor).astype(np.int64)
    connections: list[Connection] = []
    for exponent in range(0, EXPONENT_MAX, _DIGIT):
        digit = (rest + 2 ** (_DIGIT - 1)) % 2**_DIGIT - 2 ** (_DIGIT - 1) if exponent < 2 * _DIGIT else rest
        rest = (rest - digit) >> _DIGIT
        if digit.any() or (not connections and not rest.any()):
            connections.append(_connection(connection, digit.astype(np.int8), exponent))
    return connections


def _image_shift(connection: Connection, folded: FoldedNetwork) -> Floats:
    """Σ 2^e · w · 255 m over the taps inside the image, in units of Δ: (O, H, W) or (O,)."""
    mean = torch.tensor(INPUT_MAX * folded.mean).reshape(1, -1, 1, 1).expand(1, *folded.input_shape)
    weight = torch.tensor(connection.weight, dtype=torch.float64) * 2**connection.exponent
    if not connection.is_convolution:
        return (weight @ mean.flatten()).numpy()
    return F.conv2d(mean, weight, None, *connection.geometry)[0].numpy()
