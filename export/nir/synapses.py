"""The synapses between two populations of a NIR graph, from the nodes on the way between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from export.nir.values import Array, CheckedNodes, GraphError, integers, pair
from nqlava.network import EXPONENT_MAX, Connection, Pair

WEIGHTS = (nir.Conv2d, nir.Affine, nir.Linear)
POOLING = (nir.SumPool2d, nir.AvgPool2d)
BETWEEN = (*WEIGHTS, *POOLING, nir.Flatten, nir.Scale)
"""Nodes that synapses consist of."""
_MAX_WEIGHTS = 2**28
"""Geometry of one connection, as in a netx file."""


@dataclass
class Synapses:
    """What one way through the graph, from a source to neurons, does to what it carries.

    Attributes:
        window: pooling before the weights, summed over (y, x).
        divisor: what is left of averages when windows are summed: y · x.
        weight: (O, I/groups, kh, kw) or (O, N); None so far.
        bias: (O,), or (O, H, W).
        flat: whether it was flattened.
    """

    window: Pair = (1, 1)
    divisor: int = 1
    weight: Array | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: Array | None = None
    flat: bool = False


class SynapseReader(CheckedNodes):
    """Reads the nodes between populations, as ``CheckedNodes`` does values."""

    def synapses(self, path: Sequence[str], shape: tuple[int, ...]) -> Synapses:
        """The nodes of a path as one affine map."""
        found = Synapses()
        for name in path:
            node = self.nodes[name]
            if isinstance(node, POOLING):
                self._pool(name, node, found, shape)
            elif isinstance(node, nir.Flatten):
                if found.weight is not None:
                    self.fail(name, "place", "behind weights", "between neurons and weights")
                found.flat = True
            elif isinstance(node, nir.Scale):
                self._scale(name, node, found, shape)
            else:
                self._weigh(name, node, found, shape)
        if found.weight is None and path and found.flat:
            self.fail(path[-1], "target", "neurons", "Affine or Linear behind Flatten")
        if found.weight is None:
            found.weight = self._factors(np.ones(shape[0]), found, len(shape) == 3)
        return found

    def _pool(self, name: str, node: Any, found: Synapses, shape: tuple[int, ...]) -> None:
        if found.weight is not None or found.flat:
            self.fail(name, "place", "behind weights or Flatten", "between neurons and weights")
        kernel, stride, padding = (pair(value) for value in (node.kernel_size, node.stride, node.padding))
        if kernel is None or min(kernel) < 1 or stride != kernel or padding != (0, 0):
            shown = f"{node.kernel_size}, stride {node.stride}, padding {node.padding}"
            self.fail(name, "kernel_size", shown, "windows that do not overlap, without padding")
        found.window = (found.window[0] * kernel[0], found.window[1] * kernel[1])
        if len(shape) != 3 or found.window[0] > shape[1] or found.window[1] > shape[2]:
            self.fail(name, "kernel_size", node.kernel_size, f"windows within {shape}")
        if isinstance(node, nir.AvgPool2d):
            found.divisor *= math.prod(kernel)

    def _weigh(self, name: str, node: Any, found: Synapses, shape: tuple[int, ...]) -> None:
        if found.weight is not None:
            self.fail(name, "place", "behind other weights", "one node with weights between neurons")
        weight = self.finite(name, "weight", node.weight)
        bias = self.finite(name, "bias", node.bias) if hasattr(node, "bias") else np.zeros(len(weight))
        wanted = 4 if isinstance(node, nir.Conv2d) else 2
        if weight.ndim != wanted or 0 in weight.shape:
            allowed = "(O, I, kh, kw)" if wanted == 4 else "(O, N)"
            self.fail(name, "weight", f"of shape {weight.shape}", allowed)
        if bias.shape != weight.shape[:1]:
            self.fail(name, "bias", f"of shape {bias.shape}", str(weight.shape[:1]))
        if isinstance(node, nir.Conv2d):
            if found.flat:
                self.fail(name, "place", "behind Flatten", "Affine or Linear there")
            self._geometry(name, node, found)
            declared = None if node.input_shape is None else integers(node.input_shape)
            size = tuple(n // by for n, by in zip(shape[1:], found.window, strict=False))
            if declared is not None and declared != size:
                self.fail(name, "input_shape", declared, str(size))
        elif len(shape) == 3 and not found.flat and shape[1:] != (1, 1):
            self.fail(name, "source", f"of shape {shape}", "Flatten between them")
        found.weight, found.bias = weight, bias

    def _geometry(self, name: str, node: nir.Conv2d, found: Synapses) -> None:
        stride, dilation = pair(node.stride), pair(node.dilation)
        padding = self._padding(name, node, stride, dilation)
        groups = integers(node.groups)
        for key, value, low in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
            if value is None or min(value) < low:
                self.fail(name, key, getattr(node, key), f"two integers of at least {low}")
        if groups is None or len(groups) != 1 or groups[0] < 1:
            self.fail(name, "groups", node.groups, "an integer of at least 1")
        assert stride is not None and dilation is not None and padding is not None
        found.stride, found.dilation, found.padding, found.groups = stride, dilation, padding, groups[0]

    def _padding(self, name: str, node: nir.Conv2d, stride: Pair | None, dilation: Pair | None) -> Pair | None:
        if not isinstance(node.padding, str | bytes):
            return pair(node.padding)
        padding = node.padding.decode("ascii", "replace") if isinstance(node.padding, bytes) else node.padding
        if padding == "valid":
            return 0, 0
        reach = [d * (k - 1) for d, k in zip(dilation or (1, 1), node.weight.shape[2:], strict=True)]
        if padding != "same" or stride != (1, 1) or any(n % 2 for n in reach):
            self.fail(name, "padding", padding, "integers, 'valid', or 'same' of odd kernels with stride 1")
        return reach[0] // 2, reach[1] // 2

    def _scale(self, name: str, node: nir.Scale, found: Synapses, shape: tuple[int, ...]) -> None:
        scale = self.finite(name, "scale", node.scale)
        if found.flat and found.weight is None:
            self.fail(name, "place", "behind Flatten", "Affine or Linear there")
        if found.weight is None:
            size = tuple(n // by for n, by in zip(shape[1:], found.window, strict=False))
            if scale.shape != (shape[0], *size):
                self.fail(name, "scale", f"of shape {scale.shape}", str((shape[0], *size)))
            factors = self.channels(name, "scale", scale, (shape[0], *size))
            found.weight = self._factors(factors, found, len(shape) == 3)
            return
        outputs = len(found.weight)
        if scale.shape[:1] != (outputs,):
            self.fail(name, "scale", f"of shape {scale.shape}", f"({outputs}, ...)")
        factors = scale.reshape(outputs, -1)
        if found.weight.any() and (factors != factors[:, :1]).any():
            self.fail(name, "scale", "different within a channel", "one factor per channel behind weights")
        found.weight = found.weight * factors[:, 0].reshape(-1, *(1,) * (found.weight.ndim - 1))
        if found.bias is not None:
            found.bias = found.bias.reshape(found.bias.shape + (1,) * (scale.ndim - found.bias.ndim)) * scale

    def _factors(self, factors: Array, found: Synapses, maps: bool) -> Array:
        """Weights that multiply each channel of maps, or each neuron, by a factor of its own."""
        if maps:
            found.groups = len(factors)
            return factors.reshape(-1, 1, 1, 1)
        if len(factors) ** 2 > _MAX_WEIGHTS:
            raise GraphError(f"graph: factors for {len(factors)} neurons; allowed: {math.isqrt(_MAX_WEIGHTS)}")
        return np.diag(factors)

    def connection(self, name: str, found: Synapses, shape: tuple[int, ...], source: str) -> Connection:
        """The synapses in integers, with the pooling in their kernels."""
        assert found.weight is not None
        weight = found.weight / found.divisor  # exact where it gives integers
        y, x = found.window
        if weight.size * y * x > _MAX_WEIGHTS:
            self.fail(name, "weight", f"{weight.size} values with windows of {y} x {x}", f"at most {_MAX_WEIGHTS}")
        if weight.ndim == 4:
            if found.window != (1, 1):
                if found.dilation != (1, 1):
                    self.fail(name, "dilation", found.dilation, "(1, 1) behind pooling")
                for length, by, border in zip(shape[1:], found.window, found.padding, strict=True):
                    if border and length % by:
                        self.fail(name, "padding", found.padding, f"0 behind pooling of {length} by {by}")
                weight = weight.repeat(y, 2).repeat(x, 3)
        elif found.window != (1, 1):
            size = [n // by for n, by in zip(shape[1:], found.window, strict=True)]
            if weight.shape[1] != shape[0] * math.prod(size):
                self.fail(name, "weight", f"of shape {weight.shape}", f"(O, {shape[0] * math.prod(size)})")
            weight = weight.reshape(len(weight), shape[0], *size).repeat(y, 2).repeat(x, 3)
            rest = [n - by * count for n, by, count in zip(shape[1:], found.window, size, strict=True)]
            weight = np.pad(weight, ((0, 0), (0, 0), (0, rest[0]), (0, rest[1]))).reshape(len(weight), -1)
        integers, exponent = self._integer_weights(name, weight)
        if weight.ndim == 2:
            return Connection(source, integers, exponent)
        stride = (found.stride[0] * y, found.stride[1] * x)
        padding = (found.padding[0] * y, found.padding[1] * x)
        return Connection(source, integers, exponent, stride, padding, found.dilation, found.groups)

    def _integer_weights(self, name: str, weight: Array) -> tuple[NDArray[np.int8], int]:
        """int8 and an exponent: the one in the metadata, or the smallest that there is."""
        if (weight != np.rint(weight)).any():
            worst = weight[weight != np.rint(weight)].flat[0]
            allowed = "integers; train or fine-tune the network here and quantize it with export.to_netx"
            self.fail(name, "weight", worst, allowed)
        low, high = 0, EXPONENT_MAX
        if self.own and "exponent" in self.nodes[name].metadata:
            low = high = self.number(name, "exponent", 0, EXPONENT_MAX)
        for exponent in range(low, high + 1):
            scaled = weight / 2**exponent
            if np.abs(scaled).max() <= 127 and (scaled == np.rint(scaled)).all():
                return scaled.astype(np.int8), exponent
        largest = weight.flat[np.abs(weight).argmax()]
        allowed = f"-127..127 times one power of two, 2^{low} to 2^{high}, for all weights of a node"
        self.fail(name, "weight", f"{largest:g}", allowed)
