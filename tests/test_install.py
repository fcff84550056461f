"""make finds an interpreter that can do what it is asked for, or none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def find(*wanted: str, path: str = os.environ["PATH"]) -> tuple[int, str]:
    """Exit status and output of tools/find_python.sh with the versions or commands ``wanted``."""
    command = ["sh", "tools/find_python.sh", *wanted]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_command() -> None:
    assert find(sys.executable) == (0, os.path.realpath(sys.executable) + "\n")


@pytest.mark.parametrize("wanted", [["3.99"], ["no-such-python"], ["true"], []])
def test_none(wanted: list[str]) -> None:
    assert find(*wanted) == (1, "")


@pytest.mark.parametrize("fails", ["exit 1", "echo 3.10"])
def test_the_first_that_runs(tmp_path: Path, fails: str) -> None:
    """A shim that fails, or is no Python, is passed over, and so is another version."""
    for name, content in (("python3.99", fails), ("python3", f'exec {sys.executable} "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"
    expected = (0, os.path.realpath(sys.executable) + "\n")
    assert find("3.98", VERSION, path=path) == expected
    (tmp_path / f"python{VERSION}").write_text(f"#!/bin/sh\n{fails}\n")
    (tmp_path / f"python{VERSION}").chmod(0o755)
    assert find(VERSION, path=path) == expected


def test_make_refuses_what_is_not_tested() -> None:
    done = subprocess.run(["make", "PYTHON=true", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "PYTHON is true; allowed: an interpreter of Python 3.10 to 3.13 that can make environments" in done.stderr
