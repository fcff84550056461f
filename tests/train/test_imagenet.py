"""The command trains a network on images of any size that are decoded in worker processes."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import image_set
from train.choices import MODEL_SIZES
from train.imagenet import main
from train.loop.checkpoint import read_model
from train.model.models import MODELS, Form, Network, Normalize


def stem(classes: int = 10, **form: object) -> Network:
    """A network for 224x224 images that costs little."""
    made = Form(**form)
    layers = [
        Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3)),
        torch.nn.AvgPool2d(28),
        *made.block(3, 4),
        torch.nn.Flatten(),
        made.linear(4 * 8 * 8, classes),
    ]
    return Network(layers, input_shape=(3, 224, 224), levels=made.levels)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 40), ("val", 10)):
        images = image_set(count)
        for index in range(count):
            file = tmp_path / "data" / split / images.classes[int(images.labels[index])] / f"{index}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.images[index].numpy()).resize((40 + index, 60)).save(file)
    return tmp_path / "data"


@pytest.mark.parametrize("workers", [0, 1])
def test_end_to_end(
    data: Path, workers: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "stem", stem)
    monkeypatch.setitem(MODEL_SIZES, "stem", 0.0)
    options = "--model stem --epochs 1 --batch 16 --device cpu --precision float32 --validation 6 --workers"
    out = data.parent / "m.pt"
    assert main(["--data", str(data), *options.split(), str(workers), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and f"{out}: accuracy on 10 test images" in captured.out
    assert re.match(r"stem, 34 training and 6 held-out images from .*, 1 epochs on cpu", captured.out)
    model = read_model(out)
    network = model.network
    assert network.input_shape == (3, 224, 224) and model.recipe["weight_decay"] == 1e-4


def test_bad_input(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        (["--data", str(data), str(data)], f"--data is {data} {data}; allowed: one folder"),
        (["--data", str(data / "gone")], f"data: {data / 'gone'} "),
        (["--data", str(data), "--workers", "-1"], "workers is -1; allowed: 0..256"),
    ):
        assert main([*more, "--out", str(data.parent / "m.pt")]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"train.imagenet: {message}") and captured.err.count("\n") == 1
    with pytest.raises(SystemExit):
        main([])
    assert "the following arguments are required: --data" in capsys.readouterr().err
