"""The integer network as a netx HDF5 file, which lava-dl's reader can load too. docs/format.md documents the layout."""

import os
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from export.network import IntegerNetwork, NetworkError
from export.netx_hdf5 import NetxError
from export.netx_layout import FORMAT, INTEGRATOR, SPIKING, VERSION, require_info, require_name
from export.netx_reader import Reader

__all__ = ["FORMAT", "INTEGRATOR", "SPIKING", "VERSION", "NetxError", "read", "write"]


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
        require_name(target, layer.name)
    require_info(target, network.info)
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
            return Reader(where).network(file)
    except NetworkError as error:
        raise NetxError(f"{where}: {error}") from None
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises for damaged files
        raise NetxError(f"{where}: not a readable HDF5 file: {' '.join(str(error).split())}") from None
