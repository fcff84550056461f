"""Lava is imported on newer Pythons with one class of it changed, and on Python 3.10 as it is."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NEWER = sys.version_info >= (3, 11)
SHOW = """
import lava.magma.compiler.var_model as loaded
from lava.magma.compiler.var_model import *
print(type(loaded.__loader__).__name__, loaded.ByteEncoder.__hash__ is not None)
print(CoreEncoder(), AxonEncoder(lo=ByteEncoder(1, 2, 3)) == AxonEncoder(), CoreEncoder.__hash__, loaded.__file__)
"""
SHIM = "import deploy.lava.compatibility"


newer_only = pytest.mark.skipif(not NEWER, reason="Python 3.10 imports Lava as it is")


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter, in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-W", "ignore::ImportWarning", "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@newer_only
def test_without_it_newer_pythons_refuse_lava() -> None:
    failed = run("import lava.magma.compiler.var_model")
    assert failed.returncode == 1
    assert "ValueError: mutable default <class 'lava.magma.compiler.var_model.ByteEncoder'>" in failed.stderr


def test_with_it_lava_is_as_on_python_3_10() -> None:
    done = run(SHIM + SHOW)
    assert done.returncode == 0, done.stderr
    spec = find_spec("lava.magma.compiler.var_model")
    zero = "ByteEncoder(base=0, len=0, ptr=0)"
    assert spec is not None
    assert done.stdout.splitlines() == [
        "_HashableDefault True" if NEWER else "SourceFileLoader False",
        f"CoreEncoder(x={zero}, y={zero}, p={zero}) False None {spec.origin}",
    ]


def test_it_finds_nothing_else_and_on_python_3_10_does_nothing() -> None:
    """A second execution, under another name, as by Lava's compiler, changes nothing either."""
    code = f"""
import runpy, sys
before = list(sys.meta_path)
{SHIM}
added = [finder for finder in sys.meta_path if finder not in before]
print(len(added), [finder.find_spec(name, None) for finder in added for name in ("json", "lava.magma", "no.such")])
import lava.magma.compiler.var_model
runpy.run_path("deploy/lava/compatibility.py")
print(len(sys.meta_path) - len(before))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == (["1 [None, None, None]", "1"] if NEWER else ["0 []", "0"])


@newer_only
def test_nothing_is_cached_for_an_import_without_it() -> None:
    """What it changes must not become the bytecode that another program loads."""
    assert run(SHIM + SHOW).returncode == 0
    assert "ValueError: mutable default" in run("import lava.magma.compiler.var_model").stderr


@newer_only
def test_another_lava_is_named(tmp_path: Path) -> None:
    """Where the class is not found as it is in lava-nc 0.10.0, that is said, with what to install."""
    folder = tmp_path / "lava" / "magma" / "compiler"
    folder.mkdir(parents=True)
    (folder / "var_model.py").write_text("x = 1\n")
    failed = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {SHIM}" + SHOW)
    assert f"ImportError: {folder / 'var_model.py'} is not that of lava-nc 0.10.0" in failed.stderr
