"""Damaged files are decided by seed and number, and whatever is wrong with reading them is found."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from campaign import __main__ as command
from campaign import fuzz
from campaign.damage import damaged
from campaign.fuzz_worker import damaged_file, judge
from campaign.kinds import KINDS, Kind
from campaign.plan import Plan

from nqlava.errors import InputError


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_accepted_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kind = KINDS[name]
    valid = kind.valid(tmp_path)
    path = tmp_path / f"file{kind.suffix}"
    for content in valid:
        path.write_bytes(content)
        assert judge(kind, path) == "accepted"
    verdicts = []
    for number in range(12):
        content = damaged_file(kind, valid, name, 7, number)
        # HDF5 may note the second of a change: two in a row are the same unless a second ends between them.
        again = (damaged_file(kind, valid, name, 7, number) for _ in range(20))
        assert name in ("model", "checkpoint") or any(one == other for one, other in pairwise(chain([content], again)))
        path.write_bytes(content)
        verdicts.append(judge(kind, path))
    assert set(verdicts) <= {"accepted", "refused"} and "refused" in verdicts


def test_damage_changes_bytes() -> None:
    rng = np.random.default_rng(0)
    content = bytes(range(200))
    assert sum(damaged(content, rng) != content for _ in range(100)) > 80


class TwoLines(InputError):
    """What it says is not one line."""

    def __str__(self) -> str:
        return "a\nb"


def reading(what: str) -> Kind:
    """A kind of files that goes wrong in some way."""

    def read(_path: Path) -> None:
        if what == "traceback":
            raise KeyError("x")
        if what == "two lines":
            raise TwoLines("")
        if what == "nameless":
            raise InputError("could not broadcast")
        if what == "plain ValueError":
            raise ValueError("could not broadcast")
        if what == "plain OSError":
            raise OSError(5, "Input/output error")
        os.open("/dev/null", os.O_RDONLY)

    return replace(KINDS["array"], read=read)


@pytest.mark.parametrize(
    ("what", "verdict"),
    [
        ("traceback", "KeyError: \"'x'\" at "),
        ("two lines", "refused in 2 lines, 3 "),
        ("nameless", "refused without the file's name: 'could not broadcast'"),
        ("plain ValueError", "ValueError: 'could not broadcast' at "),
        ("plain OSError", "OSError: '[Errno 5] Input/output error' at "),
        ("leak", "leaves files open, "),
    ],
)
def test_what_is_wrong_is_named(what: str, verdict: str, tmp_path: Path) -> None:
    assert judge(reading(what), tmp_path).startswith(verdict)


SCRIPT = """
import os, sys, time
number = int(sys.argv[3])
print(number, "refused", flush=True)
open(f"{os.environ['TMPDIR']}/left", "w").close()
if number == 0:
    os.abort()
time.sleep(9)
"""


def test_a_crash_and_a_hang_cost_one_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def popen(argv: list[str], **options: object) -> "subprocess.Popen[bytes]":
        return start([sys.executable, "-c", SCRIPT, *argv[3:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(fuzz.subprocess, "Popen", popen)
    monkeypatch.setattr(fuzz, "PATIENCE", 1.0)
    monkeypatch.setattr(fuzz, "_MEMORY_DISK", tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(fuzz, "COUNTS", {"array": 4})
    outcome = fuzz.run(Plan(share=1, seconds=100, seed=0, folder=tmp_path))
    assert outcome.figures["array: files"] == 4 and outcome.figures["array: refused"] == 2
    assert not list((tmp_path / "disk").iterdir())
    crash, hang = outcome.failures
    assert crash.startswith("array 1: ends the process with status -6") and hang == "array 3: takes more than 1 s"


@pytest.mark.slow
def test_the_command_writes_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "COUNTS", {"array": 5})
    assert command.main(["fuzz", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "summary.json").read_text())["fuzz"]
    assert found["figures"]["files in all"] == 5 and found["failures"] == []
    assert "| array: files | 5 |" in (tmp_path / "summary.md").read_text()


def test_bad_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in {
        ("fuss",): "campaign: campaign fuss; allowed: ",
        ("--share", "0"): "campaign: --share 0.0; allowed: above 0, at most 100",
        ("--minutes", "0"): "campaign: --minutes 0.0; allowed: above 0",
    }.items():
        assert command.main([*arguments, "--out", str(tmp_path / "x")]) == 2
        assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "x").exists()
