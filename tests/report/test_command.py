"""python -m deploy.report and run_lava --report: from real files through real Lava to a page."""

import html
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy import run_lava
from deploy.report.__main__ import main
from deploy.report.write import neuron
from export.to_netx import main as export_main
from nqlava import netx
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import random_layer
from tests.tiny import image_set, random_residual, tiny_residual, write_folder, write_zip
from train.loop.checkpoint import ModelFile, write_model
from train.model.models import MODELS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """(netx file, model file, folder of images) of a small residual network."""
    folder = tmp_path_factory.mktemp("report")
    data = write_folder(folder / "images", train=image_set(40), test=image_set(30, seed=1))
    model, net = folder / "model.pt", folder / "net.h5"
    write_model(model, ModelFile(random_residual(3), "tiny", image_set(1).classes, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", tiny_residual)
        assert export_main([str(model), str(net), "--T", "2", "--data", str(data), "--calibration", "40"]) == 0
        yield net, model, data


def test_page_and_numbers_are_written(
    files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, model, data = files
    out, numbers = tmp_path / "new folder" / "a page.html", tmp_path / "numbers.json"
    arguments = [str(net), "--data", str(data), "--samples", "20", "--model", str(model), "--tolerance", "100"]
    capsys.readouterr()
    assert main([*arguments, "--out", str(out), "--json", str(numbers)]) == 0
    printed, page, content = capsys.readouterr().out, out.read_text(encoding="utf-8"), json.loads(numbers.read_text())
    assert "EXACT: Lava = engine in every spike and read-out of 20 images, reference = engine = Lava on " in printed
    assert "<strong>Exact</strong>" in page and content["passed"] is True and content["run"]["tolerance"] == 100
    assert len(content["stages"]) == 4 and content["run"]["float"]["samples"] == 20
    assert content["origin"]["command"].startswith("python -m deploy.report")
    assert [file.name for file in out.parent.iterdir()] == ["a page.html"]


def test_run_lava_writes_the_page_too(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    net, _, data = files
    out = tmp_path / "page.html"
    arguments = [str(net), "--data", str(data), "--samples", "5", "--tolerance", "100", "--report", str(out)]
    assert run_lava.main(arguments) == 0
    page = out.read_text(encoding="utf-8")
    assert "<strong>Exact</strong>" in page and "at export" not in page and "float SNN, T = 2" in page


def test_without_lava_the_page_says_so(
    files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, _, data = files
    out = tmp_path / "page.html"
    first = netx.read(net).layers[0].name
    chosen = ["--image", "4", "--neurons", f"{first}:0,1,2", f"{first}:3,0,0"]
    assert main([str(net), "--data", str(data), "--samples", "5", "--integer-only", "--out", str(out), *chosen]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<strong>Not run in Lava</strong>" in page and "Image no. 4" in page
    assert page.count("Membrane potential of a neuron") == 2
    assert "not run in Lava" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--integer-only"]])
def test_dry_run_writes_nothing(
    files: tuple[Path, Path, Path], more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, _, data = files
    out = tmp_path / "page.html"
    assert main([str(net), "--data", str(data), "--samples", "5", "--out", str(out), "--dry-run", *more]) == 0
    assert "dry run: nothing was run" in capsys.readouterr().out and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "30"], "--image is 30; allowed: 0..29"),
        (["--neurons", "nowhere:1"], "--neurons is nowhere:1; allowed: LAYER:C,Y,X or LAYER:N with a layer of "),
        (["--samples", "0"], "--samples is 0; allowed: 1..10000000"),
        (["--json", "."], ". cannot be written"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    files: tuple[Path, Path, Path],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    net, _, data = files
    out = tmp_path / "page.html"
    assert main([str(net), "--data", str(data), "--samples", "30", "--out", str(out), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and message in printed.err and printed.out == ""
    assert not out.exists()


def test_an_input_is_not_overwritten(
    files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, model, data = files
    config, archive = tmp_path / "run.toml", write_zip(tmp_path / "data.zip", data)
    config.write_text("samples = 3\n")
    for path in (net, model, config, archive):
        given = [str(net), "--model", str(model), "--config", str(config), "--data", str(archive)]
        for command, option in ((main, "--out"), (main, "--json"), (run_lava.main, "--report")):
            assert command([*given, option, str(path)]) == 2
            assert "is also an input" in capsys.readouterr().err
    same = str(tmp_path / "same")
    for command, option in ((main, "--out"), (run_lava.main, "--report")):
        assert command([str(net), "--data", str(data), option, same, "--json", same]) == 2
        assert f"{same}: is named for two outputs" in capsys.readouterr().err


def test_command_line_on_the_page_has_the_options_of_the_file(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    net, _, data = files
    config, out = tmp_path / "run.toml", tmp_path / "page.html"
    config.write_text(f'samples = 3\nseed = 2\ndata = ["{data}"]\n')
    given = [str(net), "--integer-only", "--config", str(config), "--samples", "4", "--out", str(out)]
    assert main(given) == 0
    line = (
        f"python -m deploy.report {net} --samples 4 --data {data} --seed 2 --out {shlex.quote(str(out))} --integer-only"
    )
    assert line in html.unescape(out.read_text(encoding="utf-8"))


def test_without_lava_nothing_may_be_asked_of_it(
    files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--backend", "stock"], ["--workers", "2"], ["--scheduler", "tcp://1:1"]):
        assert main([str(files[0]), "--integer-only", *more]) == 2
        assert "--integer-only is given; allowed: without --backend, --workers" in capsys.readouterr().err


def test_missing_packages_are_named(
    files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    for command, option in ((main, "--out"), (run_lava.main, "--report")):
        assert command([str(files[0]), option, "page.html"]) == 2
        assert "needs matplotlib, Jinja2, not installed: pip install" in capsys.readouterr().err


def test_packages_are_tried_before_the_run(
    files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That they are there does not show that they work."""

    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    monkeypatch.setattr("deploy.compare.run.execute", broken)
    for command, option in ((main, "--out"), (run_lava.main, "--report")):
        assert command([str(files[0]), option, "page.html"]) == 2
        assert "needs matplotlib, which draws no figure here (no fonts): pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [("a:1,2,3", (0, 1 * 20 + 2 * 5 + 3)), ("a:0,0,0", (0, 0)), ("b.c:1", (1, 1))],
)
def test_neurons_are_named_by_layer_and_place(text: str, found: tuple[int, int]) -> None:
    assert neuron(small(), text) == found


@pytest.mark.parametrize("text", ["a:1", "a:2,0,0", "a:0,4,0", "a:-1,0,0", "a:", "a", "b.c:2", "b.c:1.5", "c:1", ":1"])
def test_neurons_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--neurons is .*; allowed: "):
        neuron(small(), text)


def small() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    first = random_layer(rng, "a", (1, 4, 5), outputs=2, kernel=(1, 1))
    return IntegerNetwork((1, 4, 5), (first, random_layer(rng, "b.c", (2, 4, 5), source="a", outputs=2, readout=True)))
