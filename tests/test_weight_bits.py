"""The table of accuracies by weight bits has a row for every case, and nothing is measured twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import weight_bits
from benchmarks.weight_bits import main
from tests.tiny import image_set, random_tiny, tiny, write_folder
from train.loop.checkpoint import ModelFile, read_model, write_model
from train.loop.recipe import Recipe
from train.model.models import MODELS


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    monkeypatch.setattr("train.data.cache.user_cache_path", lambda _name: tmp_path / "cache")
    write_folder(tmp_path / "data", train=image_set(60), test=image_set(10, seed=1))
    recipe: dict[str, Any] = {"model": "tiny", "batch": 20, "threshold": 1.0}
    classes = tuple(f"class{i}" for i in range(5))
    write_model(tmp_path / "m.pt", ModelFile(random_tiny(3), "tiny", classes, {"recipe": recipe}))
    options = (
        "--bits 8 3 --first-layer-8 2 --ablation 3 --fine-tune 3 2 --epochs 1 --calibration 12 --held-out 15 --out"
    )
    return [str(tmp_path / "m.pt"), "--data", str(tmp_path / "data"), *options.split(), str(tmp_path / "out")]


BEST = "error, scale search, bias correction"


@pytest.mark.slow
def test_every_case_has_its_row(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*arguments, "--no-test"]) == 0
    folder = Path(arguments[-1])
    result = json.loads((folder / "weight_bits.json").read_text())
    assert [(r["bits"], r["first"], r["rounding"], r["epochs"]) for r in result["rows"]] == [
        (8, 8, "nearest", 0),
        (8, 8, BEST, 0),
        (3, 3, "nearest", 0),
        (3, 3, BEST, 0),
        (2, 8, BEST, 0),
        (3, 3, "nearest, bias correction", 0),
        (3, 3, "error", 0),
        (3, 3, "error, bias correction", 0),
        (3, 3, "nearest", 1),
        (2, 8, "nearest", 1),
    ]
    assert all(row["test"] is None and len(row["errors"]) == 4 for row in result["rows"])
    assert result["float"]["test"] is None and 0 <= result["float"]["held_out"] <= 100
    recipe = read_model(folder / "2-8.pt").recipe
    assert recipe.items() >= {"weight_bits": 2, "layer_bits": {"layers.1": 8}, "validation": 15}.items()
    assert Recipe(**recipe).epochs == 1

    capsys.readouterr()
    monkeypatch.setattr(weight_bits, "train", None)
    assert main(arguments) == 0, "now with the test set"
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("test None") for line in lines if line.startswith("Case(")] == [False] * 7
    assert 0 <= json.loads((folder / "weight_bits.json").read_text())["float"]["test"] <= 100
    table = (folder / "weight_bits.md").read_text().splitlines()
    assert lines[7:-1] == table and len(table) == 3 + 10
    assert table[3].startswith("| 8 | 8 | nearest | – | ") and table[-1].startswith("| 2 | 8 | nearest | 1 epoch(s) | ")

    monkeypatch.setattr(weight_bits, "measure", None)
    assert main(arguments) == 0, "nothing is left to measure"
    assert (folder / "weight_bits.md").read_text().splitlines() == table


def test_results_of_other_settings_are_not_mixed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(arguments[-1])
    folder.mkdir()
    (folder / "weight_bits.json").write_text('{"T": 4, "seed": 1, "calibration": 12, "held_out": 15, "rows": []}')
    assert main(arguments) == 2
    assert (
        "weight_bits.json holds results of other settings; name another --out, or use its settings"
        in capsys.readouterr().err
    )
