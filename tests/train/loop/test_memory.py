"""Freed memory is kept: a large tensor that follows another one finds its pages there."""

import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from train.loop.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def use():
    found = libc.malloc(2**26)
    ctypes.memset(found, 1, 2**26)
    libc.free(found)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_pages_are_kept() -> None:
    """64 MB are 16,384 pages of 4 kB; four times."""
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True, text=True).stdout)
        for how in ("kept", "returned")
    )
    assert kept < 500 and returned >= 64_000
