"""Commands run in a mode that pretends another processor, or say why not."""

import subprocess
import sys

import pytest

from nqlava.testing import cpu_modes


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

    def unknown() -> dict[str, bool]:
        raise RuntimeError("failed to get host cpu features.")

    monkeypatch.setattr(cpu_modes, "get_host_cpu_features", unknown)
    assert cpu_modes.missing("sse41") == ["sse4.2"] and cpu_modes.missing("no-int8") == []
