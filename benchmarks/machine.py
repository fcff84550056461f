"""What a measurement ran on."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "numpy", "numba", "scipy", "spikingjelly", "lava-nc", "lava-dl", "neurobench")


def describe() -> dict[str, Any]:
    """Processor, cores, threads, versions (None where a package is missing), commit and load."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def line(found: Mapping[str, Any], *packages: str) -> str:
    """What ``describe`` found, in words, with the versions of these packages, or of all that are there."""
    versions = {name: found["versions"][name] for name in packages or found["versions"]}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"{found['processor']}, {found['cores']} core(s), {found['threads']} thread(s), load "
        f"{found['load_average']:.1f} at the start; Python {found['python']}, {shown}; commit {found['commit']}"
    )


def _processor() -> str:
    """Name and family-model-stepping, which tells processors with a vague name apart."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    numbers = "-".join(fields.get(key, "?") for key in ("cpu family", "model", "stepping"))
    return f"{fields.get('model name', platform.machine())} ({numbers})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the source, with "-dirty" where it was changed; None outside a git repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
