"""What pytest found becomes the outcome of the campaign."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from campaign import lif
from campaign.plan import Plan

REPORT = """<testsuites><testsuite>
<testcase name="test_good"/><testcase name="test_bad"><failure message="x"/></testcase>
<testcase name="test_ugly"><error message="x"/></testcase><testcase name="test_not"><skipped/></testcase>
</testsuite></testsuites>"""


def test_failures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, env: dict[str, str], **_options: Any) -> None:
        assert env["EXAMPLES"] == "30" and command[3] == "tests/lava/test_lava_dl_network.py"
        Path(command[4].partition("=")[2]).write_text(REPORT)

    monkeypatch.setattr(subprocess, "run", run)
    outcome = lif.run(Plan(share=0.1, seconds=60, seed=0, folder=tmp_path))
    assert outcome.figures == {"networks of each kind": 30, "tests": 4, "skipped": 1}
    assert outcome.failures == ["test_bad", "test_ugly"]


def test_time_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, timeout: float, **_options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert lif.run(Plan(share=1, seconds=7, seed=0, folder=tmp_path)).failures == ["not done after 7 s"]


def test_old_reports_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests.xml").write_text(REPORT)
    monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: None)
    assert lif.run(Plan(share=1, seconds=7, seed=0, folder=tmp_path)).failures == ["pytest did not run"]
