"""Damaged files of every kind that comes from strangers: each is read as a valid one, or refused in one line.

A file that crashes or hangs its process costs that file only: the next process goes on behind it. A file is decided by
its kind, the seed and its number, so that the line of a failure is enough to try it again.
"""

import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from campaign.plan import Figure, Outcome, Plan

COUNTS = {
    "netx": 45_000,
    "old netx": 5_000,
    "lava-dl netx": 20_000,
    "NIR": 5_000,
    "model": 12_000,
    "checkpoint": 4_000,
    "archive": 10_000,
    "array": 10_000,
    "configuration": 5_000,
}
"""Files of each kind in a whole campaign."""
PATIENCE = 60.0
"""Seconds that one file may take, and the start of a process."""
_MEMORY_DISK = Path("/dev/shm")
_SHOWN = 30


def run(plan: Plan) -> Outcome:
    """Reads the files; each kind may take its share of the time."""
    figures: dict[str, Figure] = {}
    failures: list[str] = []
    total = sum(COUNTS.values())
    for kind, full in COUNTS.items():
        verdicts: Counter[str] = Counter()
        wrong: dict[str, list[int]] = {}
        for number, verdict in _verdicts(kind, plan.seed, plan.count(full), plan.seconds * full / total):
            verdicts[verdict if verdict in ("accepted", "refused") else "wrong"] += 1
            if verdict not in ("accepted", "refused"):
                wrong.setdefault(re.sub(r"\d+", "0", verdict)[:100], []).append(number)
                failures += [f"{kind} {number}: {verdict}"] * (len(wrong) < _SHOWN)
        figures[f"{kind}: files"] = verdicts.total()
        figures |= {f"{kind}: {verdict}": verdicts[verdict] for verdict in ("accepted", "refused", "wrong")}
    figures["files in all"] = sum(int(figures[f"{kind}: files"]) for kind in COUNTS)
    figures["planned"] = sum(plan.count(full) for full in COUNTS.values())
    figures["wrong in all"] = sum(int(figures[f"{kind}: wrong"]) for kind in COUNTS)
    return Outcome(figures, failures)


def _verdicts(kind: str, seed: int, count: int, seconds: float) -> Iterator[tuple[int, str]]:
    """Number and verdict of each file, until the count or the time is reached."""
    deadline = time.monotonic() + seconds
    number = 0
    while number < count and time.monotonic() < deadline:
        command = [sys.executable, "-m", "campaign.fuzz_worker", kind, str(seed), str(number), str(count)]
        disk = tempfile.TemporaryDirectory(dir=_MEMORY_DISK if _MEMORY_DISK.is_dir() else None)
        with disk as folder, tempfile.TemporaryFile("w+") as complaints:
            environment = os.environ | {"TMPDIR": folder}  # removed here, also where the process is killed
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=complaints, bufsize=0)
            try:
                for line in _lines(process):
                    if not line.startswith(f"{number} "):
                        raise RuntimeError(f"file {number}: the process says {line!r}")
                    yield number, line.partition(" ")[2]
                    number += 1
                    if time.monotonic() > deadline:
                        return
                if number < count:
                    complaints.seek(0)
                    last = " ".join(complaints.read()[-300:].split())
                    yield number, f"ends the process with status {process.wait()}: {last}"
            except TimeoutError:
                yield number, f"takes more than {PATIENCE:.0f} s"
            finally:
                process.kill()
                process.wait()
        number += 1


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """What the process prints, as it comes; TimeoutError where nothing comes for too long."""
    assert process.stdout is not None
    rest = b""
    with process.stdout as output:
        while select.select([output], [], [], PATIENCE)[0]:
            part = output.read(65536)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            yield from (line.decode() for line in lines)
        raise TimeoutError
