"""``--help`` comes within 0.4 s: a command imports what is heavy after it has read its options."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "torchvision", "numba", "lava", "dask", "distributed", "h5py", "PIL", "scipy", "matplotlib", "nir"}
PACKAGES = ("train", "export", "deploy")


def commands() -> list[str]:
    """Modules that ``python -m`` runs."""
    found = []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\ndef main(" in text and "\nif __name__ ==" in text:
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return sorted(found)


def test_finds_the_commands() -> None:
    assert {"export.to_netx", "deploy.run_lava", "deploy.fit"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_help_imports_nothing_heavy(command: str) -> None:
    words = [sys.executable, "-X", "importtime", "-m", command, "--help"]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported & HEAVY == set()
    assert f"python -m {command}" in done.stdout
