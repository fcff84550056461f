"""The integer network as a graph of the Neuromorphic Intermediate Representation; docs/nir.md has the mapping."""

import json
import re
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from nqlava.geometry import Convolution
from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer

FORMAT, VERSION = "nq-lava", 1
"""Metadata "format" and "version" of a graph made here."""
SUBTRACT, TO_RESET = "subtract v_threshold", "set to v_reset"
"""Metadata "reset" of an IF node."""
_GRAPH = {
    "input": "unsigned 8-bit image, the same at every time step",
    "time_step": "1 per node and step: v <- v + r * I, no delay along edges",
    "spike": "1 where v >= v_threshold, at most one per time step",
    "membrane": f"clipped to +-{MEMBRANE_MAX} before the comparison; v_initial before the first step of an image",
    "readout": "the membrane potential, or summed current plus v_initial, after the last step; the largest wins",
}

Float = NDArray[np.float32]


def is_pointwise(connection: Connection, channels: int) -> bool:
    """Whether it multiplies every channel by a factor of its own: a depthwise 1 x 1 convolution, as of a shortcut."""
    return connection.weight.shape == (channels, 1, 1, 1) and connection.geometry == ((1, 1), (0, 0), (1, 1), channels)


def to_graph(network: IntegerNetwork, *, fold_pooling: bool = False, integrate_readout: bool = True) -> nir.NIRGraph:
    """A NIR graph whose nodes compute the network's currents, with float32 values that are exact integers.

    Args:
        network: what to express.
        fold_pooling: leave average pooling inside the kernels, as the network has it, instead of SumPool2d nodes.
        integrate_readout: end in an I node; without it Output gets the read-out's current at every step.
    """
    return _Writer(network, fold_pooling, integrate_readout).graph()


def mistyped(graph: nir.NIRGraph) -> list[str]:
    """Nodes of the graph to which nir's type check assigns wrong shapes: grouped and non-square convolutions."""
    return [
        name
        for name, node in graph.nodes.items()
        if isinstance(node, nir.Conv2d) and (node.groups != 1 or node.weight.shape[2] != node.weight.shape[3])
    ]


class _Writer:
    def __init__(self, network: IntegerNetwork, fold_pooling: bool, integrate_readout: bool) -> None:
        self._network = network
        self._fold_pooling = fold_pooling
        self._integrate_readout = integrate_readout
        self._nodes: dict[str, nir.NIRNode] = {}
        self._edges: list[tuple[str, str]] = []
        self._node_of: dict[str, str] = {}

    def graph(self) -> nir.NIRGraph:
        network = self._network
        self._node_of[IMAGE] = self._add("input", nir.Input(np.array(network.input_shape)))
        for index, layer in enumerate(network.layers):
            self._add_layer(index, layer)
        if self._integrate_readout:
            output = nir.Output(np.array([network.classes]))
            self._add("output", output, self._node_of[network.layers[-1].name])
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            **_GRAPH,
            "digest": network.digest(),
            "info": json.dumps(dict(network.info)),
        }
        return nir.NIRGraph(self._nodes, self._edges, metadata, type_check=False)

    def _add(self, wanted: str, node: nir.NIRNode, *sources: str) -> str:
        """Adds a node behind others under a name that HDF5 and PyTorch allow; that name."""
        base = re.sub(r"\W", "_", wanted, flags=re.ASCII)
        name, number = base, 1
        while name in self._nodes:
            number += 1
            name = f"{base}_{number}"
        self._nodes[name] = node
        self._edges += [(source, name) for source in sources]
        return name

    def _add_layer(self, index: int, layer: Layer) -> None:
        shape = self._network.shape_of[layer.name]
        bias: Float | None = layer.bias.astype(np.float32) if layer.bias.ndim == 1 else None
        ends = []
        for number, connection in enumerate(layer.connections):
            end, used = self._add_synapses(f"{layer.name}_in{number}", number, connection, bias)
            ends.append(end)
            bias = None if used else bias
        if bias is not None or layer.bias.ndim == 3:
            ends.append(self._add_bias(layer, shape))
        metadata: dict[str, Any] = {
            "name": layer.name,
            "layer": index,
            "v_initial": layer.v0.copy(),
            "bias_dimensions": layer.bias.ndim,
        }
        node: nir.NIRNode
        if layer.threshold is None:
            if self._integrate_readout:
                node = nir.I(r=np.ones(shape, np.float32), metadata=metadata)
            else:
                node = nir.Output(np.array(shape), metadata=metadata)
        else:
            # Between two integers v > v_threshold and v >= v_threshold are the same; subtraction needs θ itself.
            theta = layer.threshold - (0.5 if layer.reset == "hard" else 0)
            node = nir.IF(
                r=np.ones(shape, np.float32),
                v_threshold=_spread(theta, shape),
                v_reset=np.zeros(shape, np.float32),
                metadata=metadata | {"reset": SUBTRACT if layer.reset == "soft" else TO_RESET},
            )
        self._node_of[layer.name] = self._add(layer.name, node, *ends)

    def _add_synapses(self, name: str, number: int, connection: Connection, bias: Float | None) -> tuple[str, bool]:
        """Adds the nodes of a connection; the last of them, and whether the bias is in it."""
        shape = self._network.shape_of[connection.source]
        metadata = {"connection": number, "exponent": connection.exponent}
        source = self._node_of[connection.source]
        if connection.is_convolution and is_pointwise(connection, shape[0]):
            scale = _spread(_scaled(connection.weight, connection).reshape(-1), shape)
            return self._add(name, nir.Scale(scale, metadata=metadata), source), False
        source, parts, shape = self._add_pooling(name, connection, source)
        weight = _scaled(parts.weight, connection)
        offset = np.zeros(connection.outputs, np.float32) if bias is None else bias
        if connection.is_convolution:
            node = _convolution(parts, weight, offset, shape, metadata)
            return self._add(name, node, source), bias is not None
        if len(shape) == 3:
            flatten = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
            source = self._add(f"{name}_flatten", flatten, source)
        node = nir.Affine(weight.reshape(len(weight), -1), offset, metadata=metadata)
        return self._add(name, node, source), bias is not None

    def _add_pooling(self, name: str, connection: Connection, source: str) -> tuple[str, Convolution, tuple[int, ...]]:
        """Adds the pooling of a connection: the node behind it, the synapses that remain and their input shape."""
        shape = self._network.shape_of[connection.source]
        parts = connection.convolution(shape)
        if self._fold_pooling or parts.window == (1, 1):
            return source, Convolution(connection.weight, (1, 1), *connection.geometry), shape
        window = np.array(parts.window)
        node = nir.SumPool2d(kernel_size=window, stride=window, padding=np.zeros(2, np.int64))
        shape = (shape[0], *(size // by for size, by in zip(shape[1:], parts.window, strict=True)))
        return self._add(f"{name}_pool", node, source), parts, shape

    def _add_bias(self, layer: Layer, shape: tuple[int, ...]) -> str:
        """Adds what NIR has no node for, a constant current per neuron: a convolution that gives 1, and a Scale."""
        connection = layer.connections[0]
        source = self._network.shape_of[connection.source]
        parts = Convolution(connection.weight, (1, 1), connection.stride, connection.padding, connection.dilation, 1)
        zeros = np.zeros((layer.outputs, source[0], *connection.weight.shape[2:]), np.float32)
        ones = _convolution(parts, zeros, np.ones(layer.outputs, np.float32), source, {})
        one = self._add(f"{layer.name}_one", ones, self._node_of[connection.source])
        return self._add(f"{layer.name}_bias", nir.Scale(_spread(layer.bias, shape)), one)


def _convolution(
    parts: Convolution, weight: Float, bias: Float, shape: tuple[int, ...], metadata: dict[str, Any]
) -> nir.Conv2d:
    return nir.Conv2d(
        input_shape=shape[1:],
        weight=weight,
        stride=parts.stride,
        padding=parts.padding,
        dilation=parts.dilation,
        groups=parts.groups,
        bias=bias,
        metadata=metadata,
    )


def _scaled(weight: NDArray[np.int8], connection: Connection) -> Float:
    """2^exponent · w: at most 127 · 2¹⁵, so float32 has it exactly."""
    return weight.astype(np.float32) * np.float32(2**connection.exponent)


def _spread(value: NDArray[np.generic], shape: tuple[int, ...]) -> Float:
    """A value per channel, or per neuron, as one per neuron."""
    value = value.astype(np.float32)
    return np.broadcast_to(value.reshape(value.shape + (1,) * (len(shape) - value.ndim)), shape).copy()
