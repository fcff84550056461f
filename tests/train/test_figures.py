"""The command draws what it can, says what it leaves out, and writes the numbers that the models give."""

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny import image_set, random_tiny, tiny, write_folder
from tests.train.test_curves import relu_network
from train.curves import compare_resets, measure
from train.data.image_set import ImageSet
from train.data.images import load
from train.drawings import STYLE, Settings, Subject, draw, write
from train.figures import main
from train.loop.calibrate import evaluate
from train.loop.checkpoint import ModelFile, write_model
from train.model.models import MODELS


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    monkeypatch.setitem(STYLE, "savefig.dpi", 60)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", test=image_set(20))


def model(path: Path, seed: int, info: dict[str, Any]) -> Path:
    network = random_tiny(seed)
    write_model(path, ModelFile(network, "tiny", tuple(f"class{i}" for i in range(5)), info))
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def images(data: Path, count: int) -> ImageSet:
    return load([str(data)], "test").sample(count, 0)


@pytest.mark.slow
def test_all_figures_of_quantized_models(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = [{"epoch": 1, "ann": 20.0, "snn": 10.0}, {"epoch": 2, "ann": 30.0, "snn": 25.0}]
    paths = []
    for name, seed, factor in (("nq", 0, 1.0), ("nq1", 1, 1.0), ("qcfs", 2, 0.0)):
        info = {"recipe": {"model": "tiny", "seed": seed, "noise_factor": factor, "induction_steps": 4}}
        paths.append(model(tmp_path / f"{name}.pt", seed, info | {"history": history}))
    out = tmp_path / "new" / "out"
    options = ["--samples", "12", "--T", "2", "--data", str(data), "--out", str(out)]
    assert main([*map(str, paths), *options]) == 0
    captured = capsys.readouterr()
    drawn = ["residuals", "activation", "noise_factor", "training", "activity"]
    lines = [f"{out / name}.png, .csv" for name in drawn]
    assert captured.err == ""
    assert captured.out.splitlines()[1:] == [*lines[:4], "rmp: skipped, no model has ReLU activations", lines[4]]
    assert sorted(file.name for file in out.iterdir()) == sorted(f"{n}.{s}" for n in drawn for s in ("csv", "png"))
    for name in drawn:
        with Image.open(out / f"{name}.png") as image:
            assert image.format == "PNG" and len(image.convert("L").getcolors(256) or []) > 10

    sample = images(data, 12)
    _, curves = measure(random_tiny(1), sample, 2)
    rows = [row for row in table(out / "residuals.csv") if (row["model"], row["activation"]) == ("nq1", "3")]
    assert [int(row["count"]) for row in rows] == list(curves[2].residuals.counts)
    assert float(rows[0]["standard deviation (unit of z)"]) == curves[2].residuals.deviation
    assert sum(float(row["share of Gaussian (%)"]) for row in rows) == pytest.approx(100)

    rows = [row for row in table(out / "activation.csv") if row["model"] == "nq1"]
    assert {row["activation"] for row in rows} == {"2"}  # the middle one of three
    found = [float(row["output (unit of z)"]) for row in rows if row["series"] == "SNN in the network"]
    assert found == list(curves[1].response.mean)

    rows = table(out / "activity.csv")
    assert [float(row["spikes per neuron and step (%)"]) for row in rows[3:6]] == [c.activity for c in curves]

    snn = [evaluate(random_tiny(seed), sample, 4).snn for seed in range(3)]
    rows = table(out / "noise_factor.csv")
    assert [(row["noise factor"], row["T (steps)"], row["models"]) for row in rows] == [
        (factor, steps, count) for steps in "124" for factor, count in (("0.0", "1"), ("1.0", "2"))
    ]
    assert float(rows[4]["mean accuracy (%)"]) == pytest.approx(snn[2][3])
    assert float(rows[5]["mean accuracy (%)"]) == pytest.approx((snn[0][3] + snn[1][3]) / 2)
    assert float(rows[5]["standard deviation (points)"]) == pytest.approx(abs(snn[0][3] - snn[1][3]) / 2**0.5)

    rows = table(out / "training.csv")
    assert [row["SNN accuracy (%)"] for row in rows] == ["10.0", "25.0"] * 3 and rows[0]["T (steps)"] == "4"


def test_relu_networks(data: Path, tmp_path: Path) -> None:
    sample = images(data, 6)
    settings = Settings(sample, "6 test images", steps=3, reset_steps=5, layer=None)
    subject = Subject("relu", ModelFile(relu_network(), "tiny", ()), settings)
    for name in ("residuals", "activation", "rmp", "activity"):
        drawing = draw(name, [subject], settings)
        assert not isinstance(drawing, str)
        write(drawing, tmp_path, name)
    found = compare_resets(relu_network(), sample, 5)
    rows = table(tmp_path / "rmp.csv")
    assert [float(row["soft reset accuracy (%)"]) for row in rows] == list(found.soft)
    assert [float(row["hard reset accuracy (%)"]) for row in rows] == list(found.hard)
    assert [row["T (steps)"] for row in rows] == list("12345")
    assert {row["ratio of these steps"] for row in rows} == {"" if found.ratio is None else str(found.ratio)}
    assert {row["stored sigma (unit of z)"] for row in table(tmp_path / "residuals.csv")} == {""}


def test_what_cannot_be_drawn_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model(tmp_path / "m.pt", 0, {})
    out = tmp_path / "out"
    options = ["--only", "noise_factor", "training", "rmp", "--samples", "5", "--data", str(data), "--out", str(out)]
    assert main([str(path), *options]) == 0
    assert [line.split(", ")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "noise_factor: skipped",
        "training: skipped",
        "rmp: skipped",
    ]
    assert not out.exists()


def test_a_failed_write_leaves_the_old_files(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = model(tmp_path / "m.pt", 0, {}), tmp_path / "out"
    out.mkdir()
    (out / "activity.csv").write_text("old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", fail)
    assert main([str(path), "--only", "activity", "--samples", "5", "--data", str(data), "--out", str(out)]) == 2
    message = f"train.figures: {out}/activity.csv: cannot be written: No space left on device"
    assert capsys.readouterr().err.splitlines()[-1] == message  # before it: that decoded images are not cached
    assert [(file.name, file.read_text()) for file in out.iterdir()] == [("activity.csv", "old")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--T", "0"], "--T is 0; allowed: 1..4096"),
        (["--reset-steps", "5000"], "--reset-steps is 5000; allowed: 1..4096"),
        (["--samples", "21"], "samples is 21; allowed: 1..20"),
        (["--layer", "4"], "layer is 4; allowed: 1..3 for {model}"),
        (["--out", "{model}"], "{model}/residuals.csv cannot be written; choose a file in a folder that you can"),
        (["--data", "sample"], "data: images are (3, 32, 32); allowed: (3, 8, 6) for {model}"),
    ],
)
def test_bad_input(
    options: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model(tmp_path / "m.pt", 0, {})
    standard = {"--data": str(data), "--out": str(tmp_path / "out"), "--samples": "5"}
    given = dict(zip(options[::2], (option.format(model=path) for option in options[1::2]), strict=True))
    assert main([str(path), *(part for pair in (standard | given).items() for part in pair)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"train.figures: {message.format(model=path)}") and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_classes_must_be_those_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "data", test=image_set(8, classes=2))
    path = model(tmp_path / "m.pt", 0, {})
    assert main([str(path), "--samples", "5", "--data", str(data), "--out", str(tmp_path)]) == 2
    expected = f"data: classes are class0, class1; allowed: class0, class1, class2, class3, class4 for {path}"
    assert capsys.readouterr().err == f"train.figures: {expected}\n"
