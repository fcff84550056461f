"""The kinds of files that come from strangers: valid ones to damage, and how each is read."""

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn

from deploy.arrays import load_array, whole_numbers
from deploy.lava_dl import reader as lava_dl
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from nqlava.testing.networks import images_for, small_networks
from stress import damage
from train import cifar, command
from train.data import images as data
from train.data.image_set import ImageSet
from train.loop import checkpoint
from train.loop.recipe import Recipe
from train.loop.trainer import checkpoint_path, train
from train.model import models

_SHAPE = (3, 8, 6)
_GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
_LARGE = 100_000  # neurons of networks that are read but not run


@dataclass(frozen=True)
class Kind:
    """Files of one kind: share of the time, suffix, and what makes valid ones, changes one, reads and uses one."""

    share: int
    suffix: str
    valid: Callable[[Path], Sequence[bytes]]
    change: Callable[[bytes, damage.Random], bytes]
    read: Callable[[Path], object]


def _written(write: Callable[..., object], content: object, folder: Path) -> bytes:
    write(content, folder / "valid")
    return (folder / "valid").read_bytes()


def _netx(folder: Path) -> list[bytes]:
    return [_written(netx.write, network, folder) for network in small_networks()]


def _read_netx(path: Path) -> None:
    network = netx.read(path)
    again = path.with_name("again.h5")
    netx.write(network, again)
    if netx.read(again).digest() != network.digest():
        raise AssertionError("an accepted network is another one after writing")
    if sum(int(np.prod(network.shape_of[layer.name])) for layer in network.layers) < _LARGE:
        Engine(network).run(images_for(network, 1), 2)


def _lava_dl(folder: Path) -> list[bytes]:
    """Two dense layers behind input neurons, and a convolution with a dense layer, as SLAYER stores them."""
    neuron = {"type": np.array(["LOIHI"], "S5"), "iDecay": 4096, "vDecay": 128, "vThMant": 80, "refDelay": 1,
              "gradedSpike": 0}  # fmt: skip
    neuron = {f"neuron/{key}": value for key, value in neuron.items()}
    geometry = {"kernelSize": [3, 3], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 2}
    dense = [
        ("input", (6,), (), {**neuron, "bias": 0.0, "weight": 64.0}),
        ("dense", (5,), (5, 6), {**neuron, "inFeatures": 6, "outFeatures": 5, "delay": np.arange(6) % 3.0}),
        ("dense", (3,), (3, 5), {**neuron, "inFeatures": 5, "outFeatures": 3, "bias": np.array([9, 0, -9])}),
    ]
    convolution = [
        ("input", (2, 5, 4), (), {}),
        ("conv", (4, 3, 2), (4, 1, 3, 3), {**neuron, "inChannels": 2, "outChannels": 4, **geometry}),
        ("flatten", (24,), (), {}),
        ("dense", (3,), (3, 24), {**neuron, "inFeatures": 24, "outFeatures": 3, "neuron/iDecay": 4095}),
    ]
    found, rng = [], np.random.default_rng(0)
    for layers in (dense, convolution):
        memory = io.BytesIO()
        with h5py.File(memory, "w") as file:
            for index, (kind, shape, weight, more) in enumerate(layers):
                values = {"type": np.array([kind], f"S{len(kind)}"), "shape": np.array(shape), **more}
                values |= {"weight": rng.integers(-128, 127, weight) * 2} if weight else {}
                for key, value in values.items():
                    file[f"layer/{index}/{key}"] = value
        found.append(memory.getvalue())
    return found


def _read_lava_dl(path: Path) -> None:
    from deploy.lava_dl.engine import LifEngine

    network = lava_dl.read(path)
    if sum(int(np.prod(layer.shape)) for layer in network.layers) < _LARGE:
        LifEngine(network).run(np.ones((1, 2, *network.input_shape), np.uint8))


def _nir(folder: Path) -> list[bytes]:
    from export.nir import file as nir_file
    from export.nir.graph import to_graph

    return [_written(nir_file.write, to_graph(network), folder) for network in small_networks()[:2]]


def _read_nir(path: Path) -> None:
    from export.nir import reader as nir_reader

    netx.write(nir_reader.read(path).network, path.with_name("again.h5"))


def _tiny(classes: int = 5, **form: Any) -> models.Network:
    """A convolution and a linear layer, so that much of a file is structure."""
    made = models.Form(**form)
    layers = [models.Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3)), nn.Conv2d(3, 4, 3, padding=1, bias=False),
              nn.BatchNorm2d(4), made.neuron(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, classes)]  # fmt: skip
    return models.Network(layers, input_shape=_SHAPE, levels=made.levels)


def _images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *_SHAPE[1:], _SHAPE[0]), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 5, tuple("abcde"))


def _model(folder: Path) -> list[bytes]:
    models.MODELS["tiny"] = _tiny
    model = checkpoint.ModelFile(_tiny(levels=4), "tiny", tuple("abcde"), {"recipe": {"model": "x"}})
    checkpoint.write_model(folder / "m.pt", model)
    return [(folder / "m.pt").read_bytes()]


def _read_model(path: Path) -> None:
    network = checkpoint.read_model(path).network
    if network.input_shape == _SHAPE:
        with torch.no_grad():
            network(torch.zeros(1, *network.input_shape))


def _train(out: Path, resume: bool = False) -> None:
    recipe = Recipe(model="tiny", epochs=1, batch=10, validation=5, induction_steps=2, cutout=2)
    train(recipe, _images(30), out=out, device=torch.device("cpu"), resume=resume)


def _checkpoint(folder: Path) -> list[bytes]:
    models.MODELS["tiny"] = _tiny
    _train(folder / "m.pt")
    return [checkpoint_path(folder / "m.pt").read_bytes()]


def _read_checkpoint(path: Path) -> None:
    out = path.with_name("resumed.pt")
    os.replace(path, checkpoint_path(out))
    _train(out, resume=True)


def _archive(folder: Path) -> list[bytes]:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, image in enumerate(_images(8).images):
            png = io.BytesIO()
            Image.fromarray(image.numpy()).save(png, "PNG")
            archive.writestr(f"{'train' if index < 6 else 'test'}/class{index % 2}/{index}.png", png.getvalue())
    return [memory.getvalue()]


def _arrays(folder: Path) -> list[bytes]:
    array = np.arange(60, dtype=np.int8).reshape(1, 2, 6, 5) % 2
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "a.npz", spikes=array)
    return [(folder / name).read_bytes() for name in ("a.npy", "a.npz")]


def _configuration(folder: Path) -> list[bytes]:
    network = b'model = "resnet20"\nlevels = 4\naugment = "trivial"\n'
    training = b'epochs = 3\nlearning_rate = 0.05\nbatch = 16\nseed = 1\nresume = true\ndata = ["sample"]\n'
    return [network + training, b'init = "model.pt"\nsnn_steps = 4\nout = "out.pt"\n']


def _read_configuration(path: Path) -> None:
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            command.parser(cifar.COMMAND).parse_args(["--config", str(path)])
    except SystemExit as end:
        if end.code != 2:
            raise
        raise InputError(complaints.getvalue().removesuffix("\n")) from None


KINDS = {
    "netx": Kind(45, ".h5", _netx, damage.changed_hdf5, _read_netx),
    # From before strings had a fixed length.
    "old netx": Kind(5, ".h5", lambda _: [path.read_bytes() for path in sorted(_GOLDEN.glob("version?.h5"))],
                     damage.changed_hdf5, _read_netx),
    "lava-dl netx": Kind(20, ".net", _lava_dl, damage.changed_hdf5, _read_lava_dl),
    "NIR": Kind(5, ".nir", _nir, damage.changed_hdf5, _read_nir),
    "model": Kind(12, ".pt", _model, damage.changed_model, _read_model),
    "checkpoint": Kind(4, ".checkpoint", _checkpoint, damage.changed_model, _read_checkpoint),
    "archive": Kind(10, ".zip", _archive, damage.changed_zip,
                    lambda path: data.load([str(path)], "train")),
    "array": Kind(10, ".npy", _arrays, damage.changed_npy,
                  lambda path: whole_numbers(path, np.atleast_1d(load_array(path))[:10])),
    "configuration": Kind(5, ".toml", _configuration, damage.changed_toml, _read_configuration),
}  # fmt: skip
