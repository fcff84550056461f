"""The float SNN on the images that Lava ran: which model file is taken, and what is compared."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import run_lava
from deploy.compare.float_accuracy import FloatAccuracy, find_model, measure
from deploy.compare.run import Run
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict
from export.to_netx import main as export_main
from nqlava import netx
from nqlava.info import Info
from tests.tiny import image_set, random_residual, tiny_residual, write_folder
from train.data.image_set import ImageSet
from train.loop.calibrate import evaluate
from train.loop.checkpoint import ModelFile, write_model
from train.model.models import MODELS

COUNT = 70


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with models/model.pt, nets/net.h5 and images."""
    folder = tmp_path_factory.mktemp("float")
    data = write_folder(folder / "images", train=image_set(20), test=image_set(COUNT, seed=1))
    (folder / "models").mkdir()
    (folder / "nets").mkdir()
    model, net = folder / "models" / "model.pt", folder / "nets" / "net.h5"
    write_model(model, ModelFile(random_residual(3), "tiny", image_set(1).classes, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", tiny_residual)
        assert export_main([str(model), str(net), "--T", "2", "--data", str(data), "--calibration", "20"]) == 0
        yield folder


def found(net: Path) -> tuple[Path | None, str]:
    search = find_model(net, Info.of(netx.read(net).info))
    return search.path and search.path.resolve(), search.missing


def test_the_model_is_found_where_it_was_and_beside_the_file(exported: Path, tmp_path: Path) -> None:
    net = exported / "nets" / "net.h5"
    assert found(net) == (exported / "models" / "model.pt", "")
    moved = shutil.copy(net, tmp_path / "moved.h5")
    path, missing = found(moved)
    assert path is None and missing.startswith("its model file, model.pt with SHA-256 ")
    shutil.copy(exported / "models" / "model.pt", tmp_path)
    assert found(moved) == (tmp_path / "model.pt", "")
    (tmp_path / "model.pt").write_bytes(b"another model")
    assert found(moved)[0] is None


@pytest.mark.slow
def test_shipped_models_are_found(tmp_path: Path) -> None:
    net = tmp_path / "net.h5"
    assert export_main(["--pretrained", "vgg_small", str(net), "--calibration", "1"]) == 0
    path, _ = found(net)
    assert path is not None and path.name == "vgg_small.pt"
    assert netx.read(net).info["source"] == "vgg_small.pt", "no path of this machine is in the file"


def test_a_file_that_names_no_model() -> None:
    search = find_model(Path("net.h5"), Info())
    assert search.path is None and search.missing == "net.h5 was not exported from a model file"


def command(exported: Path, *more: str) -> list[str]:
    data = str(exported / "images")
    return [str(exported / "nets" / "net.h5"), "--data", data, "--samples", str(COUNT), "--tolerance", "100", *more]


def test_the_command_runs_the_float_snn_on_the_images_of_lava(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = exported / "result.json"
    assert run_lava.main(command(exported, "--json", str(result))) == 0
    content, printed = json.loads(result.read_text()), capsys.readouterr().out
    floating = content["float"]
    count = floating["samples"]
    assert f"on the same {count} images: ANN " in printed and 32 <= count <= COUNT
    assert floating["points_lost"] == pytest.approx(floating["accuracy_float_snn"] - floating["accuracy_lava"])


def test_a_named_model_runs_on_all_images(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lava.main(command(exported, "--model", str(exported / "models" / "model.pt"))) == 0
    assert f"on the same {COUNT} images: ANN " in capsys.readouterr().out


def test_without_the_model_nothing_is_judged(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copy(exported / "nets" / "net.h5", tmp_path / "moved.h5")
    arguments = [str(moved), *command(exported)[1:-2], "--tolerance", "0", "--json", str(tmp_path / "result.json")]
    assert run_lava.main(arguments) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("not compared with the float SNN"))
    assert line.endswith("is not there; name it with --model")
    assert "ANN" not in printed and printed.count("accuracy") == 1, "no accuracy but those of the images in Lava"
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["float"] is None


def test_lost_accuracy_ends_the_command_with_1(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(run: Run, verdict: Verdict) -> Verdict:
        return replace(verdict, floating=FloatAccuracy(95.0, 90.0, 87.0, 2, 64, 8, run.settings.tolerance))

    monkeypatch.setattr("deploy.compare.float_accuracy.measure", measured)
    given = command(exported)[:-1]
    assert run_lava.main([*given, "2.9"]) == 1
    assert ", but 3.00 points below the float SNN; allowed: 2.90" in capsys.readouterr().out.splitlines()[-1]
    assert run_lava.main([*given, "3.1"]) == 0


VERDICT = Verdict(
    layers=("a", "out"),
    neurons=(4, 5),
    ranges=((0, bytes(index % 2 for index in range(COUNT))),),
    judged=1,
    disagreement=None,
    mismatches=(0, 0),
    first=None,
    spikes=(9,),
    saturations=(0, 0),
    correct=(0, COUNT // 2),
    engine_correct=(0, COUNT // 2),
    total=0,
    seconds=1.0,
)


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 32), (None, COUNT)])
def test_all_accuracies_are_of_the_same_images(seconds: float | None, count: int) -> None:
    model, data = random_residual(3), image_set(COUNT, seed=1)
    settings = Settings(Path("net.h5"), steps=2, model=Path("model.pt") if seconds is None else None)
    run = Run(settings, None, data, model, "model.pt")
    found = measure(run, replace(VERDICT, wall_seconds=seconds or 0.0)).floating
    assert found is not None
    first = ImageSet(data.images[:count], data.labels[:count], data.classes)
    expected = evaluate(model, first, 2)
    assert (found.count, found.steps) == (count, 2)
    assert (found.ann, found.snn) == pytest.approx((expected.ann, expected.snn[-1]))
    assert found.lava == 50.0 and found.lost == pytest.approx(expected.snn[-1] - 50)
    assert measure(replace(run, model=None), VERDICT) is VERDICT


def test_default_tolerance() -> None:
    """Of 900 images, 9 are right in one of the two alone; by chance 6 of them could be on one side."""
    assert FloatAccuracy(90, 90, 90, 4, 900, 9).tolerance == pytest.approx(0.5 + 100 * 6 / 900)


def test_chance_rarely_decides_and_a_real_loss_does() -> None:
    """6 % of the images differ, as often one way as the other: few runs of any size fail. With 10 % lost all fail."""
    rng = np.random.default_rng(0)
    for count in (20, 100, 1000):
        runs = rng.choice([-1, 0, 1], size=(2000, count), p=(0.03, 0.94, 0.03))
        kept = [FloatAccuracy(0, 80, 80 + 100 * r.mean(), 4, count, int(abs(r).sum())).kept for r in runs]
        assert np.mean(kept) > 0.96
    lost = -(rng.random((500, 1000)) < 0.1).astype(int)
    assert not any(FloatAccuracy(0, 80, 80 + 100 * r.mean(), 4, 1000, int(abs(r).sum())).kept for r in lost)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 11, 97, 100, 9999])
def test_by_default_a_single_image_never_decides(count: int) -> None:
    for right in range(1, count + 1, max(1, count // 10)):
        assert FloatAccuracy(90, 100 * right / count, 100 * (right - 1) / count, 4, count, 1).kept
    differing = round(0.6 * count)
    assert not FloatAccuracy(90, 100.0, 40.0, 4, count, differing).kept or count <= 7
