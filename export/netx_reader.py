"""Reads netx files; docs/format.md documents the layout."""

import math

import h5py
import numpy as np

from export.network import IMAGE, Connection, IntegerNetwork, Layer, NetworkError
from export.netx_hdf5 import CheckedFile, NetxError
from export.netx_layout import (
    FORMAT,
    KEYS,
    MAX_LAYERS,
    NEURON_KEYS,
    SPIKING,
    VERSION,
    require_info,
    require_name,
)


class Reader(CheckedFile):
    """Reads one file."""

    def network(self, file: h5py.File) -> IntegerNetwork:
        """What the file holds; also NetworkError."""
        # The version decides what else is allowed, so it comes first.
        for key, expected_type, expected in (("format", bytes, FORMAT.encode()), ("version", np.integer, VERSION)):
            value = file.attrs.get(key)
            if not isinstance(value, expected_type) or value != expected:
                allowed = expected.decode() if isinstance(expected, bytes) else expected
                self.fail("file", f"attribute {key}", "missing" if value is None else value, str(allowed))
        self.keys("file", set(file.attrs), {"format", "version"}, "attributes")
        self.keys("file", set(file), {"layer", "info"}, "keys")
        for name in ("layer", "info"):
            self.group("file", file, name)
        self.keys("info", set(file["info"]), set(), "keys")
        info = {key: self._info_value(key, value) for key, value in file["info"].attrs.items()}
        require_info(self.path, info)
        groups = file["layer"]
        count = len(groups)
        if not 2 <= count <= MAX_LAYERS:
            self.fail("file", "number of layers", count, f"2..{MAX_LAYERS}")
        self.keys("layer", set(groups), {str(index) for index in range(count)}, "keys")
        input_shape: tuple[int, ...] = ()
        shape: tuple[int, ...] = ()
        layers: list[Layer] = []
        source = IMAGE
        flat = False
        for index in range(count):
            where = f"layer {index}"
            group = self.group("layer", groups, str(index))
            kind = self.text(where, group, "type", set(KEYS))
            self.keys(where, set(group), KEYS[kind], f"keys of type {kind}")
            if (kind == "input") != (index == 0):
                self.fail(where, "type", kind, "input in layer 0, and only there")
            if kind == "input":
                self.keys(where, set(group.attrs), set(), "attributes")
                input_shape = shape = self.sizes(where, group, "shape", 3)
            elif kind == "flatten":
                self.keys(where, set(group.attrs), set(), "attributes")
                if len(shape) != 3 or flat:
                    self.fail(where, "type", kind, f"conv or dense behind an output of {shape}")
                flat = True
            else:
                if kind == "conv" and flat:
                    self.fail(where, "type", kind, "dense behind flatten")
                if kind == "dense" and len(shape) == 3 and not flat:
                    self.fail(where, "type", kind, f"conv or flatten behind an output of {shape}")
                layers.append(self._layer(where, group, kind, source, shape))
                shape, flat = layers[-1].output_shape({source: shape}), False
                source = layers[-1].name
                declared = self.sizes(where, group, "shape", len(shape))
                if declared != shape:
                    self.fail(where, "shape", declared, str(shape))
        if flat:
            self.fail(f"layer {count - 1}", "type", "flatten", "dense in the last layer")
        return IntegerNetwork(input_shape, tuple(layers), info)  # type: ignore[arg-type]

    def _layer(self, where: str, group: h5py.Group, kind: str, source: str, shape: tuple[int, ...]) -> Layer:
        self.keys(where, set(group.attrs), {"name"}, "attributes")
        name = group.attrs["name"]
        name = name.decode("ascii", "replace") if isinstance(name, bytes) else f"of type {type(name).__name__}"
        require_name(self.path, name)
        where = f"{where} ({name})"
        neuron = self.group(where, group, "neuron")
        self.keys(where, set(neuron.attrs), set(), "attributes of neuron")
        neuron_type = self.text(where, neuron, "type", set(NEURON_KEYS))
        self.keys(where, set(neuron), NEURON_KEYS[neuron_type], f"keys of neuron {neuron_type}")
        if kind == "conv":
            weight = self.array(where, group, "weight", np.int8, "O, I, kh, kw")
            geometry: dict[str, object] = {
                key: self.sizes(where, group, key, 2) for key in ("stride", "padding", "dilation")
            }
            geometry["groups"] = self.integer(where, group, "groups")
        else:
            inputs = math.prod(shape)
            weight = self.array(where, group, "weight", np.int8, f"O, {inputs}")
            geometry = {}
        try:
            connection = Connection(source, weight, **geometry)  # type: ignore[arg-type]
        except NetworkError as error:
            raise NetxError(f"{self.path}: {where}: {error}") from None
        threshold = None
        if neuron_type == SPIKING:
            threshold = self.array(where, neuron, "vThMant", np.int32, str(len(weight)))
        bias = self.array(where, group, "bias", np.int32, f"{len(weight)}", f"W, H, {len(weight)}")
        v0 = self.array(where, neuron, "v0", np.int32, str(len(weight)))
        return Layer(name, (connection,), np.ascontiguousarray(bias.T), threshold, v0)  # type: ignore[arg-type]

    def _info_value(self, key: str, value: object) -> str | int | float:
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, np.floating):
            return float(value)
        if not isinstance(value, str):
            self.fail("info", key[:80], f"of type {type(value).__name__}", "a string, an integer or a finite float")
        return str(value)
