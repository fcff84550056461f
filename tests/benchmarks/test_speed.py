"""The speed benchmark runs from its command, and writes what it measured."""

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks import memory, peak
from benchmarks.networks import exported, uniform
from benchmarks.speed import main
from benchmarks.timing import Effort
from nqlava import netx
from nqlava.engine.cpu.machine import int8_limit


@pytest.mark.slow
def test_quick_run_writes_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--out", str(tmp_path / "speed")]) == 0
    result = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert list(result) == ["machine", "repeats", "seconds", "engine", "lava", "scaling", "peak", "layers", "startup"]
    assert result["machine"]["versions"]["torch"] and result["machine"]["threads"] >= 1
    (row,) = result["engine"]["rows"]
    assert (row["model"], row["T"], row["trained"]) == ("resnet20", 2, False)
    names = ["engine", "PyTorch"]
    if importlib.util.find_spec("spikingjelly"):
        names += ["SpikingJelly 's'", "SpikingJelly 'm'"]
    assert list(row["images_per_second"]) == names
    for name in names:
        rate, lead = row["images_per_second"][name], row["engine_is_faster_by"][name]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"] and lead["median"] > 0
    assert row["engine_is_faster_by"]["engine"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert result["lava"]["engine"][0]["images_per_second"]["Lava with start"]["median"] > 0
    varied = [(row["runs on"], row["varied"]) for row in result["scaling"]["time"]]
    assert varied == [
        ("engine", "T"),
        ("engine", "images"),
        ("engine", "width"),
        ("engine", "depth"),
        ("Lava", "batch"),
    ]
    assert all(peak > 50 for row in result["scaling"]["memory"] for peak in row["mebibytes"])
    assert result["peak"]["engine_over_float32_peak"]["median"] > 0
    if int8_limit():
        assert result["peak"]["engine_over_int8_peak"]["median"] > 0
    parts = result["layers"]["layers"]["layers.1"]["milliseconds"]
    assert list(parts) == ["synapses", "neurons", "rest"] and all(part["median"] > 0 for part in parts.values())
    assert list(result["startup"]["seconds"]) == ["--help", "vgg_small, 2 images, T = 4"]
    text = (tmp_path / "speed" / "speed.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert text.count("\n## ") == 6 and "| resnet20 | 2 | engine | " in text


@pytest.mark.slow
def test_parts_can_be_chosen(tmp_path: Path) -> None:
    assert main(["--quick", "--only", "peak", "--out", str(tmp_path)]) == 0
    assert list(json.loads((tmp_path / "speed.json").read_text())) == ["machine", "repeats", "seconds", "peak"]


def test_without_int8_the_float32_rate_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("benchmarks.peak", "nqlava.engine.cpu.synapses"):
        monkeypatch.setattr(f"{module}.int8_limit", lambda: 0)
    result = peak.measure("vgg_tiny", 1, [16], {}, Effort(1, 0.001))
    assert list(result["peak"]) == ["float32"] and result["engine_over_int8_peak"] is None
    assert result["engine_over_float32_peak"]["median"] > 0
    text = peak.table(result)
    assert "of the float32 peak" in text and text.endswith(f"\n\n{peak.NO_INT8}\n")


@pytest.mark.slow
def test_memory_of_lava(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netx.write(exported("vgg_small", {}), tmp_path / "net.h5")
    assert memory.main(["lava", str(tmp_path / "net.h5"), "--samples", "2", "--T", "1", "--batch", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["process"] > 50 and found["largest child"] > 50


@pytest.mark.slow
def test_memory_grows_with_the_network() -> None:
    small, large = (
        memory.peak_memory("engine", uniform(width, 3), samples=1, steps=1, batch=1)["process"] for width in (2, 1024)
    )
    assert large > small + 2 * 1024 * 1024 * 9 / 2**20


def test_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = Path("train/pretrained/resnet20.pt")
    network = exported("resnet20", {"resnet20": trained})
    assert network.digest() != exported("resnet20", {}).digest()
    with pytest.raises(ValueError, match=r"^--checkpoint vgg16: holds resnet20; allowed: vgg16$"):
        exported("vgg16", {"vgg16": trained})
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--checkpoint", "nothing"])
    assert (
        "'nothing'; allowed: NAME=PATH with a NAME of lean_s, lean_m, lean_l, vgg_small, vgg_tiny, vgg16"
        in capsys.readouterr().err
    )
