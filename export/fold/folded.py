"""Linear maps between layers of spikes, in float64: what the exporter collects before it makes integers."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nqlava.errors import InputError
from nqlava.network import Pair, Reset

Floats = NDArray[np.float64]


class ExportError(InputError):
    """A network that cannot be exported: the message names the place, what is there and what is allowed."""


@dataclass(frozen=True)
class FoldedConnection:
    """A linear map from one source to the inputs of a layer: window averages of the source, then a convolution.

    Attributes:
        source: name of a layer, or "input" for the normalised image.
        source_shape: (C, H, W) or (N,).
        weight: float64 (O, I/groups, kh, kw) over the window means. A dense connection has kh × kw equal to the size
            of the window means, and (O, N, 1, 1) behind (N,).
        window: (y, x) of the averaging; (1, 1) for none.
        stride, padding, dilation, groups: of the convolution over the window means.
        is_dense: whether the output is (O,) instead of (O, H, W).
        is_identity: whether it only passes channels on, each with a factor: weight is (C, 1, 1, 1), groups C.
    """

    source: str
    source_shape: tuple[int, ...]
    weight: Floats
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    is_dense: bool = False
    is_identity: bool = False

    @property
    def pooled_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the window means."""
        channels, *size = self.source_shape if len(self.source_shape) == 3 else (*self.source_shape, 1, 1)
        return channels, size[0] // self.window[0], size[1] // self.window[1]

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """(O, H, W) or (O,)."""
        if self.is_dense:
            return (len(self.weight),)
        size = tuple(
            (extent + 2 * m - d * (k - 1) - 1) // s + 1
            for extent, m, d, k, s in zip(
                self.pooled_shape[1:], self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        )
        return (len(self.weight), *size)

    def scaled(self, gain: Floats) -> "FoldedConnection":
        """With output channel o times gain[o]."""
        return replace(self, weight=self.weight * gain.reshape(-1, 1, 1, 1))

    def expand(self, weight: NDArray) -> NDArray:
        """``weight``, of the shape of ``self.weight``, repeated over the windows: what acts on the source itself.

        Sums over windows take the place of means, so the factor 1/(window size) is not applied here.
        """
        return weight.repeat(self.window[0], axis=2).repeat(self.window[1], axis=3)


@dataclass(frozen=True)
class FoldedLayer:
    """Neurons and what they receive; a spike of a source has the amplitude 1 here, the image is normalised.

    Attributes:
        name: path of the module whose output the neurons take.
        connections: at least one.
        bias: float64 (O,).
        threshold: θ, in the unit of the currents; None for the read-out.
        initial: v(0) / θ, one for all neurons or float64 (O,).
        reset: "soft" or "hard".
    """

    name: str
    connections: tuple[FoldedConnection, ...]
    bias: Floats
    threshold: float | None = None
    initial: float | Floats = 0.5
    reset: Reset = "soft"


@dataclass(frozen=True)
class FoldedNetwork:
    """Attributes: input_shape (C, H, W); layers, the read-out last; mean and std (C,) of the normalisation of x/255."""

    input_shape: tuple[int, int, int]
    layers: tuple[FoldedLayer, ...]
    mean: Floats
    std: Floats


@dataclass(frozen=True)
class Value:
    """What a node of the trained network carries: an affine function of sources, at one moment.

    Attributes:
        name: path of the module that it comes from.
        terms: connections that add up.
        bias: float64 (C,).
        shape: (C, H, W) or (N,).
    """

    name: str
    terms: tuple[FoldedConnection, ...]
    bias: Floats
    shape: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it is spikes or pooled spikes, possibly several added up, to which weights may be applied."""
        return all(term.is_identity for term in self.terms) and not self.bias.any()


def source_value(name: str, shape: tuple[int, ...], amplitude: float) -> Value:
    """The output of a layer whose spikes stand for ``amplitude``."""
    weight = np.full((shape[0], 1, 1, 1), amplitude)
    term = FoldedConnection(name, shape, weight, groups=shape[0], is_identity=True, is_dense=len(shape) == 1)
    return Value(name, (term,), np.zeros(shape[0]), shape)


def scale(value: Value, gain: Floats, shift: Floats) -> Value:
    """gain · value + shift per channel, as batch norm in evaluation mode."""
    terms = tuple(term.scaled(gain) for term in value.terms)
    return replace(value, terms=terms, bias=value.bias * gain + shift)


def add(one: Value, two: Value) -> Value:
    """one + two, of the same shape."""
    return replace(one, terms=one.terms + two.terms, bias=one.bias + two.bias)


def convolve(
    value: Value, name: str, weight: Floats, bias: Floats, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Value:
    """A convolution of a plain value (C, H, W)."""
    per_group = len(weight) // groups
    terms = []
    for term in value.terms:
        # The factor of input channel i, for output channel o and its i-th input.
        factor = term.weight.reshape(groups, -1).repeat(per_group, axis=0)
        scaled = weight * factor[:, :, None, None]
        terms.append(
            replace(
                term,
                weight=scaled,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                is_identity=False,
            )
        )
    return Value(name, tuple(terms), bias, terms[0].output_shape)


def apply_matrix(value: Value, name: str, weight: Floats, bias: Floats) -> Value:
    """A matrix (O, N) behind a plain value flattened in (C, H, W) order."""
    terms = []
    for term in value.terms:
        shape = term.pooled_shape
        scaled = weight.reshape(-1, *shape) * term.weight.reshape(1, -1, 1, 1)
        terms.append(replace(term, weight=scaled, groups=1, is_dense=True, is_identity=False))
    return Value(name, tuple(terms), bias, (len(weight),))


def average(value: Value, window: Pair) -> Value:
    """Mean over windows of a value (C, H, W); where spikes are pooled, the windows divide H and W."""
    terms = tuple(_average(term, window) for term in value.terms)
    return replace(value, terms=terms, shape=terms[0].output_shape)


def _average(term: FoldedConnection, window: Pair) -> FoldedConnection:
    """Means of windows of means are means of larger windows; behind a convolution the kernel becomes larger.

    With kernel w, stride s and dilation d, the mean of p outputs is a convolution with kernel (1/p) Σ_i w[a − i·s],
    stride p·s and the same padding.
    """
    if term.is_identity:
        return replace(term, window=(term.window[0] * window[0], term.window[1] * window[1]))
    weight = _undilated(term.weight, term.dilation)
    kernel = np.zeros(
        weight.shape[:2] + tuple(k + (p - 1) * s for k, p, s in zip(weight.shape[2:], window, term.stride, strict=True))
    )
    for i in range(window[0]):
        for j in range(window[1]):
            y, x = i * term.stride[0], j * term.stride[1]
            kernel[:, :, y : y + weight.shape[2], x : x + weight.shape[3]] += weight / (window[0] * window[1])
    stride = (term.stride[0] * window[0], term.stride[1] * window[1])
    return replace(term, weight=kernel, stride=stride, dilation=(1, 1))


def _undilated(weight: Floats, dilation: Pair) -> Floats:
    """The same kernel with dilation 1: zeros between the taps."""
    size = tuple(d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
    kernel = np.zeros(weight.shape[:2] + size)
    kernel[:, :, :: dilation[0], :: dilation[1]] = weight
    return kernel
