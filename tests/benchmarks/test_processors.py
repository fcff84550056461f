"""The engine's speed as on other processors."""

from pathlib import Path

import pytest

from benchmarks import processors
from benchmarks.networks import uniform
from nqlava import netx


def test_rates_by_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netx.write(uniform(4, 1), tmp_path / "net.h5")
    options = ["--samples", "2", "--repeats", "2", "--T", "1", "--modes", "no-int8"]
    assert processors.main([str(tmp_path / "net.h5"), *options]) == 0
    text = capsys.readouterr().out
    assert "net.h5, T = 1, 2 images, 2 repeats, read-outs " in text
    assert "| no-int8 | 0 | " in text and "| 1 (1 … 1) |" in text
