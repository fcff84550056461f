"""Reads damaged files in a process of its own: python -m campaign.fuzz_worker KIND SEED FIRST END.

Each file is decided by kind, seed and number. One line per file goes to stdout: its number, and ``accepted``,
``refused`` or what is wrong.
"""

import contextlib
import io
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from campaign.damage import damaged, pick
from campaign.kinds import KINDS, Kind
from nqlava.errors import InputError

MEMORY = 3 * 2**30
"""Bytes of address space that reading a file may take; the readers promise 1 GiB of values (docs/format.md)."""
_LONGEST_LINE = 6000


def damaged_file(kind: Kind, valid: Sequence[bytes], name: str, seed: int, number: int) -> bytes:
    """The content of a file."""
    rng = np.random.default_rng([seed, number, sum(name.encode())])
    content = pick(rng, valid)
    changes = rng.random() < 0.5
    if changes:
        content = kind.change(content, rng)
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
        place = " < ".join(
            f"{frame.filename}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__))
        )
        verdict = f"{type(error).__name__}: {str(error)[:200]!r} at {place[:600]}"
    if len(os.listdir("/proc/self/fd")) != descriptors:
        verdict = f"leaves files open, {verdict}"
    return verdict


def main(name: str, seed: int, first: int, end: int) -> None:
    kind = KINDS[name]
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
        for number in range(first, end):
            path.write_bytes(damaged_file(kind, valid, name, seed, number))
            print(number, judge(kind, path), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
