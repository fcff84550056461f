"""Damaged files are decided by seed and number, and whatever is wrong with reading them is found."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from nqlava.errors import InputError
from stress import __main__ as command
from stress import reading
from stress.damage import damaged
from stress.files import KINDS, Kind
from stress.reading import damaged_file, judge


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
        content = damaged_file(name, valid, 7, number)
        # HDF5 may note the second of a change: two in a row are the same unless a second ends between them.
        again = (damaged_file(name, valid, 7, number) for _ in range(20))
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


def misreading(what: str) -> Kind:
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
    assert judge(misreading(what), tmp_path).startswith(verdict)


SCRIPT = """
import faulthandler, os, sys, time
number = int(sys.argv[3])
faulthandler.dump_traceback_later(1, exit=True)
print(number, "refused", flush=True)
open(f"{os.environ['TMPDIR']}/left", "w").close()
if number == 0:
    os.abort()
time.sleep(9)
"""


def test_a_crash_and_a_hang_cost_one_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def popen(argv: list[str], **options: object) -> "subprocess.Popen[str]":
        return start([sys.executable, "-c", SCRIPT, *argv[3:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(reading.subprocess, "Popen", popen)
    monkeypatch.setattr(reading, "_MEMORY_DISK", tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    verdicts = reading.read("array", 0, 100)
    found = dict(islice(verdicts, 4))
    verdicts.close()  # type: ignore[attr-defined]
    assert not list((tmp_path / "disk").iterdir())
    assert list(found) == [0, 1, 2, 3] and found[0] == found[2] == "refused"
    assert found[1].startswith("ends the process with status -6") and "Timeout" in found[3]


@pytest.mark.slow
def test_the_command_writes_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KINDS", {"array": KINDS["array"]})
    assert command.main(["damage", "--minutes", "0.2", "--out", str(tmp_path)]) == 0
    assert "| array: wrong | 0 |" in (tmp_path / "damage.md").read_text()


def test_failures_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    verdicts = [(0, "refused"), (1, "KeyError"), (2, "accepted")]
    monkeypatch.setattr(reading, "KINDS", {"array": KINDS["array"]})
    monkeypatch.setattr(reading, "read", lambda *_: verdicts)
    assert reading.run(1, 0, tmp_path)[0] == {f"array: {x}": 1 for x in ("accepted", "refused", "wrong")}
    assert command.main(["damage", "--minutes", "1", "--out", str(tmp_path)]) == 1
    assert "- FAILED: array 1: KeyError" in capsys.readouterr().out


def test_bad_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in {
        ("damage", "--minutes", "0"): "stress: --minutes 0.0; allowed: above 0",
        ("damage", "--seed", "-1"): "stress: --seed -1; allowed: 0 and above",
    }.items():
        assert command.main([*arguments, "--out", str(tmp_path / "x")]) == 2
        assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "x").exists()
