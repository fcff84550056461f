"""Looking at processes and shared memory from outside."""

import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 90  # of a busy machine


def named_memory(pid: int) -> set[str]:
    """Files in /dev/shm that a process or one of its descendants maps, and that would be left if all were killed."""
    found = set()
    for one in {pid} | children(pid):
        try:
            lines = Path(f"/proc/{one}/maps").read_text().splitlines()
        except OSError:  # ended meanwhile
            continue
        found |= {line.split(maxsplit=5)[-1] for line in lines if "/dev/shm/" in line and "(deleted)" not in line}
    return found


def children(pid: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    for task in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | children(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
