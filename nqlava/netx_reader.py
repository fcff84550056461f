"""Reads netx files; docs/format.md documents the layout."""

import math

import h5py
import numpy as np

from nqlava.hdf5 import CheckedFile, NetxError
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer, NetworkError
from nqlava.netx_layout import (
    CONNECTION_KEYS,
    FORMAT,
    HARD_RESET,
    INTEGRATOR,
    LAYER_KEYS,
    MAX_CONNECTIONS,
    MAX_LAYERS,
    NEURON_KEYS,
    VERSIONS,
    require_info,
    require_name,
    version_of,
)

Shape = tuple[int, ...]


class Reader(CheckedFile):
    """Reads one file.

    Attributes:
        version: of the layout, once the header is read.
    """

    version: int

    def network(self, file: h5py.File) -> IntegerNetwork:
        """What the file holds; also NetworkError."""
        self._header(file)
        info = {key: self._info_value(file, key) for key in file["info"].attrs}
        require_info(self.path, info)
        groups = self.numbered("file", file, "layer", "layers", 2, MAX_LAYERS)
        kind = self._kind(0, groups[0])
        if kind != "input":
            self.fail("layer 0", "type", kind, "input")
        self.keys("layer 0", set(groups[0].attrs), set(), "attributes")
        shape = self.sizes("layer 0", groups[0], "shape", 3)
        layers = self._sequence(groups, shape) if self.version == 1 else self._graph(groups, shape)
        network = IntegerNetwork(shape, tuple(layers), info)  # type: ignore[arg-type]
        if version_of(network) != self.version:
            self.fail("file", "attribute version", self.version, f"{version_of(network)} for this network")
        return network

    def try_strings(self) -> None:
        raise NetxError(f"{self.path}: holds strings of variable length; allowed: of fixed length")

    def _header(self, file: h5py.File) -> None:
        # The version decides what else is allowed, so it comes first.
        found = self.attribute("file", file, "format")
        if found is None and self._is_of_lava_dl(file):
            raise NetxError(f"{self.path}: a network of lava-dl; python -m deploy.run_lava_dl runs it")
        if not isinstance(found, bytes) or found != FORMAT.encode():
            self.fail("file", "attribute format", "missing" if found is None else found, FORMAT)
        found = self.attribute("file", file, "version")
        if not isinstance(found, np.integer) or found not in VERSIONS:
            allowed = ", ".join(map(str, VERSIONS))
            self.fail("file", "attribute version", "missing" if found is None else found, allowed)
        self.version = int(found)
        self.keys("file", set(file.attrs), {"format", "version"}, "attributes")
        self.keys("file", set(file), {"layer", "info"}, "keys")
        self.keys("info", set(self.group("file", file, "info")), set(), "keys")

    def _is_of_lava_dl(self, file: h5py.File) -> bool:
        """SLAYER stores types as arrays of one string."""
        try:
            first = self.numbered("file", file, "layer", "layers", 1, MAX_LAYERS)[0]
            return bool(self._dataset("layer 0", first, "type").shape == (1,))
        except NetxError:
            return False

    def _kind(self, index: int, group: h5py.Group) -> str:
        """The type of a layer, whose keys are those of this type."""
        keys = LAYER_KEYS[self.version]
        kind = self.text(f"layer {index}", group, "type", set(keys))
        self.keys(f"layer {index}", set(group), keys[kind], f"keys of type {kind}")
        if kind == "input" and index > 0:
            self.fail(f"layer {index}", "type", kind, "input in layer 0 only")
        return kind

    def _sequence(self, groups: list[h5py.Group], shape: Shape) -> list[Layer]:
        """The layers of version 1, each behind the one before it."""
        layers: list[Layer] = []
        source = IMAGE
        flat = False
        for index, group in enumerate(groups[1:], 1):
            where, kind = f"layer {index}", self._kind(index, group)
            if kind == "flatten":
                self.keys(where, set(group.attrs), set(), "attributes")
                if len(shape) != 3 or flat:
                    self.fail(where, "type", kind, f"conv or dense behind an output of {shape}")
                flat = True
                continue
            if kind == "conv" and flat:
                self.fail(where, "type", kind, "dense behind flatten")
            if kind == "dense" and len(shape) == 3 and not flat:
                self.fail(where, "type", kind, f"conv or flatten behind an output of {shape}")
            name = self._name(where, group)
            connection = self._connection(f"{where} ({name})", group, kind, source, shape)
            layers.append(self._neurons(f"{where} ({name})", group, name, (connection,)))
            shape = self._output(where, group, layers[-1], {source: shape})
            source, flat = name, False
        if flat:
            self.fail(f"layer {len(groups) - 1}", "type", "flatten", "dense in the last layer")
        return layers

    def _graph(self, groups: list[h5py.Group], shape: Shape) -> list[Layer]:
        """The layers of version 2, each with connections from any that come before it."""
        layers: list[Layer] = []
        names, shapes = [IMAGE], {IMAGE: shape}
        for index, group in enumerate(groups[1:], 1):
            self._kind(index, group)
            name = self._name(f"layer {index}", group)
            if name in shapes:
                self.fail(f"layer {index}", "name", name, f"unique names, and not {IMAGE}")
            where = f"layer {index} ({name})"
            connections = []
            for number, part in enumerate(self.numbered(where, group, "connection", "connections", 1, MAX_CONNECTIONS)):
                at = f"{where}, connection {number}"
                self.keys(at, set(part.attrs), set(), "attributes")
                kind = self.text(at, part, "type", set(CONNECTION_KEYS))
                self.keys(at, set(part), CONNECTION_KEYS[kind], f"keys of type {kind}")
                source = self.integer(at, part, "source")
                if not 0 <= source < index:
                    self.fail(at, "source", source, f"0..{index - 1}, the layers that come before")
                exponent = self.integer(at, part, "exponent")
                connections.append(self._connection(at, part, kind, names[source], shapes[names[source]], exponent))
            layers.append(self._neurons(where, group, name, tuple(connections)))
            shapes[name] = self._output(where, group, layers[-1], shapes)
            names.append(name)
        return layers

    def _name(self, where: str, group: h5py.Group) -> str:
        self.keys(where, set(group.attrs), {"name"}, "attributes")
        name = self.attribute(where, group, "name")
        name = name.decode("ascii", "replace") if isinstance(name, bytes) else f"of type {type(name).__name__}"
        require_name(self.path, name)
        return name

    def _connection(
        self, where: str, group: h5py.Group, kind: str, source: str, shape: Shape, exponent: int = 0
    ) -> Connection:
        """The synapses in a group; ``shape`` is that of the source."""
        geometry: dict[str, object] = {}
        if kind == "conv":
            weight = self.array(where, group, "weight", np.int8, "O, I, kh, kw")
            geometry = {key: self.sizes(where, group, key, 2) for key in ("stride", "padding", "dilation")}
            geometry["groups"] = self.integer(where, group, "groups")
        else:
            weight = self.array(where, group, "weight", np.int8, f"O, {math.prod(shape)}")
        try:
            return Connection(source, weight, exponent, **geometry)  # type: ignore[arg-type]
        except NetworkError as error:
            raise NetxError(f"{self.path}: {where}: {error}") from None

    def _neurons(self, where: str, group: h5py.Group, name: str, connections: tuple[Connection, ...]) -> Layer:
        """The neurons in a group, behind these connections."""
        neuron = self.group(where, group, "neuron")
        self.keys(where, set(neuron.attrs), set(), "attributes of neuron")
        kinds = NEURON_KEYS[self.version]
        kind = self.text(where, neuron, "type", set(kinds))
        self.keys(where, set(neuron), kinds[kind], f"keys of neuron {kind}")
        outputs = str(connections[0].outputs)
        threshold = None if kind == INTEGRATOR else self.array(where, neuron, "vThMant", np.int32, outputs)
        bias = self.array(where, group, "bias", np.int32, outputs, f"W, H, {outputs}")
        v0 = self.array(where, neuron, "v0", np.int32, outputs)
        reset = "hard" if kind == HARD_RESET else "soft"
        return Layer(name, connections, np.ascontiguousarray(bias.T), threshold, v0, reset)  # type: ignore[arg-type]

    def _output(self, where: str, group: h5py.Group, layer: Layer, shapes: dict[str, Shape]) -> Shape:
        """The output shape of a layer, which its group must declare."""
        shape = layer.output_shape(shapes)
        declared = self.sizes(where, group, "shape", len(shape))
        if declared != shape:
            self.fail(where, "shape", declared, str(shape))
        return shape

    def _info_value(self, file: h5py.File, key: str) -> str | int | float:
        value = self.attribute("info", file["info"], key)
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, np.integer):
            return int(value)
        return float(value) if isinstance(value, np.floating) else str(value)
