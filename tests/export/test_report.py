"""The export says how layers were rounded, how large their errors are and how far they stay from saturating."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from export.convert import convert
from export.describe import describe
from export.report import LayerReport, Report
from export.round.quantize import Precision
from export.round.rounding import Method
from export.to_netx import main
from nqlava import netx
from nqlava.network import MEMBRANE_MAX
from tests.tiny import image_set, random_tiny, tiny, write_folder
from train.loop.checkpoint import ModelFile, write_model
from train.model.models import MODELS


def layer(name: str, worst: int, low: int, high: int) -> LayerReport:
    return LayerReport(name, (4,), 8, 8, (1.0, 1.0), (9, 9), worst, low, high, 0.01)


def report(*layers: LayerReport, steps: int = 4, images: int = 500) -> Report:
    return Report(layers, steps, images, 90.0, 80.0, 81.25, "nearest")


def test_margin_by_hand() -> None:
    """A quarter of the range is two bits; −2²¹ counts as 2²¹."""
    low = layer("a", MEMBRANE_MAX + 1, -(2**21), 2**20)
    assert (low.may_saturate, low.calibrated) == (True, 2**21)
    assert (low.margin_bits, low.margin_percent) == (pytest.approx(2, abs=1e-6), pytest.approx(75, abs=1e-4))
    full = layer("b", MEMBRANE_MAX, -5, MEMBRANE_MAX)
    assert (full.may_saturate, full.margin_bits, full.margin_percent) == (False, 0, 0)
    assert layer("c", 0, 0, 0).margin_bits == pytest.approx(23, abs=1e-6)


def test_layers_that_may_saturate_come_with_their_margin() -> None:
    layers = layer("a", 12_000_000, -100, 2**20), layer("b", 5, -3, 4), layer("c", 2**24, 0, 1)
    assert describe(report(*layers)).splitlines()[4:] == [
        "24 bits may saturate for some image in: a, c",
        "  a: worst case 12,000,000, calibrated max |u| 1,048,576: 3.0 bits (87.5 %) below the limit 8,388,607",
        "  c: worst case 16,777,216, calibrated max |u| 1: 23.0 bits (100.0 %) below the limit 8,388,607",
        "500 calibration images: ANN 90.00 %, float SNN T=4 80.00 %, integer SNN T=4 81.25 %; rounding: nearest",
    ]


def test_without_such_layers_the_bound_is_a_proof() -> None:
    text = describe(report(layer("a", MEMBRANE_MAX, -3, 4), steps=6, images=10))
    header, row, proof, _ = text.splitlines()
    titles = ["layer", "output", "weights", "bits", "scale Δ", "threshold θ", "worst |u|, T=6", "calibrated u", "error"]
    assert re.split("  +", header) == titles
    assert re.split("  +", row) == ["a", "4", "8", "8", "1..1", "9..9", f"{MEMBRANE_MAX:,}", "-3..4", "1 %"]
    assert proof == "no layer can saturate at 24 bits (limit 8,388,607) within 6 steps"


@pytest.mark.slow
def test_many_steps_leave_a_margin_that_is_measured() -> None:
    """Per-step drive times 4096 steps exceeds 24 bits in the worst case, not on these images."""
    found = convert(random_tiny(3), image_set(4), steps=4096)[1]
    assert any(layer.may_saturate for layer in found.layers)
    assert all(layer.worst >= layer.calibrated for layer in found.layers)


def test_errors_shrink_with_bits_and_with_better_rounding() -> None:
    def errors(bits: int, method: Method | None = None) -> list[float]:
        found = convert(random_tiny(3), image_set(40), steps=4, precision=Precision(bits), method=method)[1]
        assert found.rounding == ("nearest" if method is None else "error, scale search, bias correction")
        return [layer.error for layer in found.layers]

    eight, three, best = errors(8), errors(3), errors(3, Method())
    assert all(e < t for e, t in zip(eight, three, strict=True)) and eight[0] < 0.01
    assert all(b < t for b, t in zip(best, three, strict=True))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    write_folder(tmp_path / "data", train=image_set(30))
    write_model(tmp_path / "m.pt", ModelFile(random_tiny(3), "tiny", tuple(f"class{i}" for i in range(5)), {}))
    data = ["--data", str(tmp_path / "data"), "--calibration", "20"]
    return [str(tmp_path / "m.pt"), str(tmp_path / "net.h5"), *data]


ALL = "error, scale search, bias correction"
CASES: dict[str, str] = {
    "": "nearest",
    "--bits 4": ALL,
    "--layer-bits layers.1=7": ALL,
    "--bits 4 --layer-bits layers.1=8": ALL,
    "--bits 4 --rounding nearest": "nearest",
    "--rounding error": ALL,
    "--bits 3 --no-scale-search": "error, bias correction",
    "--bits 3 --no-bias-correction": "error, scale search",
    "--bits 3 --rounding nearest --bias-correction": "nearest, bias correction",
    "--scale-search": "nearest, scale search",
}


@pytest.mark.parametrize("more", CASES)
def test_rounding_follows_the_bits_or_the_flags(
    arguments: list[str], capsys: pytest.CaptureFixture[str], more: str
) -> None:
    assert main([*arguments, *more.split()]) == 0
    assert f"; rounding: {CASES[more]}\n" in capsys.readouterr().out
    network = netx.read(Path(arguments[1]))
    info: dict[str, Any] = dict(network.info)
    assert (
        info["rounding"] == CASES[more] and info["calibration_images"] == 20 and len(info["calibration_sha256"]) == 64
    )
    words = more.split()
    assert info["weight_bits"] == (int(words[words.index("--bits") + 1]) if "--bits" in words else 8)
    layers = {"layers.1": int(words[-1][-1])} if "--layer-bits" in words else {}
    assert json.loads(info["layer_bits"]) == layers
    limits = [2 ** (layers.get(layer.name, info["weight_bits"]) - 1) - 1 for layer in network.layers]
    for layer, limit in zip(network.layers, limits, strict=True):
        assert max(int(abs(c.weight.astype(int)).max()) for c in layer.connections) == limit


def test_same_arguments_same_bytes(arguments: list[str]) -> None:
    contents = []
    for _ in range(2):
        assert main([*arguments, "--bits", "3", "--seed", "4"]) == 0
        contents.append(Path(arguments[1]).read_bytes())
    assert contents[0] == contents[1]
