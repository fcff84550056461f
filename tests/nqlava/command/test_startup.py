"""Ctrl-C while a command imports PyTorch is one line; programs that import the project keep their handlers."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = sorted(
    path
    for package in ("train", "export", "deploy")
    for path in (ROOT / package).rglob("*.py")
    if "def main(" in (text := path.read_text(encoding="utf-8")) and "__main__" in text
)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_imports_it_before_all_others(path: Path) -> None:
    first = next(
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    assert isinstance(first, ast.Import) and first.names[0].name == "nqlava.command.startup"


@pytest.mark.parametrize("imported", ["numpy", "torch"])
@pytest.mark.parametrize("ignored", [False, True])
def test_interrupted_in_its_imports(tmp_path: Path, imported: str, ignored: bool) -> None:
    """Those before the options are read and those after, unless Ctrl-C is ignored, as in the background of a script."""
    (tmp_path / f"{imported}.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(1)\nsys.exit(7)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "export.to_netx", "model.pt", "net.h5"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    expected = (7, "") if ignored else (130, "\nexport.to_netx: interrupted\n")
    assert (process.returncode, errors) == expected


def test_nothing_changes_in_other_programs() -> None:
    code = "import signal, nqlava.command.startup\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.slow
def test_output_that_knows_ascii_alone_gets_escapes() -> None:
    command = [sys.executable, "-m", "train.evaluate", "--help"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and "\\u03b1" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_output_is_no_error(closed: str) -> None:
    command = f"{sys.executable} -m train.cifar --dry-run --model vgg_tiny --out /tmp/none.pt {closed}"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""


def test_the_backend_of_a_notebook_is_not_asked_for(tmp_path: Path) -> None:
    """A cell that starts a command passes it on, and matplotlib cannot be imported where it is not installed."""
    command = [sys.executable, "-m", "train.figures", str(tmp_path / "gone.pt"), "--out", str(tmp_path / "out")]
    environment = os.environ | {"MPLBACKEND": "module://backend_of_a_notebook"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"train.figures: {tmp_path / 'gone.pt'}: no such file\n")
