"""Damaged files of every kind that comes from strangers: each is read as a valid one, or refused in one line.

The files are read in a process of their own, ``python -m stress.reading KIND SEED FIRST [END]``, which prints a line
per file: its number, and ``accepted``, ``refused`` or what is wrong. A file that crashes or hangs it costs that file
only: the next process starts behind it. Kind, seed and number decide a file, so that it can be tried again.
"""

import contextlib
import faulthandler
import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from nqlava.errors import InputError
from stress.damage import damaged, pick
from stress.files import KINDS, Kind

PATIENCE = 60.0
"""Seconds after which a process that is busy with one file, or its start, ends itself with a traceback."""
MEMORY = 3 * 2**30
"""Bytes of address space that reading a file may take; the readers promise 1 GiB of values (docs/format.md)."""
_RIGHT = ("accepted", "refused")
_LONGEST_LINE = 6000
_SHOWN = 30  # failures of a kind that differ
_MEMORY_DISK = Path("/dev/shm")


def run(seconds: float, seed: int, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Gives each kind of files its share of the time; figures and failures."""
    figures: dict[str, int] = {}
    failures: list[str] = []
    for name, kind in KINDS.items():
        part = seconds * kind.share / sum(kind.share for kind in KINDS.values())
        verdicts: Counter[str] = Counter()
        wrong: set[str] = set()  # kinds of failures
        for number, verdict in read(name, seed, part):
            verdicts[verdict if verdict in _RIGHT else "wrong"] += 1
            if verdict not in _RIGHT:
                wrong.add(re.sub(r"\d+", "0", verdict)[:100])
                failures += [f"{name} {number}: {verdict}"] * (len(wrong) < _SHOWN)
        figures |= {f"{name}: {verdict}": verdicts[verdict] for verdict in (*_RIGHT, "wrong")}
    return figures, failures


def read(name: str, seed: int, seconds: float) -> Iterator[tuple[int, str]]:
    """Number and verdict of each file, until the time is up."""
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        command = [sys.executable, "-m", "stress.reading", name, str(seed), str(number)]
        disk = tempfile.TemporaryDirectory(dir=_MEMORY_DISK if _MEMORY_DISK.is_dir() else None)
        with disk as folder, tempfile.TemporaryFile("w+") as complaints:
            environment = os.environ | {"TMPDIR": folder}  # removed here, also where the process is killed
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True)
            assert process.stdout is not None
            with process.stdout:
                try:
                    for line in process.stdout:
                        if not line.startswith(f"{number} "):
                            raise RuntimeError(f"file {number}: the process says {line!r}")
                        yield number, line.partition(" ")[2].rstrip("\n")
                        number += 1
                        if time.monotonic() > deadline:
                            return
                    complaints.seek(0)
                    last = " ".join(complaints.read()[-1000:].split())
                    yield number, f"ends the process with status {process.wait()}: {last}"
                finally:
                    process.kill()
                    process.wait()
        number += 1


def damaged_file(name: str, valid: Sequence[bytes], seed: int, number: int) -> bytes:
    """The content of a file."""
    rng = np.random.default_rng([seed, number, sum(name.encode())])
    content = pick(rng, valid)
    changes = rng.random() < 0.5
    if changes:
        content = KINDS[name].change(content, rng)
    return damaged(content, rng) if not changes or rng.random() < 0.2 else content


def judge(kind: Kind, path: Path) -> str:
    """Reads the file: accepted, refused, or what is wrong."""
    descriptors = len(os.listdir("/proc/self/fd"))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            kind.read(path)
        verdict = "accepted"
    except InputError as error:
        text = str(error)
        lines = len(text.splitlines())
        verdict = "refused"
        if lines != 1 or not text.isprintable() or len(text) > _LONGEST_LINE:
            verdict = f"refused in {lines} lines, {len(text)} characters: {text[:300]!r}"
        elif str(path.parent) not in text:
            verdict = f"refused without the file's name: {text[:300]!r}"
    except BaseException as error:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        place = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
        verdict = f"{type(error).__name__}: {str(error)[:200]!r} at {place[:600]}"
    if len(os.listdir("/proc/self/fd")) != descriptors:
        verdict = f"leaves files open, {verdict}"
    return verdict


def _main(name: str, seed: int, *numbers: int) -> None:
    kind = KINDS[name]
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        path = Path(folder) / f"file{kind.suffix}"
        with contextlib.redirect_stdout(sys.stderr):
            valid = kind.valid(Path(folder))
            for content in valid:
                path.write_bytes(content)
                kind.read(path)  # all that a first time allocates, and imports
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in range(*numbers) if len(numbers) > 1 else count(*numbers):
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            path.write_bytes(damaged_file(name, valid, seed, number))
            print(number, judge(kind, path), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], *map(int, sys.argv[2:]))
