"""The integer network as a netx HDF5 file, which lava-dl's reader can load too. docs/format.md documents the layout."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from export.network import IMAGE, Connection, IntegerNetwork, Layer, NetworkError

FORMAT = "nq-netx"
VERSION = 1
SPIKING, INTEGRATOR = "IF-soft-reset", "integrator"
"""Values of neuron/type."""

_MAX_LAYERS = 1000
_MAX_SIZE = 2**28  # values in one array: 16 times the largest layer of VGG-16
_MAX_TEXT = 2**15
_KEYS = {
    "input": {"type", "shape"},
    "flatten": {"type"},
    "dense": {"type", "shape", "weight", "bias", "neuron"},
    "conv": {"type", "shape", "weight", "bias", "neuron", "stride", "padding", "dilation", "groups"},
}
_NEURON_KEYS = {SPIKING: {"type", "vThMant", "v0"}, INTEGRATOR: {"type", "v0"}}


class NetxError(ValueError):
    """A file that does not hold a valid network: one line naming file, layer, key, value and what is allowed."""


def write(network: IntegerNetwork, path: str | os.PathLike[str]) -> None:
    """Writes ``network`` to ``path``: equal networks give equal bytes, and a failure leaves what was there before.

    Raises:
        NetxError: a layer name or an info entry that the format cannot hold.
        OSError: the file cannot be written.
    """
    target = Path(path)
    if not (network.is_sequence and all(c.exponent == 0 for layer in network.layers for c in layer.connections)):
        raise NetxError(f"{target}: network is a graph; allowed: a sequence of layers, every exponent 0")
    if any(layer.reset != "soft" for layer in network.layers):
        raise NetxError(f"{target}: reset is hard; allowed: soft")
    for layer in network.layers:
        _require_name(target, layer.name)
    _require_info(target, network.info)
    with h5py.File("netx", "w", driver="core", backing_store=False, track_order=False) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["version"] = np.int64(VERSION)
        info = file.create_group("info")
        for key in sorted(network.info):
            info.attrs[key] = network.info[key]
        _write_layers(file.create_group("layer"), network)
        file.flush()
        image = file.id.get_file_image()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as stream:
            stream.write(image)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_layers(groups: h5py.Group, network: IntegerNetwork) -> None:
    def add(kind: str, **values: object) -> h5py.Group:
        group = groups.create_group(str(len(groups)))
        _put(group, "type", np.bytes_(kind))
        for key, value in values.items():
            _put(group, key, np.asarray(value))
        return group

    add("input", shape=np.array(network.input_shape, np.int64))
    shape: tuple[int, ...] = network.input_shape
    for layer, output_shape in zip(network.layers, network.shapes, strict=True):
        (connection,) = layer.connections
        bias = layer.bias.T  # (W, H, O) for a bias per neuron, the axis order of lava-dl's neurons
        if layer.is_convolution:
            geometry = {
                key: np.array(getattr(connection, key), np.int64) for key in ("stride", "padding", "dilation", "groups")
            }
            group = add("conv", shape=np.array(output_shape, np.int64), weight=connection.weight, bias=bias, **geometry)
        else:
            if len(shape) == 3:
                add("flatten")
            group = add("dense", shape=np.array(output_shape, np.int64), weight=connection.weight, bias=bias)
        group.attrs["name"] = np.bytes_(layer.name)
        neuron = group.create_group("neuron")
        _put(neuron, "type", np.bytes_(SPIKING if layer.threshold is not None else INTEGRATOR))
        if layer.threshold is not None:
            _put(neuron, "vThMant", layer.threshold)
        _put(neuron, "v0", layer.v0)
        shape = output_shape


def _put(group: h5py.Group, key: str, value: NDArray[np.generic] | np.generic) -> None:
    value = np.asarray(value)
    if value.ndim == 0 or value.size < 1024:
        group.create_dataset(key, data=value, track_times=False)
    else:
        group.create_dataset(key, data=value, track_times=False, compression="gzip", shuffle=True)


def read(path: str | os.PathLike[str]) -> IntegerNetwork:
    """The network that ``path`` holds; every size is checked before it is allocated.

    Raises:
        NetxError: the file is not a valid network.
        FileNotFoundError: there is no such file.
    """
    where = Path(path)
    if not where.exists():
        raise FileNotFoundError(f"{where}: no such file")
    try:
        with h5py.File(where, "r") as file:
            return _Reader(where).network(file)
    except NetworkError as error:
        raise NetxError(f"{where}: {error}") from None
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged files
        raise NetxError(f"{where}: not a readable HDF5 file: {' '.join(str(error).split())}") from None


class _Reader:
    """Reads one file; the methods check what they read and raise NetxError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, where: str, key: str, value: object, allowed: str) -> NoReturn:
        value = " ".join(str(value).split())
        raise NetxError(f"{self.path}: {where}: {key} is {value}; allowed: {allowed}")

    def network(self, file: h5py.File) -> IntegerNetwork:
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
        info = {key: self.info_value(key, value) for key, value in file["info"].attrs.items()}
        _require_info(self.path, info)
        groups = file["layer"]
        count = len(groups)
        if not 2 <= count <= _MAX_LAYERS:
            self.fail("file", "number of layers", count, f"2..{_MAX_LAYERS}")
        self.keys("layer", set(groups), {str(index) for index in range(count)}, "keys")
        input_shape: tuple[int, ...] = ()
        shape: tuple[int, ...] = ()
        layers: list[Layer] = []
        source = IMAGE
        flat = False
        for index in range(count):
            where = f"layer {index}"
            group = self.group("layer", groups, str(index))
            kind = self.text(where, group, "type", set(_KEYS))
            self.keys(where, set(group), _KEYS[kind], f"keys of type {kind}")
            if (kind == "input") != (index == 0):
                self.fail(where, "type", kind, "input in layer 0, and only there")
            if kind == "input":
                self.keys(where, set(group.attrs), set(), "attributes")
                input_shape = shape = self.pairs(where, group, "shape", 3)
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
                layers.append(self.layer(where, group, kind, source, shape))
                shape, flat = layers[-1].output_shape({source: shape}), False
                source = layers[-1].name
                declared = self.pairs(where, group, "shape", len(shape))
                if declared != shape:
                    self.fail(where, "shape", declared, str(shape))
        if flat:
            self.fail(f"layer {count - 1}", "type", "flatten", "dense in the last layer")
        return IntegerNetwork(input_shape, tuple(layers), info)  # type: ignore[arg-type]

    def layer(self, where: str, group: h5py.Group, kind: str, source: str, shape: tuple[int, ...]) -> Layer:
        self.keys(where, set(group.attrs), {"name"}, "attributes")
        name = group.attrs["name"]
        name = name.decode("ascii", "replace") if isinstance(name, bytes) else f"of type {type(name).__name__}"
        _require_name(self.path, name)
        where = f"{where} ({name})"
        neuron = self.group(where, group, "neuron")
        self.keys(where, set(neuron.attrs), set(), "attributes of neuron")
        neuron_type = self.text(where, neuron, "type", set(_NEURON_KEYS))
        self.keys(where, set(neuron), _NEURON_KEYS[neuron_type], f"keys of neuron {neuron_type}")
        if kind == "conv":
            weight = self.array(where, group, "weight", np.int8, "O, I, kh, kw")
            geometry: dict[str, object] = {
                key: self.pairs(where, group, key, 2) for key in ("stride", "padding", "dilation")
            }
            geometry["groups"] = int(self.array(where, group, "groups", np.int64, "")[()])
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

    def keys(self, where: str, found: set[str], expected: set[str], what: str) -> None:
        if found != expected:
            shown = f"{{{', '.join(sorted(key[:80] for key in found)[:20])}}}"
            self.fail(where, what, shown, f"{{{', '.join(sorted(expected))}}}")

    def group(self, where: str, parent: h5py.Group, key: str) -> h5py.Group:
        self.hard_link(where, parent, key)
        if parent.get(key, getclass=True) is not h5py.Group:
            self.fail(where, key, "not a group", "a group")
        return parent[key]

    def hard_link(self, where: str, parent: h5py.Group, key: str) -> None:
        if key not in parent:
            self.fail(where, key, "missing", "present")
        link = parent.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            self.fail(where, key, f"a {type(link).__name__}", "stored in this file")

    def dataset(self, where: str, parent: h5py.Group, key: str) -> h5py.Dataset:
        self.hard_link(where, parent, key)
        if parent.get(key, getclass=True) is not h5py.Dataset:
            self.fail(where, key, "not a dataset", "a dataset")
        dataset = parent[key]
        if dataset.external or dataset.is_virtual:
            self.fail(where, key, "stored elsewhere", "stored in this file")
        if dataset.shape is None or dataset.size > _MAX_SIZE:
            self.fail(where, key, f"of shape {dataset.shape}", f"at most {_MAX_SIZE} values")
        return dataset

    def array(self, where: str, parent: h5py.Group, key: str, dtype: type, *shapes: str) -> NDArray[np.generic]:
        """A dataset of exactly this type and of one of these shapes; a letter stands for any size of at least 1."""
        dataset = self.dataset(where, parent, key)
        if dataset.dtype.newbyteorder("=") != np.dtype(dtype):
            self.fail(where, key, f"of type {dataset.dtype}", np.dtype(dtype).name)
        for shape in shapes:
            sizes = [size for size in shape.split(", ") if size]
            if len(sizes) == dataset.ndim and all(
                (int(want) == got) if want.isdigit() else got >= 1
                for want, got in zip(sizes, dataset.shape, strict=True)
            ):
                return dataset[()].astype(dtype)
        allowed = " or ".join(f"({shape})" for shape in shapes)
        self.fail(where, key, f"of shape {dataset.shape}", f"{allowed}, every size at least 1")

    def pairs(self, where: str, group: h5py.Group, key: str, length: int) -> tuple[int, ...]:
        values = tuple(int(n) for n in self.array(where, group, key, np.int64, str(length)))
        if not all(0 <= n <= _MAX_SIZE for n in values) or math.prod(values) > _MAX_SIZE:
            self.fail(where, key, values, f"{length} integers 0..{_MAX_SIZE} whose product is at most {_MAX_SIZE}")
        return values

    def text(self, where: str, group: h5py.Group, key: str, allowed: set[str]) -> str:
        dataset = self.dataset(where, group, key)
        value = None
        if dataset.shape == () and (dataset.dtype.kind == "S" or h5py.check_string_dtype(dataset.dtype)):
            value = bytes(dataset[()]).decode("ascii", "replace")
        if value not in allowed:
            self.fail(
                where, key, f"of type {dataset.dtype}" if value is None else value[:80], ", ".join(sorted(allowed))
            )
        return str(value)

    def info_value(self, key: str, value: object) -> str | int | float:
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, np.floating):
            return float(value)
        if not isinstance(value, str):
            self.fail("info", key[:80], f"of type {type(value).__name__}", "a string, an integer or a finite float")
        return str(value)


def _require_name(path: Path, name: str) -> None:
    if not (1 <= len(name) <= 64 and name.isascii() and name.isprintable()):
        raise NetxError(f"{path}: layer: name is {name[:80]!a}; allowed: 1 to 64 printable ASCII characters")


def _require_info(path: Path, info: Mapping[str, str | int | float]) -> None:
    for key, value in info.items():
        if not (1 <= len(key) <= 64 and key.isascii() and key.isprintable()):
            raise NetxError(f"{path}: info: key is {key[:80]!a}; allowed: 1 to 64 printable ASCII characters")
        valid = (
            (isinstance(value, str) and len(value) <= _MAX_TEXT and "\0" not in value)
            or (isinstance(value, int) and -(2**63) <= value < 2**63)
            or (isinstance(value, float) and math.isfinite(value))
        )  # fmt: skip
        if not valid:
            shown = str(value)[:80].encode("unicode_escape").decode()
            raise NetxError(
                f"{path}: info: {key} is {shown} ({type(value).__name__}); "
                f"allowed: a string of at most {_MAX_TEXT} characters, a 64-bit integer or a finite float"
            )
