"""The integer network that a NIR graph computes, where it is one; docs/nir.md says how nodes are read."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import nir
import numpy as np
from numpy.typing import NDArray

from export.network import EXPONENT_MAX, IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer, Pair, Reset
from export.nir_graph import FORMAT, SUBTRACT, TO_RESET, VERSION

Spike = Literal[">", ">="]
_NEURONS = (nir.IF, nir.I)
_WEIGHTS = (nir.Conv2d, nir.Affine, nir.Linear)
_POOLING = (nir.SumPool2d, nir.AvgPool2d)
_BETWEEN = (*_WEIGHTS, *_POOLING, nir.Flatten, nir.Scale)
_MAX_WEIGHTS = 2**28
"""Of one connection, as in a netx file."""
Array = NDArray[np.float64]


class GraphError(ValueError):
    """A graph that is no integer network: the message names the node, what it is and what is allowed."""


@dataclass(frozen=True)
class Reading:
    """How IF nodes are read whose graph does not say it. The defaults are NIR's equations.

    Attributes:
        spike: where a neuron fires, v > v_threshold or v >= v_threshold.
        reset: "hard" sets v to v_reset, "soft" subtracts v_threshold.
    """

    spike: Spike = ">"
    reset: Reset = "hard"


@dataclass(frozen=True)
class Imported:
    """Attributes: network; own: whether export.to_nir made the graph; changed: whether its digest is another since."""

    network: IntegerNetwork
    own: bool
    changed: bool


def to_network(graph: nir.NIRGraph, reading: Reading | None = None) -> Imported:
    """The integer network that the graph computes.

    Args:
        graph: nodes Input, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, IF, I and Output, without
            loops, with integer weights, biases and thresholds.
        reading: what IF nodes do, in a graph that was not made by ``export.nir_graph``.

    Raises:
        GraphError, NetworkError: the graph is something else.
    """
    own = graph.metadata.get("format") == FORMAT
    if own and graph.metadata.get("version") != VERSION:
        raise GraphError(f"graph: metadata version is {graph.metadata.get('version')}; allowed: {VERSION}")
    network = _Reader(graph, own, reading or Reading()).network()
    if not own:
        return Imported(network, own, False)
    changed = graph.metadata.get("digest") != network.digest()
    # Accuracies and origins belong to the network that was exported.
    info = {} if changed else _info(graph.metadata.get("info", "{}"))
    return Imported(IntegerNetwork(network.input_shape, network.layers, info), own, changed)


def _info(text: object) -> dict[str, str | int | float]:
    try:
        found = json.loads(text)  # type: ignore[arg-type]
        if isinstance(found, dict) and all(isinstance(value, str | int | float) for value in found.values()):
            return found
    except (TypeError, ValueError, RecursionError):
        pass
    raise GraphError(f"graph: metadata info is {str(text)[:80]!r}; allowed: a JSON object of strings and numbers")


@dataclass
class _Synapses:
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


class _Reader:
    def __init__(self, graph: nir.NIRGraph, own: bool, reading: Reading) -> None:
        self._nodes: Mapping[str, nir.NIRNode] = graph.nodes
        self._own, self._reading = own, reading
        self._before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            for name in (source, target):
                if name not in self._nodes:
                    raise GraphError(f"edge {source} to {target}: there is no node {name}")
            if source in self._before[target]:
                raise GraphError(f"edge {source} to {target}: it is there twice; allowed: once")
            self._before[target].append(source)

    def fail(self, name: str, key: str, value: object, allowed: str) -> NoReturn:
        value = " ".join(str(value).split())[:200]
        raise GraphError(f"node {name} ({type(self._nodes[name]).__name__}): {key} is {value}; allowed: {allowed}")

    def network(self) -> IntegerNetwork:
        for name, node in self._nodes.items():
            if not isinstance(node, (nir.Input, nir.Output, *_NEURONS, *_BETWEEN)):
                allowed = "Input, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, IF, I, Output"
                self.fail(name, "type", type(node).__name__, allowed)
        source = self._only(nir.Input)
        shape = _integers(self._nodes[source].input_type["input"])
        if shape is None or len(shape) not in (1, 3) or min(shape) < 1:
            self.fail(source, "shape", self._nodes[source].input_type["input"], "(C, H, W), or (N,)")
        self._shapes: dict[str, tuple[int, ...]] = {source: shape if len(shape) == 3 else (*shape, 1, 1)}
        self._names = {source: IMAGE}
        layers = []
        for name in self._populations():
            layer = self._layer(name)
            layers.append(layer)
            self._names[name] = layer.name
        return IntegerNetwork(self._shapes[source], tuple(layers))  # type: ignore[arg-type]

    def _only(self, kind: type) -> str:
        found = [name for name, node in self._nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise GraphError(f"graph: {kind.__name__} nodes are {', '.join(found) or 'none'}; allowed: one")
        return found[0]

    def _populations(self) -> list[str]:
        """The nodes that become layers: behind their sources, and as their graph numbers them if it does."""
        output = self._only(nir.Output)
        readout = output
        if len(self._before[output]) == 1:
            before = self._before[output][0]
            if isinstance(self._nodes[before], nir.IF):
                allowed = "I, Affine or Linear: the read-out integrates and does not spike"
                self.fail(output, "source", f"{before} (IF)", allowed)
            readout = before if isinstance(self._nodes[before], nir.I) else output
        found: list[str] = []
        active: set[str] = set()
        seen: set[str] = set()
        stack = [(readout, False)]
        while stack:
            name, done = stack.pop()
            if done:
                active.discard(name)
                seen.add(name)
                if name == readout or isinstance(self._nodes[name], _NEURONS):
                    found.append(name)
                continue
            if name in active:
                self.fail(name, "place", "in a loop of edges", "graphs without recurrent connections")
            if name in seen:
                continue
            active.add(name)
            stack.append((name, True))
            stack += [(source, False) for source in reversed(self._before[name])]
        for name, node in self._nodes.items():
            if isinstance(node, _NEURONS) and name not in seen:
                self.fail(name, "target", "none that leads to the Output", "only what the read-out needs")
            if isinstance(node, nir.I) and name != readout:
                self.fail(name, "place", "between other nodes", "I directly before the Output only")
        if self._own:
            return sorted(found, key=lambda name: self._number(name, "layer", 0, len(found) - 1))
        return found

    def _layer(self, name: str) -> Layer:
        node = self._nodes[name]
        connections: list[tuple[int, Connection]] = []
        biases: list[Array] = []
        for before in self._before[name]:
            path, source = self._path(before)
            if source not in self._shapes:
                self.fail(name, "source", source, "nodes that come before")
            synapses = self._synapses(path, self._shapes[source])
            if synapses.bias is not None:
                biases.append(synapses.bias)
            constant = path and isinstance(self._nodes[path[-1]], nir.Scale) and len(path) > 1
            if constant and synapses.weight is not None and not synapses.weight.any():
                continue  # a constant current
            end = path[-1] if path else name
            number = len(connections)
            if self._own and path:
                number = self._number(end, "connection", 0, len(self._before[name]))
            connections.append((number, self._connection(end, synapses, self._shapes[source], self._names[source])))
        if not connections:
            self.fail(name, "sources", "none", "at least one with weights")
        ordered = tuple(connection for _, connection in sorted(connections, key=lambda one: one[0]))
        sources = {self._names[key]: shape for key, shape in self._shapes.items()}
        shape = ordered[0].output_shape(sources[ordered[0].source])
        threshold: NDArray[np.int32] | None = None
        reset: Reset = "soft"
        v0 = np.zeros(shape[:1], np.int32)
        if isinstance(node, nir.IF):
            threshold, reset, start = self._threshold(name, node, shape)
            v0 += start
        if isinstance(node, nir.Output):
            if _integers(node.output_type["output"]) != shape:
                self.fail(name, "shape", node.output_type["output"], str(shape))
        elif (self._channels(name, "r", node.r, shape) != 1).any():
            self.fail(name, "r", "not 1 everywhere", "1: put it into the weights")
        if self._own:
            v0 = self._whole(name, "metadata v_initial", node.metadata.get("v_initial"))
        label = node.metadata.get("name") if self._own else _label(name)
        if not isinstance(label, str):
            self.fail(name, "metadata name", label, "a string")
        layer = Layer(label, ordered, self._bias(name, biases, shape), threshold, v0, reset)
        self._shapes[name] = layer.output_shape(sources)
        return layer

    def _path(self, end: str) -> tuple[list[str], str]:
        """The nodes between neurons and their source, in the direction of the edges, and that source."""
        path: list[str] = []
        while isinstance(self._nodes[end], _BETWEEN):
            path.append(end)
            if len(self._before[end]) != 1:
                self.fail(end, "number of sources", len(self._before[end]), "1; only IF, I and Output nodes sum")
            end = self._before[end][0]
        return path[::-1], end

    def _synapses(self, path: Sequence[str], shape: tuple[int, ...]) -> _Synapses:
        """The nodes of a path as one affine map."""
        found = _Synapses()
        for name in path:
            node = self._nodes[name]
            if isinstance(node, _POOLING):
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

    def _pool(self, name: str, node: Any, found: _Synapses, shape: tuple[int, ...]) -> None:
        if found.weight is not None or found.flat:
            self.fail(name, "place", "behind weights or Flatten", "between neurons and weights")
        kernel, stride, padding = (_pair(value) for value in (node.kernel_size, node.stride, node.padding))
        if kernel is None or min(kernel) < 1 or stride != kernel or padding != (0, 0):
            shown = f"{node.kernel_size}, stride {node.stride}, padding {node.padding}"
            self.fail(name, "kernel_size", shown, "windows that do not overlap, without padding")
        found.window = (found.window[0] * kernel[0], found.window[1] * kernel[1])
        if len(shape) != 3 or found.window[0] > shape[1] or found.window[1] > shape[2]:
            self.fail(name, "kernel_size", node.kernel_size, f"windows within {shape}")
        if isinstance(node, nir.AvgPool2d):
            found.divisor *= math.prod(kernel)

    def _weigh(self, name: str, node: Any, found: _Synapses, shape: tuple[int, ...]) -> None:
        if found.weight is not None:
            self.fail(name, "place", "behind other weights", "one node with weights between neurons")
        weight = self._finite(name, "weight", node.weight)
        bias = self._finite(name, "bias", node.bias) if hasattr(node, "bias") else np.zeros(len(weight))
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
            declared = None if node.input_shape is None else _integers(node.input_shape)
            size = tuple(n // by for n, by in zip(shape[1:], found.window, strict=False))
            if declared is not None and declared != size:
                self.fail(name, "input_shape", declared, str(size))
        elif len(shape) == 3 and not found.flat and shape[1:] != (1, 1):
            self.fail(name, "source", f"of shape {shape}", "Flatten between them")
        found.weight, found.bias = weight, bias

    def _geometry(self, name: str, node: nir.Conv2d, found: _Synapses) -> None:
        stride, dilation = _pair(node.stride), _pair(node.dilation)
        padding = self._padding(name, node, stride, dilation)
        groups = _integers(node.groups)
        for key, value, low in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
            if value is None or min(value) < low:
                self.fail(name, key, getattr(node, key), f"two integers of at least {low}")
        if groups is None or len(groups) != 1 or groups[0] < 1:
            self.fail(name, "groups", node.groups, "an integer of at least 1")
        assert stride is not None and dilation is not None and padding is not None
        found.stride, found.dilation, found.padding, found.groups = stride, dilation, padding, groups[0]

    def _padding(self, name: str, node: nir.Conv2d, stride: Pair | None, dilation: Pair | None) -> Pair | None:
        if not isinstance(node.padding, str | bytes):
            return _pair(node.padding)
        padding = node.padding.decode("ascii", "replace") if isinstance(node.padding, bytes) else node.padding
        if padding == "valid":
            return 0, 0
        reach = [d * (k - 1) for d, k in zip(dilation or (1, 1), node.weight.shape[2:], strict=True)]
        if padding != "same" or stride != (1, 1) or any(n % 2 for n in reach):
            self.fail(name, "padding", padding, "integers, 'valid', or 'same' of odd kernels with stride 1")
        return reach[0] // 2, reach[1] // 2

    def _scale(self, name: str, node: nir.Scale, found: _Synapses, shape: tuple[int, ...]) -> None:
        scale = self._finite(name, "scale", node.scale)
        if found.flat and found.weight is None:
            self.fail(name, "place", "behind Flatten", "Affine or Linear there")
        if found.weight is None:
            size = tuple(n // by for n, by in zip(shape[1:], found.window, strict=False))
            if scale.shape != (shape[0], *size):
                self.fail(name, "scale", f"of shape {scale.shape}", str((shape[0], *size)))
            factors = self._channels(name, "scale", scale, (shape[0], *size))
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

    def _factors(self, factors: Array, found: _Synapses, maps: bool) -> Array:
        """Weights that multiply each channel of maps, or each neuron, by a factor of its own."""
        if maps:
            found.groups = len(factors)
            return factors.reshape(-1, 1, 1, 1)
        if len(factors) ** 2 > _MAX_WEIGHTS:
            raise GraphError(f"graph: factors for {len(factors)} neurons; allowed: {math.isqrt(_MAX_WEIGHTS)}")
        return np.diag(factors)

    def _connection(self, name: str, found: _Synapses, shape: tuple[int, ...], source: str) -> Connection:
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
        if self._own and "exponent" in self._nodes[name].metadata:
            low = high = self._number(name, "exponent", 0, EXPONENT_MAX)
        for exponent in range(low, high + 1):
            scaled = weight / 2**exponent
            if np.abs(scaled).max() <= 127 and (scaled == np.rint(scaled)).all():
                return scaled.astype(np.int8), exponent
        largest = weight.flat[np.abs(weight).argmax()]
        allowed = f"-127..127 times one power of two, 2^{low} to 2^{high}, for all weights of a node"
        self.fail(name, "weight", f"{largest:g}", allowed)

    def _bias(self, name: str, biases: Sequence[Array], shape: tuple[int, ...]) -> NDArray[np.int32]:
        """The sum of all constant currents, (O,) or (O, H, W)."""
        total = np.zeros(shape[:1])
        for bias in biases:
            if bias.shape not in (shape[:1], shape):
                self.fail(name, "bias", f"of shape {bias.shape}", f"{shape[:1]} or {shape}")
            axes = max(total.ndim, bias.ndim)
            one, two = (value.reshape(value.shape + (1,) * (axes - value.ndim)) for value in (total, bias))
            total = one + two
        if total.ndim == 3:
            flat = total.reshape(len(total), -1)
            constant = bool((flat == flat[:, :1]).all())
            if constant and not (self._own and self._number(name, "bias_dimensions", 1, 3) == 3):
                total = flat[:, 0]
        return self._whole(name, "bias", total)

    def _threshold(self, name: str, node: nir.IF, shape: tuple[int, ...]) -> tuple[NDArray[np.int32], Reset, int]:
        """θ of u >= θ, the reset, and v(0).

        Integers u exceed a threshold where they reach the next integer above it. With a soft reset θ is also what is
        subtracted, so v > θ becomes v - 1 >= θ: every potential is one less, from the beginning.
        """
        spike, reset = self._reading.spike, self._reading.reset
        if self._own:
            found = node.metadata.get("reset")
            if found not in (SUBTRACT, TO_RESET):
                self.fail(name, "metadata reset", found, f"{SUBTRACT!r} or {TO_RESET!r}")
            spike, reset = ">=", "soft" if found == SUBTRACT else "hard"
        threshold: Array = self._channels(name, "v_threshold", node.v_threshold, shape)
        if reset == "hard":
            v_reset = self._channels(name, "v_reset", node.v_reset, shape)
            if v_reset.any():
                self.fail(name, "v_reset", v_reset[v_reset != 0].flat[0], "0")
            threshold = np.ceil(threshold) if spike == ">=" else np.floor(threshold) + 1.0
        start = -1 if reset == "soft" and spike == ">" else 0
        return self._whole(name, "v_threshold", threshold), reset, start

    def _channels(self, name: str, key: str, value: object, shape: tuple[int, ...]) -> Array:
        """A value per channel, (O,), from one for all, or from one per neuron that is the same within a channel."""
        found = self._finite(name, key, value)
        if found.size == 1:
            return np.full(shape[:1], found.flat[0])
        if found.size != math.prod(shape) or [n for n in found.shape if n != 1] != [n for n in shape if n != 1]:
            self.fail(name, key, f"of shape {found.shape}", f"{shape}, or one value")
        found = found.reshape(shape[0], -1)
        if (found != found[:, :1]).any():
            self.fail(name, key, "different within a channel", "one value per channel")
        return found[:, 0]

    def _finite(self, name: str, key: str, value: object) -> Array:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            self.fail(
                name, key, "not finite" if array.dtype.kind == "f" else f"of type {array.dtype}", "finite numbers"
            )
        return array.astype(np.float64)

    def _whole(self, name: str, key: str, value: object) -> NDArray[np.int32]:
        """Integers within the range of a membrane potential."""
        array = self._finite(name, key, value)
        wrong = array[(array != np.rint(array)) | (np.abs(array) > MEMBRANE_MAX)]
        if wrong.size:
            self.fail(name, key, wrong.flat[0], f"integers of magnitude 0..{MEMBRANE_MAX}")
        return array.astype(np.int32)

    def _number(self, name: str, key: str, low: int, high: int) -> int:
        """An integer in the metadata of a node."""
        found = _integers(self._nodes[name].metadata.get(key))
        if found is None or len(found) != 1 or not low <= found[0] <= high:
            self.fail(name, f"metadata {key}", self._nodes[name].metadata.get(key), f"{low}..{high}")
        return found[0]


def _integers(value: object) -> tuple[int, ...] | None:
    """The values, of any shape; None where they are no integers."""
    array = np.asarray(value)
    return tuple(map(int, array.reshape(-1))) if array.dtype.kind in "iu" else None


def _pair(value: object) -> Pair | None:
    """(y, x) from two integers or from one for both; None for anything else."""
    found = _integers(value)
    if found is None or len(found) not in (1, 2):
        return None
    return found[0], found[-1]


def _label(name: str) -> str:
    """The name of a layer; "input" means the image in a network."""
    return f"{name}_" if name == IMAGE else name
