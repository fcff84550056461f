"""The kinds of files that come from strangers: valid ones to damage, and how each is read."""

import io
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from campaign import damage
from deploy.arrays import load_array, whole_numbers
from deploy.lava_dl import reader as lava_dl
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from nqlava.network import Connection, IntegerNetwork
from tests.strategies import images_for, random_layer, random_neurons
from tests.tiny import image_set, tiny, write_folder, write_zip
from train import cifar, command
from train.data import images as data
from train.loop import checkpoint
from train.loop.recipe import Recipe
from train.loop.trainer import checkpoint_path, train
from train.model import models

_RECIPE = Recipe(model="tiny", epochs=1, batch=10, validation=5, induction_steps=2, cutout=2)
_CPU = torch.device("cpu")
_GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        suffix: of their names.
        valid: makes some valid ones in a folder.
        change: changes what is in one.
        read: reads one as the commands do, and goes on to use it.
    """

    suffix: str
    valid: Callable[[Path], Sequence[bytes]]
    change: Callable[[bytes, damage.Random], bytes]
    read: Callable[[Path], object]


def _networks() -> list[IntegerNetwork]:
    """A sequence, a graph with a shortcut, and a network large enough for compressed weights."""
    rng = np.random.default_rng(0)
    conv = random_layer(rng, "conv", (2, 6, 5), outputs=3, kernel=(3, 2), stride=(2, 1), padding=(1, 0), bias_map=True)
    dense = random_layer(rng, "dense", (3, 3, 4), source="conv", outputs=6)
    readout = random_layer(rng, "out", (6,), source="dense", outputs=3, readout=True)
    info: dict[str, str | int | float] = {"T": 3, "model": "vgg_tiny", "accuracy": 0.5, "classes": '["a", "b", "c"]'}
    first = random_layer(rng, "first", (1, 4, 4), outputs=4, kernel=(3, 3), padding=(1, 1))
    identity = Connection("first", np.ones((4, 1, 1, 1), np.int8), exponent=3, groups=4)
    second = random_layer(rng, "second", (4, 4, 4), source="first", outputs=4, kernel=(1, 1), reset="hard")
    joined = random_neurons(rng, "second", (*second.connections, identity), (4, 4, 4), reset="hard")
    last = random_layer(rng, "out", (4, 4, 4), source="second", outputs=2, readout=True)
    wide = random_layer(rng, "out", (1, 16, 16), outputs=9, readout=True)
    return [
        IntegerNetwork((2, 6, 5), (conv, dense, readout), info),
        IntegerNetwork((1, 4, 4), (first, joined, last), info | {"note": "text of some length " * 20}),
        IntegerNetwork((1, 16, 16), (wide,), {}),
    ]


def _netx(folder: Path) -> list[bytes]:
    found = []
    for network in _networks():
        netx.write(network, folder / "net.h5")
        found.append((folder / "net.h5").read_bytes())
    return found


def _old_netx(folder: Path) -> list[bytes]:
    """From before strings had a fixed length."""
    return [path.read_bytes() for path in sorted(_GOLDEN.glob("version?.h5"))]


def _read_netx(path: Path) -> None:
    network = netx.read(path)
    again = path.with_name("again.h5")
    netx.write(network, again)
    if netx.read(again).digest() != network.digest():
        raise AssertionError("an accepted network is another one after writing")
    if _small(network):
        Engine(network).run(images_for(network, 1), 2)


def _small(network: IntegerNetwork) -> bool:
    return sum(int(np.prod(network.shape_of[layer.name])) for layer in network.layers) < 100_000


def _lava_dl(folder: Path) -> list[bytes]:
    """Two dense layers behind input neurons, and a convolution with a dense layer."""
    rng = np.random.default_rng(0)
    return [_of_layers(_dense_layers(rng)), _of_layers(_convolution_layers(rng))]


def _neuron(**more: float) -> dict[str, object]:
    return {"type": np.array(["LOIHI"], "S5"), "iDecay": 4096, "vDecay": 128, "vThMant": 80, "refDelay": 1,
            "gradedSpike": 0, **more}  # fmt: skip


def _dense_layers(rng: damage.Random) -> list[dict[str, object]]:
    return [
        {"type": np.array(["input"], "S5"), "shape": np.array([6]), "neuron": _neuron(), "bias": 0.0, "weight": 64.0},
        {"type": np.array(["dense"], "S5"), "shape": np.array([5]), "inFeatures": 6, "outFeatures": 5,
         "neuron": _neuron(), "weight": rng.integers(-128, 127, (5, 6)) * 2,
         "delay": rng.integers(0, 3, 6).astype(float)},
        {"type": np.array(["dense"], "S5"), "shape": np.array([3]), "inFeatures": 5, "outFeatures": 3,
         "neuron": _neuron(), "weight": rng.integers(-128, 127, (3, 5)) * 2, "bias": rng.integers(-9, 9, 3)},
    ]  # fmt: skip


def _convolution_layers(rng: damage.Random) -> list[dict[str, object]]:
    return [
        {"type": np.array(["input"], "S5"), "shape": np.array([2, 5, 4])},
        {"type": np.array(["conv"], "S4"), "shape": np.array([4, 3, 2]), "inChannels": 2, "outChannels": 4, "groups": 2,
         "kernelSize": np.array([3, 3]), "stride": np.array([1, 1]), "padding": np.array([0, 0]),
         "dilation": np.array([1, 1]), "weight": rng.integers(-128, 127, (4, 1, 3, 3)) * 2, "neuron": _neuron()},
        {"type": np.array(["flatten"], "S7"), "shape": np.array([24])},
        {"type": np.array(["dense"], "S5"), "shape": np.array([3]), "inFeatures": 24, "outFeatures": 3,
         "weight": rng.integers(-128, 127, (3, 24)) * 2, "neuron": _neuron(iDecay=4095)},
    ]  # fmt: skip


def _of_layers(layers: Sequence[dict[str, object]]) -> bytes:
    """As SLAYER stores layers."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for index, layer in enumerate(layers):
            _put(file.create_group(f"layer/{index}"), layer)
    return memory.getvalue()


def _put(group: h5py.Group, values: dict[str, object]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _put(group.create_group(key), value)
        else:
            group[key] = value


def _read_lava_dl(path: Path) -> None:
    from deploy.lava_dl.engine import LifEngine

    network = lava_dl.read(path)
    if sum(int(np.prod(layer.shape)) for layer in network.layers) < 100_000:
        LifEngine(network).run(np.ones((1, 2, *network.input_shape), np.uint8))


def _nir(folder: Path) -> list[bytes]:
    from export.nir import file as nir_file
    from export.nir.graph import to_graph

    found = []
    for network in _networks()[:2]:
        nir_file.write(to_graph(network), folder / "net.nir")
        found.append((folder / "net.nir").read_bytes())
    return found


def _read_nir(path: Path) -> None:
    from export.nir import reader as nir_reader

    netx.write(nir_reader.read(path).network, path.with_name("again.h5"))


def _model(folder: Path) -> list[bytes]:
    models.MODELS["tiny"] = tiny
    network = tiny(5, levels=4)
    checkpoint.save(
        folder / "m.pt", checkpoint.model_content(network, "tiny", tuple("abcde"), {"recipe": {"model": "x"}})
    )
    return [(folder / "m.pt").read_bytes()]


def _read_model(path: Path) -> None:
    network, _ = checkpoint.load_model(path)
    if network.input_shape == tiny().input_shape:
        with torch.no_grad():
            network(torch.zeros(1, *network.input_shape))


def _checkpoint(folder: Path) -> list[bytes]:
    models.MODELS["tiny"] = tiny
    train(_RECIPE, image_set(30), out=folder / "m.pt", device=_CPU)
    return [checkpoint_path(folder / "m.pt").read_bytes()]


def _read_checkpoint(path: Path) -> None:
    out = path.with_name("resumed.pt")
    os.replace(path, checkpoint_path(out))
    train(_RECIPE, image_set(30), out=out, device=_CPU, resume=True)


def _archive(folder: Path) -> list[bytes]:
    images = write_folder(folder / "images", train=image_set(6, classes=2), test=image_set(2, classes=2, seed=1))
    return [write_zip(folder / "images.zip", images).read_bytes()]


def _read_archive(path: Path) -> None:
    data.load([str(path)], "train")


def _arrays(folder: Path) -> list[bytes]:
    array = np.arange(60, dtype=np.int8).reshape(1, 2, 6, 5) % 2
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "a.npz", spikes=array)
    return [(folder / "a.npy").read_bytes(), (folder / "a.npz").read_bytes()]


def _read_array(path: Path) -> None:
    whole_numbers(path, np.atleast_1d(load_array(path))[:10])


def _config(folder: Path) -> list[bytes]:
    network = b'model = "resnet20"\nlevels = 4\naugment = "trivial"\n'
    training = b'epochs = 3\nlearning_rate = 0.05\nbatch = 16\nseed = 1\nresume = true\ndata = ["sample"]\n'
    return [network + training, b'init = "model.pt"\nsnn_steps = 4\nout = "out.pt"\n']


def _read_config(path: Path) -> None:
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            command.parser(cifar.COMMAND).parse_args(["--config", str(path)])
    except SystemExit as end:
        if end.code != 2:
            raise
        raise InputError(complaints.getvalue().removesuffix("\n")) from None


KINDS = {
    "netx": Kind(".h5", _netx, damage.changed_hdf5, _read_netx),
    "old netx": Kind(".h5", _old_netx, damage.changed_hdf5, _read_netx),
    "lava-dl netx": Kind(".net", _lava_dl, damage.changed_hdf5, _read_lava_dl),
    "NIR": Kind(".nir", _nir, damage.changed_hdf5, _read_nir),
    "model": Kind(".pt", _model, damage.changed_model, _read_model),
    "checkpoint": Kind(".checkpoint", _checkpoint, damage.changed_model, _read_checkpoint),
    "archive": Kind(".zip", _archive, damage.changed_zip, _read_archive),
    "array": Kind(".npy", _arrays, damage.changed_npy, _read_array),
    "configuration": Kind(".toml", _config, damage.changed_toml, _read_config),
}
