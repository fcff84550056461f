"""The integer network that a NIR graph computes, where it is one; docs/nir.md says how nodes are read."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import nir
import numpy as np
from numpy.typing import NDArray

from export.nir import file as nir_file
from export.nir.graph import FORMAT, SUBTRACT, TO_RESET, VERSION
from export.nir.synapses import BETWEEN, SynapseReader
from export.nir.values import Array, GraphError, integers, plain
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer, NetworkError, Reset

__all__ = ["GraphError", "Imported", "Reading", "read", "to_network"]

Spike = Literal[">", ">="]
_NEURONS = (nir.IF, nir.I)


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


def read(path: str | os.PathLike[str], reading: Reading | None = None) -> Imported:
    """The integer network of a NIR file.

    Raises:
        NetxError, GraphError: the file holds none; the message names it.
        FileNotFoundError: there is no such file.
    """
    graph = nir_file.read(path)
    try:
        return to_network(graph, reading)
    except (GraphError, NetworkError) as error:
        raise GraphError(f"{os.fspath(path)}: {error}") from None


def to_network(graph: nir.NIRGraph, reading: Reading | None = None) -> Imported:
    """The integer network that the graph computes.

    Args:
        graph: nodes Input, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, IF, I and Output, without
            loops, with integer weights, biases and thresholds.
        reading: what IF nodes do, in a graph that was not made by ``export.nir.graph``.

    Raises:
        GraphError, NetworkError: the graph is something else.
    """
    own = plain(graph.metadata.get("format")) == FORMAT
    if own and plain(graph.metadata.get("version")) != VERSION:
        raise GraphError(f"graph: metadata version is {graph.metadata.get('version')}; allowed: {VERSION}")
    network = _Reader(graph, own, reading or Reading()).network()
    if not own:
        return Imported(network, own, False)
    changed = plain(graph.metadata.get("digest")) != network.digest()
    # Accuracies and origins belong to the network that was exported.
    info = {} if changed else _info(graph.metadata.get("info", "{}"))
    return Imported(IntegerNetwork(network.input_shape, network.layers, info), own, changed)


def _info(text: object) -> dict[str, str | int | float]:
    try:
        found = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):  # no text, or no JSON
        found = None
    if isinstance(found, dict) and all(isinstance(value, str | int | float) for value in found.values()):
        return found
    raise GraphError(f"graph: metadata info is {str(text)[:80]!r}; allowed: a JSON object of strings and numbers")


class _Reader(SynapseReader):
    def __init__(self, graph: nir.NIRGraph, own: bool, reading: Reading) -> None:
        super().__init__(graph.nodes, own)
        self._reading = reading
        self._before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            for name in (source, target):
                if name not in self.nodes:
                    raise GraphError(f"edge {source} to {target}: there is no node {name}")
            if source in self._before[target]:
                raise GraphError(f"edge {source} to {target}: it is there twice; allowed: once")
            self._before[target].append(source)

    def network(self) -> IntegerNetwork:
        for name, node in self.nodes.items():
            if not isinstance(node, (nir.Input, nir.Output, *_NEURONS, *BETWEEN)):
                allowed = "Input, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, IF, I, Output"
                self.fail(name, "type", type(node).__name__, allowed)
        source = self._only(nir.Input)
        shape = integers(self.nodes[source].input_type["input"])
        if shape is None or len(shape) not in (1, 3) or min(shape) < 1:
            self.fail(source, "shape", self.nodes[source].input_type["input"], "(C, H, W), or (N,)")
        self._shapes: dict[str, tuple[int, ...]] = {source: shape if len(shape) == 3 else (*shape, 1, 1)}
        self._names = {source: IMAGE}
        layers = []
        for name in self._populations():
            layer = self._layer(name)
            layers.append(layer)
            self._names[name] = layer.name
        return IntegerNetwork(self._shapes[source], tuple(layers))  # type: ignore[arg-type]

    def _only(self, kind: type) -> str:
        found = [name for name, node in self.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise GraphError(f"graph: {kind.__name__} nodes are {', '.join(found) or 'none'}; allowed: one")
        return found[0]

    def _populations(self) -> list[str]:
        """The nodes that become layers: behind their sources, and as their graph numbers them if it does."""
        output = self._only(nir.Output)
        readout = output
        if len(self._before[output]) == 1:
            before = self._before[output][0]
            if isinstance(self.nodes[before], nir.IF):
                allowed = "I, Affine or Linear: the read-out integrates and does not spike"
                self.fail(output, "source", f"{before} (IF)", allowed)
            readout = before if isinstance(self.nodes[before], nir.I) else output
        found: list[str] = []
        active: set[str] = set()
        seen: set[str] = set()
        stack = [(readout, False)]
        while stack:
            name, done = stack.pop()
            if done:
                active.discard(name)
                seen.add(name)
                if name == readout or isinstance(self.nodes[name], _NEURONS):
                    found.append(name)
                continue
            if name in active:
                self.fail(name, "place", "in a loop of edges", "graphs without recurrent connections")
            if name in seen:
                continue
            active.add(name)
            stack.append((name, True))
            stack += [(source, False) for source in reversed(self._before[name])]
        for name, node in self.nodes.items():
            if isinstance(node, _NEURONS) and name not in seen:
                self.fail(name, "target", "none that leads to the Output", "only what the read-out needs")
            if isinstance(node, nir.I) and name != readout:
                self.fail(name, "place", "between other nodes", "I directly before the Output only")
        if self.own:
            return sorted(found, key=lambda name: self.number(name, "layer", 0, len(found) - 1))
        return found

    def _layer(self, name: str) -> Layer:
        node = self.nodes[name]
        connections: list[tuple[int, Connection]] = []
        biases: list[Array] = []
        for before in self._before[name]:
            path, source = self._path(before)
            if source not in self._shapes:
                self.fail(name, "source", source, "nodes that come before")
            synapses = self.synapses(path, self._shapes[source])
            if synapses.bias is not None:
                biases.append(synapses.bias)
            constant = path and isinstance(self.nodes[path[-1]], nir.Scale) and len(path) > 1
            if constant and synapses.weight is not None and not synapses.weight.any():
                continue  # a constant current
            end = path[-1] if path else name
            number = len(connections)
            if self.own and path:
                number = self.number(end, "connection", 0, len(self._before[name]))
            connections.append((number, self.connection(end, synapses, self._shapes[source], self._names[source])))
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
            if integers(node.output_type["output"]) != shape:
                self.fail(name, "shape", node.output_type["output"], str(shape))
        elif (self.channels(name, "r", node.r, shape) != 1).any():
            self.fail(name, "r", "not 1 everywhere", "1: put it into the weights")
        if self.own:
            v0 = self.whole(name, "metadata v_initial", node.metadata.get("v_initial"))
        label = node.metadata.get("name") if self.own else _label(name)
        if not isinstance(label, str):
            self.fail(name, "metadata name", label, "a string")
        layer = Layer(label, ordered, self._bias(name, biases, shape), threshold, v0, reset)
        self._shapes[name] = layer.output_shape(sources)
        return layer

    def _path(self, end: str) -> tuple[list[str], str]:
        """The nodes between neurons and their source, in the direction of the edges, and that source."""
        path: list[str] = []
        while isinstance(self.nodes[end], BETWEEN):
            path.append(end)
            if len(self._before[end]) != 1:
                self.fail(end, "number of sources", len(self._before[end]), "1; only IF, I and Output nodes sum")
            end = self._before[end][0]
        return path[::-1], end

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
            if constant and not (self.own and self.number(name, "bias_dimensions", 1, 3) == 3):
                total = flat[:, 0]
        return self.whole(name, "bias", total)

    def _threshold(self, name: str, node: nir.IF, shape: tuple[int, ...]) -> tuple[NDArray[np.int32], Reset, int]:
        """θ of u >= θ, the reset, and v(0).

        Integers u exceed a threshold where they reach the next integer above it. With a soft reset θ is also what is
        subtracted, so v > θ becomes v - 1 >= θ: every potential is one less, from the beginning.
        """
        spike, reset = self._reading.spike, self._reading.reset
        if self.own:
            found = node.metadata.get("reset")
            if plain(found) not in (SUBTRACT, TO_RESET):
                self.fail(name, "metadata reset", found, f"{SUBTRACT!r} or {TO_RESET!r}")
            spike, reset = ">=", "soft" if plain(found) == SUBTRACT else "hard"
        threshold: Array = self.channels(name, "v_threshold", node.v_threshold, shape)
        if reset == "hard":
            v_reset = self.channels(name, "v_reset", node.v_reset, shape)
            if v_reset.any():
                self.fail(name, "v_reset", v_reset[v_reset != 0].flat[0], "0")
            threshold = np.ceil(threshold) if spike == ">=" else np.floor(threshold) + 1.0
        start = -1 if reset == "soft" and spike == ">" else 0
        return self.whole(name, "v_threshold", threshold), reset, start


def _label(name: str) -> str:
    """The name of a layer; "input" means the image in a network."""
    return f"{name}_" if name == IMAGE else name
