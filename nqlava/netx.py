"""The integer network as a netx HDF5 file; docs/format.md documents the layout."""

import os
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from nqlava.command.files import replacing
from nqlava.errors import shown
from nqlava.hdf5 import NetxError, existing
from nqlava.network import Connection, IntegerNetwork, Layer, NetworkError
from nqlava.netx_layout import (
    FORMAT,
    HARD_RESET,
    INTEGRATOR,
    SPIKING,
    VERSIONS,
    neuron_type,
    require_info,
    require_name,
    version_of,
)
from nqlava.netx_reader import Reader

__all__ = ["FORMAT", "HARD_RESET", "INTEGRATOR", "SPIKING", "VERSIONS", "NetxError", "read", "version_of", "write"]

Value = NDArray[np.generic] | np.generic


def write(network: IntegerNetwork, path: str | os.PathLike[str]) -> None:
    """Writes ``network`` to ``path``: equal networks give equal bytes, and a failure leaves what was there before.

    Raises:
        NetxError: a layer name, an info entry or a size that the format cannot hold.
        FileError: the file cannot be written.
    """
    target = Path(path)
    for layer in network.layers:
        require_name(target, layer.name)
    require_info(target, network.info)
    with h5py.File("netx", "w", driver="core", backing_store=False, track_order=False) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["version"] = np.int64(version_of(network))
        info = file.create_group("info")
        for key in sorted(network.info):
            value = network.info[key]
            info.attrs[key] = _text(value) if isinstance(value, str) else value
        groups = file.create_group("layer")
        _add(groups, "input", shape=np.array(network.input_shape, np.int64))
        (_write_sequence if version_of(network) == 1 else _write_graph)(groups, network)
        file.flush()
        Reader(target).network(file)  # what could not be read, being too large, is not written
        image = file.id.get_file_image()
    with replacing(target) as stream:
        stream.write(image)


def _text(value: str) -> NDArray[np.bytes_]:
    """A string of fixed length, in UTF-8."""
    content = value.encode()
    return np.array(content, h5py.string_dtype("utf-8", max(1, len(content))))


def _write_sequence(groups: h5py.Group, network: IntegerNetwork) -> None:
    """The layers of version 1."""
    shape: tuple[int, ...] = network.input_shape
    for layer in network.layers:
        (connection,) = layer.connections
        if not layer.is_convolution and len(shape) == 3:
            _add(groups, "flatten")
        shape = network.shape_of[layer.name]
        group = _add(
            groups,
            _kind(connection),
            shape=np.array(shape, np.int64),
            weight=connection.weight,
            bias=_bias(layer),
            **_geometry(connection),
        )
        _put_neurons(group, layer)


def _write_graph(groups: h5py.Group, network: IntegerNetwork) -> None:
    """The layers of version 2."""
    index = {name: number for number, name in enumerate(network.shape_of)}
    for layer in network.layers:
        shape = np.array(network.shape_of[layer.name], np.int64)
        group = _add(groups, "neurons", shape=shape, bias=_bias(layer))
        _put_neurons(group, layer)
        connections = group.create_group("connection")
        for connection in layer.connections:
            _add(
                connections,
                _kind(connection),
                source=np.int64(index[connection.source]),
                weight=connection.weight,
                exponent=np.int64(connection.exponent),
                **_geometry(connection),
            )


def _add(parent: h5py.Group, kind: str, **values: Value) -> h5py.Group:
    """A further numbered group."""
    group = parent.create_group(str(len(parent)))
    _put(group, "type", np.bytes_(kind))
    for key, value in values.items():
        _put(group, key, value)
    return group


def _kind(connection: Connection) -> str:
    return "conv" if connection.is_convolution else "dense"


def _bias(layer: Layer) -> NDArray[np.int32]:
    return layer.bias.T  # (W, H, O) for a bias per neuron, the axis order of lava-dl's neurons


def _geometry(connection: Connection) -> dict[str, Value]:
    if not connection.is_convolution:
        return {}
    return {key: np.array(getattr(connection, key), np.int64) for key in ("stride", "padding", "dilation", "groups")}


def _put_neurons(group: h5py.Group, layer: Layer) -> None:
    group.attrs["name"] = np.bytes_(layer.name)
    neuron = group.create_group("neuron")
    _put(neuron, "type", np.bytes_(neuron_type(layer)))
    if layer.threshold is not None:
        _put(neuron, "vThMant", layer.threshold)
    _put(neuron, "v0", layer.v0)


def _put(group: h5py.Group, key: str, value: Value) -> None:
    value = np.asarray(value)
    if value.ndim == 0 or value.size < 1024:
        group.create_dataset(key, data=value, track_times=False)
    else:
        group.create_dataset(key, data=value, track_times=False, compression="gzip", shuffle=True)


def read(path: str | os.PathLike[str]) -> IntegerNetwork:
    """The network that ``path`` holds; every size is checked before it is allocated.

    Raises:
        NetxError: the file is not a valid network, or is a folder or the like.
        MissingFileError, FileError: there is no such file, or it cannot be read.
    """
    where = existing(path)
    try:
        with h5py.File(where, "r") as file:
            return Reader(where).network(file)
    except NetxError:
        raise
    except NetworkError as error:
        raise NetxError(f"{where}: {error}") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        # What h5py raises for damaged files, and for types that NumPy does not have.
        raise NetxError(f"{where}: not a readable HDF5 file: {shown(error, 300)}") from None
