"""The command nqlava runs the project's commands by name, and never what lies in the current folder."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nqlava.command.names import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = "import sys; from nqlava.command.main import main; sys.exit(main())"  # as pip writes it


def nqlava(words: Sequence[str], folder: Path, *, script: bool = True) -> subprocess.CompletedProcess[str]:
    """As an installed script, which is beside the interpreter, or as ``python -m nqlava``."""
    if script:
        file = folder.parent / "nqlava"
        file.write_text(SCRIPT)
        start = [str(file)]
    else:
        start = ["-m", "nqlava"]
    # Its end is the current folder. coverage would read the user's files before the command does.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")} | {"PYTHONPATH": f"{ROOT}:"}
    return subprocess.run(
        [sys.executable, *start, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a user with everyday names: each file would say so, and overwrite the weights, if it were run."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("train", "export", "deploy", "numpy", "random", "json"):
        (here / f"{name}.py").write_text("open('best.pt', 'w').write('overwritten')\n")
    (here / "best.pt").write_text("weights of a week")
    return here


@pytest.mark.parametrize("script", [True, False])
def test_files_of_the_user_are_not_run(folder: Path, script: bool) -> None:
    done = nqlava(["fit", "gone.h5"], folder, script=script)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "nqlava fit: gone.h5: no such file\n")
    assert (folder / "best.pt").read_text() == "weights of a week"


def test_python_m_runs_no_file_of_the_user_either_where_python_finds_the_command(folder: Path) -> None:
    (folder / "deploy.py").unlink()
    for name in ("numpy", "random", "json"):
        (folder / f"{name}.py").unlink()
    words = [sys.executable, "-m", "deploy.fit", "gone.h5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "deploy.fit: gone.h5: no such file\n")
    assert (folder / "best.pt").read_text() == "weights of a week"


def test_every_command_is_named_and_speaks_of_itself_so(folder: Path) -> None:
    assert all(importlib.util.find_spec(module) for module, _ in COMMANDS.values())
    usage = nqlava([], folder).stdout
    assert usage.startswith("usage: nqlava COMMAND") and all(f"\n  {name} " in usage for name in COMMANDS)
    help = nqlava(["run", "--help"], folder).stdout
    assert help.startswith("usage: nqlava run ") and "\n  nqlava run net.h5 --T 4 --samples 1000" in help
    done = nqlava(["walk"], folder)
    assert done.returncode == 2 and done.stderr.startswith("nqlava: 'walk' is no command; allowed: train, imagenet, ")


@pytest.mark.parametrize("words", [[], ["--version"], ["fit", "--help"]])
def test_a_reader_who_has_left_ends_it_quietly(words: list[str]) -> None:
    """The status is that of a process that SIGPIPE ended, as before ``head``."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        start = [sys.executable, "-m", "nqlava", *words]
        done = subprocess.run(start, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_script_is_declared() -> None:
    assert '[project.scripts]\nnqlava = "nqlava.command.main:main"\n' in (ROOT / "pyproject.toml").read_text()
