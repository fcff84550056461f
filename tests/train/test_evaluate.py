"""The command reads models, scales thresholds, and gives the accuracies that train.loop.calibrate computes."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import image_set, random_tiny, tiny, write_folder
from train.choices import MODEL_SIZES
from train.data.images import load
from train.evaluate import main
from train.loop.calibrate import evaluate
from train.loop.checkpoint import ModelFile, read_model, write_model
from train.model.activation import RateReLU
from train.model.models import MODELS
from train.model.snn import neurons

RECIPE = {"validation": 15, "seed": 3, "induction_steps": 4}


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    monkeypatch.setitem(MODEL_SIZES, "tiny", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", train=image_set(60), test=image_set(20, seed=1))


@pytest.fixture
def info(data: Path) -> dict[str, Any]:
    return {"recipe": RECIPE, "data": load([str(data)], "train").digest()}


@pytest.fixture
def nq(tmp_path: Path, info: dict[str, Any]) -> Path:
    path = tmp_path / "nq.pt"
    write_model(path, ModelFile(random_tiny(3), "tiny", tuple(f"class{i}" for i in range(5)), info))
    return path


@pytest.fixture
def relu(tmp_path: Path, info: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    network = tiny(5, activation="relu", threshold=0.2)
    path = tmp_path / "relu.pt"
    classes = tuple(f"class{i}" for i in range(5))
    write_model(path, ModelFile(network, "tiny", classes, info, activation="relu"))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        assert main([*map(str, arguments), "--json", str(path)]) == 0
        assert capsys.readouterr().err == ""
        return json.loads(path.read_text())


def test_table(nq: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, expected = read_model(nq).network, load([str(data)], "test")
    result = evaluate(network, expected, 5)
    assert main([str(nq), "--data", str(data), "--T", "2", "5"]) == 0
    title, header, row = capsys.readouterr().out.splitlines()
    assert title == f"{nq}: accuracy on 20 test images" and " ".join(header.split()) == "ANN SNN T=2 SNN T=5"
    assert row.split()[::2] == [f"{value:.2f}" for value in (result.ann, result.snn[1], result.snn[4])]


def test_held_out_images_are_those_of_the_training(nq: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, nq, "--data", data, "--T", 3, "--split", "held-out")
    held_out = load([str(data)], "train").split(15, 3)[1]
    assert found["images"] == 15
    assert found["snn"] == {"3": evaluate(read_model(nq).network, held_out, 3).snn[2]}


def test_relu_networks_take_a_reset_and_a_threshold_scale(
    relu: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(network: torch.nn.Module, *arguments: object) -> object:
        seen.append([(n.reset, float(n.threshold)) for n in neurons(network) if isinstance(n, RateReLU)])
        return evaluate(network, *arguments)

    monkeypatch.setattr("train.loop.calibrate.evaluate", watch)
    for more in ([], ["--reset", "hard"], ["--threshold-scale", 1], ["--threshold-scale", 0.5]):
        run(capsys, relu, "--data", data, "--T", 4, *more)
    asis, hard, whole, half = seen
    assert {reset for reset, _ in asis} == {"soft"} and [theta for _, theta in asis] == pytest.approx([0.2] * 3)
    assert hard == [("hard", theta) for _, theta in asis]
    assert half[0][1] == pytest.approx(0.5 * whole[0][1]) and whole[0][1] != pytest.approx(0.2)


def test_poisson_input_follows_the_seed(nq: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        run(capsys, nq, "--data", data, "--T", *range(1, 9), "--input", "poisson", "--seed", seed) for seed in (0, 0, 1)
    ]
    assert results[0] == results[1] and results[0]["snn"] != results[2]["snn"]
    assert results[0]["ann"] == results[2]["ann"], "the ANN sees the image itself"


def test_other_training_images_have_no_held_out_ones(nq: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A split of the same seed would give images that the network was trained on."""
    arguments = [str(nq), "--T", "1", "--split", "held-out", "--data"]
    assert main([*arguments, str(data)]) == 0
    other = write_folder(data.parent / "other", train=image_set(60, seed=5), test=image_set(20))
    capsys.readouterr()
    assert main([*arguments, str(other)]) == 2
    assert "data: other training images than those of" in capsys.readouterr().err


def test_samples_are_drawn_by_the_seed(nq: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, nq, "--data", data, "--samples", 7)["images"] == 7


BAD = {
    "steps": ("{nq} --T 0", "--T is 0; allowed: 1..4096"),
    "no model": ("", "no model is given; allowed: MODEL, before the file to write if there is one, or --pretrained"),
    "two models": ("{nq} --pretrained resnet20", "MODEL and --pretrained are both given; allowed: one of them"),
    "missing": ("{nq}.gone", "{nq}.gone: no such file"),
    "reset": ("{nq} --reset hard", "{nq}: has NQ activations; allowed with --reset or --threshold-scale: ReLU"),
    "scale": ("{relu} --threshold-scale 0", "--threshold-scale is 0.0; allowed: positive numbers up to 1000000"),
    "samples": ("{nq} --samples 21", "samples is 21; allowed: 1..20"),
    "data": ("--pretrained resnet20", "data: 5 classes and images (3, 8, 6); allowed: those of "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(nq: Path, relu: Path, data: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    more, message = BAD[case]
    assert main([*(word.format(nq=nq, relu=relu) for word in more.split()), "--data", str(data)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"train.evaluate: {message.format(nq=nq)}") and captured.err.count("\n") == 1
