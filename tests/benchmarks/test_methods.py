"""The comparison of methods groups seeds, and measures what the integer networks compute."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import methods
from benchmarks.methods import main, table
from export.fold.lower import lower
from export.round.quantize import quantize
from tests.tiny import image_set, random_tiny, tiny, write_folder
from train.data.images import load
from train.loop.checkpoint import ModelFile, write_model
from train.model.models import MODELS

CLASSES = tuple(f"class{i}" for i in range(5))
RECIPE = {"validation": 15, "seed": 0, "noise_factor": 1.0, "induction_steps": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    data = write_folder(tmp_path / "data", train=image_set(60), test=image_set(20, seed=1))
    for seed in (0, 1):
        info = {"epoch": 1, "recipe": RECIPE | {"seed": seed}}
        write_model(tmp_path / f"nq{seed}.pt", ModelFile(random_tiny(seed), "tiny", CLASSES, info))
    torch.manual_seed(0)
    relu = tiny(5, activation="relu", threshold=0.5)
    info = {"epoch": 1, "recipe": RECIPE, "data": load([str(data)], "train").digest()}
    write_model(tmp_path / "relu.pt", ModelFile(relu, "tiny", CLASSES, info, activation="relu"))
    return tmp_path


def test_command(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    models = [str(folder / name) for name in ("nq0.pt", "nq1.pt", "relu.pt")]
    options = ["--data", str(folder / "data"), "--out", str(folder / "out"), "--T", "1", "3", "--relu-T", "2"]
    options += ["--relu-samples", "10", "--choice-steps", "2"]
    assert main([*models, *options]) == 0
    rows = json.loads((folder / "out" / "methods.json").read_text(encoding="utf-8"))["rows"]
    assert [row["method"] for row in rows] == [
        "NQ",
        "NQ",
        *(f"RMP {reset}, {scale}" for reset in ("soft", "hard") for scale in ("α = 1", "α chosen")),
    ]
    network = random_tiny(1)
    assert rows[1]["digest"] == quantize(lower(network, network.input_shape))[0].digest()[:16]
    assert rows[1]["images"] == 20 and rows[1]["snn"].keys() == {"1", "3"}
    assert rows[2]["images"] == 10 and rows[2]["snn"].keys() == {"2"} and rows[2]["scale"] == 1
    best = max(rows[3]["held_out"].values())
    assert rows[3]["held_out"][str(rows[3]["scale"])] == best
    printed = capsys.readouterr().out
    assert "| NQ | – | 2 | 20 | " in printed and "| RMP hard, α = 1 | 1.0 | 1 | 10 | " in printed
    monkeypatch.setattr(methods, "measure", None)  # what the file holds is not measured again
    assert main([*models, *options]) == 0


def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(folder / "gone.pt"), "--out", str(folder)], f"{folder / 'gone.pt'}: no such file"),
        ([str(folder / "nq0.pt"), "--out", str(folder), "--T", "0"], "--T 0: must be 1 to 4096"),
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err == f"benchmarks.methods: {message}\n"


def test_seeds_make_a_row_with_mean_and_standard_deviation() -> None:
    rows = [
        {"method": "NQ", "recipe": {"seed": seed, "epochs": 3}, "snn": {"2": value}, "images": 1000}
        for seed, value in enumerate((80.0, 82.0, 84.0))
    ]
    rows.append({"method": "NQ", "recipe": {"seed": 0, "epochs": 4}, "snn": {"2": 90.0}, "images": 1000})
    lines = table(rows, [2]).splitlines()
    assert lines[2:] == ["| NQ | – | 3 | 1,000 | 82.00 ± 2.00 |", "| NQ | – | 1 | 1,000 | 90.00 |"]
