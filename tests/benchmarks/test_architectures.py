"""The table of architectures tells what exports, and where the others are refused."""

import pytest

from benchmarks.architectures import main


@pytest.mark.slow
def test_one_that_exports_and_one_that_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["squeezenet1_1", "mobilenet_v3_small"]) == 0
    *_, exported, refused = capsys.readouterr().out.splitlines()
    assert exported.startswith("| squeezenet1_1 | ") and "| exact |" in exported
    assert refused.startswith("| mobilenet_v3_small | refused in ") and ": hardswish" in refused
