"""A user's network, as a file of weights and a factory, becomes a netx file in one command."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deploy import api
from deploy.run_lava import main as run_lava
from export.convert import convert
from export.from_torch import main
from export.network import build, load_weights, read_weights
from export.to_netx import main as to_netx
from nqlava import netx
from tests.tiny import image_set, randomise, write_folder
from train.cifar import main as cifar
from train.evaluate import main as evaluate
from train.loop.checkpoint import read_model
from train.loop.trainer import Training
from train.potentials import main as potentials

SOURCE = """
from torch import nn

def small(width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )

def gated():
    gates = [nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.Sigmoid()]
    return nn.Sequential(*gates, nn.Flatten(), nn.Linear(32, 5))

def many():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 12))

number = 3
"""
MEAN, STD = ["0.5", "0.4", "0.6"], ["0.25", "0.2", "0.3"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with factories, trained weights and images; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(SOURCE)
    for name in ("small", "gated", "many"):
        model = build(f"models.py:{name}")
        randomise(model, 3)
        torch.save(model.state_dict(), f"{name}.pth")
    write_folder(tmp_path / "data", train=image_set(60), test=image_set(20, seed=1))
    return tmp_path


def arguments(*more: str, model: str = "models.py:small") -> list[str]:
    name = model.partition(":")[2].partition("(")[0]
    return [
        f"{name}.pth", "net.h5", "--model", model, "--data", "data", "--mean", *MEAN, "--std", *STD, "--calibration",
        "30", *more,
    ]  # fmt: skip


def test_weights_become_a_network_that_runs_exactly_in_lava(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = image_set(60), image_set(20, seed=1)
    model = build("models.py:small")
    mean, std = (torch.tensor([float(v) for v in values]).view(-1, 1, 1) for values in (MEAN, STD))
    inputs, unseen = ((torch.from_numpy(data.pixels.copy()) / 255 - mean) / std for data in (train, test))
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), train.labels).backward()
        optimizer.step()
    torch.save(model.eval().state_dict(), "small.pth")
    expected = 100 * float((model(unseen).argmax(1) == test.labels).double().mean())

    assert main(arguments("--T", "16")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("wrote net.h5 (") and any("30 other images: ReLU network" in line for line in lines)
    info = netx.read(folder / "net.h5").info
    assert info["T"] == 16 and info["architecture"] == "models.py:small" and 0 < info["original_accuracy"] <= 100
    found = api.run_lava("net.h5", test.pixels.copy(), test.labels.numpy(), steps=16)
    assert found.exact and found.accuracy[-1] >= expected - 10 >= 50


@pytest.mark.parametrize("steps", ["2", "9"])
def test_its_model_file_serves_every_command(folder: Path, steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The file needs none of the user's code. Of nine steps eight are trained."""
    assert main(arguments("--T", steps, "--fine-tune", "2")) == 0
    assert "6 other images: ReLU network" in capsys.readouterr().out
    (folder / "models.py").unlink()
    made = read_model(Path("net.model.pt"))
    assert made.architecture == "lowered" and made.network.levels == int(steps) and len(made.history) == 2
    assert made.recipe["snn_steps"] == min(int(steps), 8)
    assert evaluate(["net.model.pt", "--data", "data", "--T", "4"]) == 0
    assert potentials(["net.model.pt", "moved.pt", "--data", "data", "--T", "2", "--calibration", "20"]) == 0
    assert to_netx(["net.model.pt", "again.h5", "--data", "data", "--T", steps, "--calibration", "20"]) == 0
    assert netx.read(folder / "again.h5").digest() == netx.read(folder / "net.h5").digest()
    capsys.readouterr()
    assert run_lava(["net.h5", "--data", "data", "--samples", "20"]) in (0, 1)
    assert "EXACT" in (printed := capsys.readouterr().out) and "on the same 20 images: ANN" in printed
    further = ["--init", "net.model.pt", "--data", "data", "--epochs", "1", "--batch", "10", "--out", "further.pt"]
    assert cifar(further) == 0


def test_an_interrupted_fine_tuning_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arguments("--T", "2", "--fine-tune", "2")
    assert main(whole) == 0
    expected = netx.read(folder / "net.h5").digest()
    epoch = Training.epoch

    def stop(training: Training, number: int) -> tuple[float, float]:
        if number == 1:
            raise KeyboardInterrupt
        return epoch(training, number)

    Path("net.h5").unlink()
    Path("net.model.pt.checkpoint").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Training, "epoch", stop)
        assert main(whole) == 130
    assert main([*whole, "--resume"]) == 0
    assert netx.read(folder / "net.h5").digest() == expected


def test_check_lists_all_problems_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("--check", model="models.py:gated")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "1 GELU: gelu: " in lines[0] and "3 Sigmoid: sigmoid: " in lines[1]
    assert main(arguments("--check")) == 0
    assert capsys.readouterr().out == "models.py:small: exports\n"
    assert not (folder / "net.h5").exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
        lambda state: {f"model.net.{key}": value for key, value in state.items()},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
)
def test_usual_prefixes_and_keys(folder: Path, wrap: object) -> None:
    state = torch.load("small.pth", weights_only=True)
    torch.save(wrap(state), "wrapped.pth")  # type: ignore[operator]
    model = build("models.py:small")
    load_weights(model, read_weights(Path("wrapped.pth")), Path("wrapped.pth"))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items() if "batches" not in key)


def test_safetensors(folder: Path) -> None:
    torch_module = pytest.importorskip("safetensors.torch")
    state = torch.load("small.pth", weights_only=True)
    torch_module.save_file(state, "small.safetensors")
    found = read_weights(Path("small.safetensors"))
    assert found.keys() == state.keys() and all(torch.equal(found[key], value) for key, value in state.items())


def test_factories() -> None:
    assert isinstance(build("torch.nn:Linear(in_features=2, out_features=3)"), nn.Linear)
    model = build("resnet18(num_classes=7, weights=None)")
    assert model.fc.out_features == 7 and not model.training  # type: ignore[union-attr]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


BAD = {
    "no.pth --model models.py:small": "no.pth: no such file",
    "evil.pth --model models.py:small": "evil.pth: is no file of tensors (it asks to run code, or it is damaged)",
    "number.pth --model models.py:small": "number.pth: holds no state dictionary",
    "small.pth --model models.py:gated": "small.pth: has no 2.bias, 2.weight",
    "small.pth --model models.py:small(width=5)": "small.pth: 0.bias is (4,); allowed: (5,) as --model makes it",
    "nan.pth --model models.py:small": "nan.pth: 0.weight is not finite; allowed: finite numbers",
    "small.pth --model models.py:large": "--model models.py:large: models has no function or class large",
    "small.pth --model models.py:number": "--model models.py:number: models has no function or class number",
    "small.pth --model other.py:small": "--model other.py:small: other.py is no file",
    "small.pth --model broken.py:small": "--model broken.py:small: broken.py cannot be imported (division by zero)",
    "small.pth --model no_such_module:small": "--model no_such_module:small: no_such_module cannot be imported (",
    "small.pth --model models.py:small(1)": "--model models.py:small(1): cannot be read",
    "small.pth --model models.py:small(depth=1)": "--model models.py:small(depth=1): fails (small() got an unexpected",
    "small.pth --model builtins:dict": "--model builtins:dict: makes dict; allowed: a torch.nn.Module",
    "small.pth --model models.py:small --std 1 1": "--std has 2 values; allowed: 3, one per channel",
    "small.pth --model models.py:small --fine-tune -1": "--fine-tune is -1; allowed: 0 or more epochs",
    "small.pth --model models.py:small --resume": "--resume continues a training, and none is asked for; add",
    "small.pth --model models.py:small --calibration 30 --fine-tune 1 --resume": "net.model.pt.checkpoint: no such",
    "small.pth --model models.py:small --calibration 61": "--calibration is 61; allowed: 1..60",
    "small.pth --model models.py:small --size 0": "--size is 0; allowed: 1..4096",
    "small.pth --model models.py:small --size 8 --data sample": "--size is 8; allowed: 32, the size of the sample and",
    "many.pth --model models.py:many --calibration 9": "model: has 12 outputs; allowed: 5, the classes of the images",
    "many.pth --model models.py:many --calibration 9 --outputs 3 4": "model: has 2 outputs; allowed: 5, the classes",
    "many.pth --model models.py:many --calibration 9 --outputs 0 1 2 3 12": "outputs: 12 is not there; allowed: each",
    "many.pth --model models.py:many --calibration 9 --outputs 0 1 2 3 3": "outputs: 3 is named twice; allowed: each",
    "many.pth --model models.py:many --outputs 0 -1": "--outputs: -1 is no number; allowed: numbers of outputs, from",
    "many.pth --model models.py:many --outputs no.txt": "--outputs no.txt: is no file; allowed: numbers, or a text",
    "many.pth --model models.py:many --outputs models.py": "--outputs models.py: from is no number; allowed: numbers",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    torch.save({"weight": Evil()}, "evil.pth")
    torch.save(3, "number.pth")
    state = torch.load("small.pth", weights_only=True)
    torch.save({**state, "0.weight": torch.full_like(state["0.weight"], torch.nan)}, "nan.pth")
    Path("broken.py").write_text("1 / 0")
    weights, *rest = line.split(maxsplit=3)
    more = " ".join(rest).split(" ")
    assert main([weights, "net.h5", "--data", "data", "--mean", *MEAN, "--std", *STD, *more]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(f"export.from_torch: {BAD[line]}"), message
    assert not Path("net.h5").exists()


def test_a_network_that_takes_uint8_needs_no_mean(folder: Path) -> None:
    Path("own.py").write_text(
        "from torch import nn\nfrom models import small\n"
        "class Own(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.net = small()\n"
        "    def forward(self, x):\n        return self.net(x.float() / 255)\n"
    )
    assert main(["small.pth", "net.h5", "--model", "own.py:Own", "--data", "data", "--calibration", "30"]) == 2
    state: dict[str, Tensor] = {f"net.{k}": v for k, v in torch.load("small.pth", weights_only=True).items()}
    torch.save(state, "own.pth")
    assert main(["own.pth", "net.h5", "--model", "own.py:Own", "--data", "data", "--calibration", "30"]) == 0


def test_a_network_for_grey_images(folder: Path) -> None:
    """LeNet and others take one channel; both commands make the images grey."""
    Path("lenet.py").write_text(
        "from torch import nn\n"
        "def lenet():\n"
        "    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))\n"
    )
    torch.save(build("lenet.py:lenet").state_dict(), "lenet.pth")
    words = ["lenet.pth", "net.h5", "--model", "lenet.py:lenet", "--data", "data", "--calibration", "30"]
    assert main([*words, "--mean", "0.5", "--std", "0.25"]) == 0
    assert netx.read(Path("net.h5")).input_shape == (1, 8, 6)
    assert run_lava(["net.h5", "--data", "data", "--samples", "5", "--T", "2"]) == 0


def test_images_of_any_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands make the same pixels of a tree of photographs."""
    for number in range(40):
        size = (40 + number, 30 + 2 * (number % 7))
        file = folder / "photos" / ("val" if number % 4 == 0 else "train") / f"n{number % 5}" / f"{number}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 90).convert("RGB").save(file)
    words = ["small.pth", "net.h5", "--model", "models.py:small", "--data", "photos", "--mean", *MEAN, "--std", *STD]
    assert main([*words, "--calibration", "20", "--size", "16", "--T", "2"]) == 0
    assert "20 calibration images 16x16 of photos" in capsys.readouterr().out
    assert netx.read(Path("net.h5")).input_shape == (3, 16, 16)
    assert run_lava(["net.h5", "--data", "photos", "--samples", "5"]) == 0
    assert main([*words, "--check"]) == 0 and "exports" in capsys.readouterr().out


def test_some_outputs_of_a_network_with_more(folder: Path) -> None:
    """The read-out has the rows of the named outputs, in their order."""
    words = ["many.pth", "net.h5", "--model", "models.py:many", "--data", "data", "--mean", *MEAN, "--std", *STD]
    assert main([*words, "--calibration", "30", "--outputs", "7", "0", "11", "3", "8"]) == 0
    one = netx.read(Path("net.h5"))
    assert one.classes == 5 and one.info["classes"] == '["class0", "class1", "class2", "class3", "class4"]'
    Path("rows.txt").write_text("7 0\n11\n3 8\n")
    assert main([*words, "--calibration", "30", "--outputs", "rows.txt"]) == 0
    assert netx.read(Path("net.h5")).digest() == one.digest()
    assert run_lava(["net.h5", "--data", "data", "--samples", "5"]) == 0
    model = _loaded("many")
    with torch.no_grad():
        model[4].weight.data, model[4].bias.data = model[4].weight[[7, 0, 11, 3, 8]], model[4].bias[[7, 0, 11, 3, 8]]  # type: ignore[index]
    data = image_set(60)
    kept, _ = convert(model, data.sample(30, 0), steps=8, mean=[*map(float, MEAN)], std=[*map(float, STD)])
    asked, _ = convert(
        _loaded("many"), data.sample(30, 0), steps=8, mean=[*map(float, MEAN)], std=[*map(float, STD)],
        outputs=[7, 0, 11, 3, 8],
    )  # fmt: skip
    assert kept.digest() == asked.digest() and [x.name for x in kept.layers] == [x.name for x in asked.layers]


def _loaded(name: str) -> nn.Module:
    model = build(f"models.py:{name}")
    load_weights(model, read_weights(Path(f"{name}.pth")), Path(f"{name}.pth"))
    return model
