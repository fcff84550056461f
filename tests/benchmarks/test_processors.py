"""The engine's speed as on other processors, and the modes that pretend them."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import processors
from benchmarks.networks import uniform
from nqlava import netx
from nqlava.testing import cpu_modes


def test_rates_by_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netx.write(uniform(4, 1), tmp_path / "net.h5")
    options = ["--samples", "2", "--repeats", "2", "--T", "1", "--modes", "no-int8"]
    assert processors.main([str(tmp_path / "net.h5"), *options]) == 0
    text = capsys.readouterr().out
    assert "net.h5, T = 1, 2 images, 2 repeats, read-outs " in text
    assert "| no-int8 | 0 | " in text and "| 1 (1 … 1) |" in text


def test_a_command_runs_in_a_mode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    program = "import os; print(os.environ.get('ONEDNN_MAX_CPU_ISA'), os.environ['NQ_LAVA_INT8'])"
    command = [sys.executable, "-m", "nqlava.testing.cpu_modes", "no-int8", sys.executable, "-c", program]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert printed == "mode no-int8: NQ_LAVA_INT8=0\nNone 0\n"


def test_modes_that_cannot_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cpu_modes.main(["avx3", "true"]) == 2
    assert "MODE: avx512-vnni, avx512, avx2-vnni, avx2, sse41, no-int8" in capsys.readouterr().err
    monkeypatch.setattr(cpu_modes, "get_host_cpu_features", lambda: {"avx2": True, "fma": True})
    assert cpu_modes.main(["avx2", "true"]) == 2
    assert capsys.readouterr().err == "mode avx2: this processor has no bmi2\n"
