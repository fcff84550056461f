"""Linear maps between layers of spikes, in float64: what the exporter collects before it makes integers."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from nqlava.errors import InputError
from nqlava.network import Pair, Reset

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


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
        is_identity: whether it only passes values on, each with a factor: weight is (C, 1, 1, 1) with groups C, or has
            at most one weight per output that is not 0.
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
        bias: float64 (O,), or (O, H, W) where it differs between positions.
        threshold: θ, in the unit of the currents, one for all neurons or float64 (O,); None for the read-out.
        initial: v(0) / θ, one for all neurons or float64 (O,).
        reset: "soft" or "hard".
        parameters: weights of the modules that were multiplied out to the connections.
        is_maximum: whether it is the maximum of spikes, step by step: its weights are 0 and 1, θ = 1, v(0) = 0, b = 0,
            and the reset is hard.
    """

    name: str
    connections: tuple[FoldedConnection, ...]
    bias: Floats
    threshold: float | Floats | None = None
    initial: float | Floats = 0.5
    reset: Reset = "soft"
    parameters: int = 0
    is_maximum: bool = False

    @property
    def bias_map(self) -> Floats:
        """The bias as it broadcasts over the output, (O,), (O, 1, 1) or (O, H, W)."""
        dims = len(self.connections[0].output_shape)
        return self.bias if self.bias.ndim == dims else self.bias.reshape(-1, *[1] * (dims - 1))

    @property
    def largest_bias(self) -> Floats:
        """max |b| per output channel, (O,)."""
        return np.abs(self.bias).reshape(len(self.bias), -1).max(axis=1)


@dataclass(frozen=True)
class Pool:
    """Maximum over windows, as torch.nn.MaxPool2d computes it."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False


@dataclass(frozen=True)
class Call:
    """What became of one call of an activation.

    Attributes:
        layers: names of the layers whose neurons stand for it, each with their places in the flattened (C, H, W)
            output of the call, before ``pools``.
        pools: maxima that were taken of its input; they are taken of its spikes now.
        outputs: names of the layers whose spikes are its output; those of ``layers``, or behind them maxima.
    """

    layers: tuple[tuple[str, Indices], ...]
    shape: tuple[int, int, int]
    pools: tuple[Pool, ...] = ()
    outputs: tuple[tuple[str, Indices], ...] = ()


@dataclass(frozen=True)
class FoldedNetwork:
    """What a trained network becomes, before rounding.

    Attributes:
        input_shape: (C, H, W) of the image.
        layers: the read-out last.
        mean, std: (C,) of the normalisation of x/255.
        calls: of the activations, in the order of the forward.
        softmax: name of the function that was left out at the end: the largest score stays the largest.
        is_prepared: whether every activation is a module NQ or RateReLU; else ``export.fold.prepare`` makes them.
        uncalibrated: names of layers whose activation has no threshold yet: ReLU, ReLU6, clamp.
        unused: paths of activations, and of modules with parameters, that no operation of the forward takes.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[FoldedLayer, ...]
    mean: Floats
    std: Floats
    calls: tuple[Call, ...] = ()
    softmax: str = ""
    is_prepared: bool = True
    uncalibrated: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def live(self) -> int:
        """Neurons at most whose output layers to come still need, the layer that is being computed included."""
        last = {c.source: number for number, layer in enumerate(self.layers) for c in layer.connections}
        sizes = [prod(layer.connections[0].output_shape) for layer in self.layers]
        return max(
            sum(size for i, size in enumerate(sizes[: n + 1]) if last.get(self.layers[i].name, n) >= n)
            for n in range(len(sizes))
        )
