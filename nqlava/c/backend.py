"""A network as a C program on this machine: built once, kept in the user's cache, and its traces."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from nqlava.c.plan import plan
from nqlava.c.program import FLAGS, Program, build, compiler
from nqlava.c.source import core, filled
from nqlava.errors import FileError
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace

_FLAGS = (*FLAGS, "-march=native")
_AT_ONCE = 32
"""Images of one process between two traces."""


def run(
    network: IntegerNetwork, images: NDArray[np.uint8], steps: int, *, processes: int = 1, membranes: int = 0
) -> Generator[Trace, None, None]:
    """Traces of images (N, C, H, W); those of the first ``membranes`` images, up to a whole trace, hold v(T).

    Raises:
        CompilerError: there is no compiler (at once), or it fails.
        ProgramError: the program fails.
        FileError: the cache cannot be written, or there is no home for it.
    """
    command = compiler()
    return _run(network, images, steps, processes, membranes, command)


def _run(
    network: IntegerNetwork, images: NDArray[np.uint8], steps: int, processes: int, membranes: int, command: list[str]
) -> Generator[Trace, None, None]:
    program = cached(network, command)
    size = _AT_ONCE * processes
    for start in range(0, len(images), size):
        part, potentials = images[start : start + size], start < membranes
        yield program.traces(0, part, steps, potentials=potentials, processes=processes)


def cached(network: IntegerNetwork, command: list[str]) -> Program:
    """The program of a network, from the cache if the same compiler built it from the same source for this processor.

    Errors as of ``run``.
    """
    planned = plan(network)
    version = subprocess.run([*command, "--version"], capture_output=True, check=False).stdout
    key = hashlib.sha256(repr((command, _FLAGS)).encode() + version + _processor())
    for text in (*core(planned).values(), filled("trace.c", {})):
        key.update(text.encode())
    try:
        folder = user_cache_path("nq-lava") / "c"
    except RuntimeError as error:  # neither HOME nor an entry in the list of users
        raise FileError(f"no folder for compiled networks ({error}); set XDG_CACHE_HOME to one") from None
    program = folder / key.hexdigest()[:32]
    if not program.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as made:
                os.replace(build([planned], Path(made), _FLAGS).path, program)
        except OSError as error:
            raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return Program(program, (network,))


def _processor() -> bytes:
    """What the program is compiled for: the processor's features, where Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return b""
    return next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")
