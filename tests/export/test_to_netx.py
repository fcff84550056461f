"""A trained network becomes an integer network that spikes alike, in a file that depends on nothing but the model."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.convert import convert
from export.fold.folded import ExportError
from export.round.quantize import Precision
from export.round.rounding import NEAREST, Method
from export.to_netx import main
from nqlava import netx
from nqlava.engine.integer import Engine
from tests.tiny import image_set, random_tiny, tiny, write_folder
from train.data.image_set import ImageSet
from train.data.images import load
from train.loop.checkpoint import ModelFile, write_model
from train.model.activation import NQ
from train.model.models import MODELS, BasicBlock, Form, Network, Normalize
from train.model.snn import simulate


class Shortcut(nn.Module):
    """conv(x) + x."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x) + x


def harmless(seed: int = 0) -> Network:
    """A network that loses nothing: weights are integers in units of Δ = 1, with one of ±127 in every channel.

    Biases lie a quarter above an integer: within three steps no rounding of them, nor of float32, moves a spike. The
    identity shortcut has the factor 256.
    """
    generator = torch.Generator().manual_seed(seed)

    def integers(shape: torch.Size, unit: float, spread: int) -> torch.Tensor:
        weight = torch.randint(-spread, spread + 1, shape, generator=generator).float()
        weight.flatten(1)[:, 0] = 127 * (-1.0) ** torch.arange(shape[0])
        return weight * unit

    network = Network(
        [
            Normalize((0.0,) * 3, (1 / 255,) * 3),
            nn.Conv2d(3, 4, 3, padding=1),
            NQ(4, 8192.0),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, (3, 2), padding=(1, 0)),
            NQ(4, 256.0),
            Shortcut(nn.Conv2d(6, 6, 3, padding=1)),
            NQ(4, 512.0),
            nn.Flatten(),
            nn.Linear(48, 7),
            NQ(4, 128.0),
            nn.Linear(7, 5),
        ],
        input_shape=(3, 8, 6),
        levels=4,
    )
    units = ((1.0, 30), (4 / 8192, 127), (1 / 256, 127), (1 / 512, 60), (1 / 128, 60))
    modules = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for module, (unit, spread) in zip(modules, units, strict=True):
            module.weight.copy_(integers(module.weight.shape, unit, spread))
            module.bias.copy_(torch.randint(-40, 90, module.bias.shape, generator=generator) + 0.25)
        modules[-1].weight[1:, 0] = 50 / 128  # one scale for the read-out: one weight of 127 is enough
        modules[-1].bias.round_()
    return network.eval()


@pytest.mark.parametrize("granularity", ["channel", "layer"])
def test_where_rounding_is_harmless_every_spike_is_the_same(granularity: Any) -> None:
    model, data = harmless(), image_set(40)
    images = data.images.permute(0, 3, 1, 2).contiguous()
    network, report = convert(model, data, steps=3, precision=Precision(granularity=granularity))
    for steps in (1, 2, 3):
        rates: list[torch.Tensor] = []
        scores = simulate(model, images, steps, lambda _, rate, rates=rates: rates.append(rate))
        trace = Engine(network).run(images, steps)
        for index, (rate, activation) in enumerate(zip(rates, model.activations, strict=True)):
            counts = (rate / float(activation.threshold) * steps).round().numpy()
            np.testing.assert_array_equal(trace.layer_spikes(index).sum(1), counts)
            assert 0.02 < counts.mean() / steps < 0.98
        np.testing.assert_array_equal(np.rint(scores[-1] * steps), trace.readout[:, -1])
    assert report.float_snn == pytest.approx(report.integer_snn) and not any(
        layer.may_saturate for layer in report.layers
    )


def test_random_networks_mostly_agree() -> None:
    model, data = random_tiny(3), image_set(60)
    images = data.images.permute(0, 3, 1, 2).contiguous()
    network, report = convert(model, data, steps=4, notes={"x": 1})
    integer = Engine(network).classify(images, 4)
    floating = simulate(model, images, 4).argmax(2).T.numpy()
    assert (integer == floating).mean() > 0.9
    labels = data.labels.numpy()
    assert report.integer_snn == pytest.approx(100 * (integer[:, -1] == labels).mean())
    assert report.float_snn == pytest.approx(100 * (floating[:, -1] == labels).mean())
    expected = {"T": 4, "granularity": "channel", "calibration_images": 60, "x": 1}
    assert {key: network.info[key] for key in expected} == expected
    assert json.loads(network.info["classes"]) == list(data.classes)
    assert not [key for key in network.info if key.endswith("accuracy")], "of other images than those of a later run"
    assert [(layer.name, layer.shape, layer.weights) for layer in report.layers] == [
        ("layers.1", (4, 8, 6), 108),
        ("layers.5", (6, 4, 2), 576),
        ("layers.10", (7,), 336),
        ("layers.12", (5,), 35),
    ]


def test_images_of_other_classes_are_refused() -> None:
    with pytest.raises(ExportError, match=r"^model: has 5 outputs; allowed: 3, the classes of the images, or outputs"):
        convert(random_tiny(3), image_set(6, classes=3), steps=2)


@pytest.mark.slow
def test_layers_that_may_saturate_are_named() -> None:
    layers = convert(harmless(), image_set(4), steps=4096)[1].layers
    assert 0 < sum(layer.may_saturate for layer in layers) < len(layers)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file, and training images in data/."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    write_folder(tmp_path / "data", train=image_set(30))
    save_model(tmp_path / "m.pt", random_tiny(3))
    return tmp_path


def save_model(path: Path, network: Network) -> None:
    write_model(path, ModelFile(network, "tiny", tuple(f"class{i}" for i in range(5)), {}))


def arguments(folder: Path, *more: str) -> list[str]:
    options = ["--data", str(folder / "data"), "--calibration", "20", "--T", "4"]
    return [str(folder / "m.pt"), str(folder / "net.h5"), *options, *more]


def test_end_to_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()[1:]
    assert lines[0].split("  ")[0] == "layer" and "worst |u|, T=4" in lines[0]
    assert [line.split()[0] for line in lines[1:5]] == [
        "layers.1",
        "layers.5",
        "layers.10",
        "layers.12",
    ]
    assert lines[5] == "no layer can saturate at 24 bits (limit 8,388,607) within 4 steps"
    assert lines[6].startswith("20 calibration images: ANN ") and "integer SNN T=4 " in lines[6]
    network = netx.read(folder / "net.h5")
    assert lines[7].startswith(f"wrote {folder / 'net.h5'} (") and network.digest()[:16] in lines[7]
    expected = convert(random_tiny(3), ImageSet(*_subset(image_set(30))), steps=4)[0]
    assert network.digest() == expected.digest()
    assert (network.info["architecture"], network.info["T"], len(network.info["source_sha256"])) == ("tiny", 4, 64)
    assert network.info["L"] == 4


@pytest.mark.parametrize(
    ("options", "method"),
    [
        (("--rounding", "error"), Method()),
        (("--rounding", "error", "--no-bias-correction"), Method(bias_correction=False)),
        (("--bias-correction",), Method(feedback=False, scale_search=False)),
    ],
)
def test_rounding_is_that_of_the_options(folder: Path, options: tuple[str, ...], method: Method) -> None:
    assert main(arguments(folder, *options)) == 0
    images = load([str(folder / "data")], "train").sample(20, 0)
    found = netx.read(folder / "net.h5").digest()
    assert found == convert(random_tiny(3), images, steps=4, method=method)[0].digest()
    assert found != convert(random_tiny(3), images, steps=4)[0].digest()


def _subset(data: ImageSet) -> tuple[Any, ...]:
    part = data.sample(20, 0)
    return part.images, part.labels, part.classes


def test_the_same_model_gives_the_same_bytes(folder: Path) -> None:
    assert main(arguments(folder)) == 0
    first = (folder / "net.h5").read_bytes()
    save_model(folder / "m.pt", random_tiny(3))
    assert main([*arguments(folder)[:1], str(folder / "again.h5"), *arguments(folder)[2:]]) == 0
    assert (folder / "again.h5").read_bytes() == first
    assert main(arguments(folder, "--granularity", "layer")) == 0
    assert netx.read(folder / "net.h5").digest() != netx.read(folder / "again.h5").digest()


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "method"), [(8, NEAREST), (4, Method())])
def test_threads_do_not_change_the_network(bits: int, method: Method) -> None:
    """Neither the nearest integers, nor those that are searched for on calibration images."""
    data = ImageSet(*_subset(image_set(30)))
    threads, digests = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            network, _ = convert(random_tiny(3), data, steps=4, precision=Precision(bits), method=method)
            digests.add(network.digest())
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1


def test_bits_are_those_asked_for(folder: Path) -> None:
    assert main(arguments(folder, "--bits", "3", "--layer-bits", "layers.1=8", "layers.12=5")) == 0
    layers = netx.read(folder / "net.h5").layers
    assert [layer.connections[0].bits for layer in layers] == [8, 3, 3, 5]
    assert [layer.connections[0].exponent for layer in layers] == [0, 5, 5, 3]


def test_a_module_of_ones_own_in_five_lines() -> None:
    """Without ``input_shape`` and ``levels``, with a residual block: the shape is that of the images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        Normalize((0.5,) * 3, (0.25,) * 3),
        nn.Conv2d(3, 4, 3, padding=1),
        NQ(4, 1.0),
        BasicBlock(4, 4, 1, Form(threshold=1.0)),
        nn.Flatten(),
        nn.Linear(192, 5),
    ).eval()
    data = image_set(30)
    network, report = convert(model, data, steps=4)
    assert [layer.name for layer in network.layers] == ["1", "3.conv1", "3.conv2", "5"]
    integer = Engine(network).classify(data.images.permute(0, 3, 1, 2).contiguous(), 4)
    assert report.integer_snn == pytest.approx(100 * (integer[:, -1] == data.labels.numpy()).mean())
    assert abs(report.integer_snn - report.float_snn) < 7


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.target, "w")


BAD = {
    "model": (["{f}/nowhere.pt", "{f}/net.h5"], "{f}/nowhere.pt: no such file"),
    "bomb": (["{f}/bomb.pt", "{f}/net.h5"], "{f}/bomb.pt: not a model file (it asks to run code, or it is damaged)"),
    "T 0": (["--T", "0"], "T is 0; allowed: 1..4096"),
    "T 4097": (["--T", "4097"], "T is 4097; allowed: 1..4096"),
    "folder": (["{f}/m.pt", "{f}/nowhere/net.h5"], "{f}/nowhere: no such folder"),
    "images": (["--calibration", "31"], "--calibration is 31; allowed: 1..30"),
    "no images": (["--calibration", "0"], "--calibration is 0; allowed: 1..30"),
    "data": (["--data", "{f}/nowhere"], "data: {f}/nowhere does not exist; allowed: "),
    "classes": (["--data", "{f}/three"], "data: 3 classes; allowed: 5 as the model"),
    "other classes": (["--data", "{f}/other"], "data: classes are a, b, c, d, e; allowed: class0, class1, class2, "),
    "not finite": (["{f}/nan.pt", "{f}/net.h5"], "{f}/nan.pt: layers.5.weight is not finite"),
    "threshold": (["{f}/negative.pt", "{f}/net.h5"], "{f}/negative.pt: layers.11.threshold is -1.0; allowed: "),
    "bits": (["--bits", "9"], "bits: is 9; allowed: 2..8"),
    "bits of a layer": (["--layer-bits", "layers.1=1"], "bits of layers.1: is 1; allowed: 2..8"),
    "bits of nothing": (
        ["--layer-bits", "conv=4"],
        "bits of conv: no such layer; allowed: layers.1, layers.5, layers.10, layers.12",
    ),
    "bits given twice": (
        ["--layer-bits", "layers.1=4", "layers.1=8"],
        "--layer-bits: layers.1 is given twice; allowed: once",
    ),
    "no bits": (["--layer-bits", "layers.1"], "--layer-bits: 'layers.1'; allowed: LAYER=BITS, such as layers.1=8"),
    "model itself": (["{f}/m.pt", "{f}/m.pt"], "{f}/m.pt is also an input; choose another output"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    more, message = BAD[case]
    (folder / "bomb.pt").write_bytes(pickle.dumps(Bomb(str(folder / "exploded"))))
    data = image_set(30)
    write_folder(folder / "three", train=image_set(30, classes=3))
    write_folder(folder / "other", train=ImageSet(data.images, data.labels, tuple("abcde")))
    for name, index, key, value in (("nan", 5, "weight", np.nan), ("negative", 11, "threshold", -1.0)):
        network = random_tiny(3)
        getattr(network.layers[index], key).data.fill_(value)
        save_model(folder / f"{name}.pt", network)
    network = random_tiny(3)
    before = sorted(folder.glob("*"))
    given = [text.format(f=folder) for text in more]
    argv = [*given, *arguments(folder)[2:]] if not given[0].startswith("--") else arguments(folder, *given)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"export.to_netx: {message.format(f=folder)}") and captured.err.count("\n") == 1
    assert set(folder.glob("*")) - set(before) <= {folder / "cache"}


@pytest.mark.slow
def test_a_model_that_ships_is_named_instead_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same network as from its file."""
    more = ["--calibration", "4", "--T", "1"]
    assert main(["--pretrained", "resnet20", str(tmp_path / "a.h5"), *more]) == 0
    assert main(["train/pretrained/resnet20.pt", str(tmp_path / "b.h5"), *more]) == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    capsys.readouterr()
    for arguments, message in (
        (
            [str(tmp_path / "c.h5")],
            "no model is given; allowed: MODEL, before the file to write if there is one, or --pretrained",
        ),
        (
            ["m.pt", str(tmp_path / "c.h5"), "--pretrained", "resnet20"],
            "MODEL and --pretrained are both given; allowed: one of them",
        ),
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err == f"export.to_netx: {message}\n"


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_a_relu_model_file_becomes_neurons_with_its_reset(folder: Path, reset: str) -> None:
    model = tiny(5, activation="relu", reset=reset, threshold=0.5)
    classes = tuple(f"class{i}" for i in range(5))
    write_model(folder / "m.pt", ModelFile(model, "tiny", classes, {}, activation="relu", reset=reset))
    assert main(arguments(folder)) == 0
    network = netx.read(folder / "net.h5")
    assert {layer.reset for layer in network.layers if layer.threshold is not None} == {reset}


def test_dry_run_tells_what_would_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert main(arguments(folder, "--bits", "4", "--dry-run")) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(
        f"{folder / 'm.pt'}: tiny, L = 4; T = 4, 4-bit weights per channel, rounding error, scale s"
    )
    assert rest == [
        "network: 4 layers, 252 neurons, 1,055 weights",
        f"writes: {folder / 'net.h5'}, netx version 2",
        "dry run: nothing was written",
    ]
    assert set(folder.iterdir()) - set(before) <= {folder / "cache"}
    assert main(arguments(folder, "--layer-bits", "layers.2=4", "--dry-run")) == 2
    assert "no such layer" in capsys.readouterr().err
