"""Strings of variable length in HDF5 files, which the library takes on trust.

The file says how long such a string is and where it lies. On a damaged one HDF5 allocates up to 4 GiB, searches without
end or crashes. They are therefore read in a process of their own first, a copy of this one with limits.
"""

import os
import resource
import signal
import warnings
from pathlib import Path

import h5py

CPU_SECONDS, SECONDS = 2, 60
"""Limits for reading the strings of a file: processor time, and time in all."""
MEMORY = 2**30
"""Bytes of memory for reading them."""
MAX_STRINGS = 100_000
"""Largest number of strings in one file."""


def is_variable(dtype: object) -> bool:
    """Whether values of this type lie elsewhere in the file, with a length of their own."""
    return h5py.check_vlen_dtype(dtype) is not None


def readable(path: Path) -> bool:
    """Whether all strings of variable length in the file can be read, within the limits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the copy runs nothing that waits for another thread
        child = os.fork()
    if child == 0:
        status = 1
        try:
            _limit()
            with h5py.File(path, "r") as file:
                _read_all(file)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _limit() -> None:
    for number in (signal.SIGALRM, signal.SIGXCPU, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + MEMORY if hard == resource.RLIM_INFINITY else min(used + MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_all(file: h5py.File) -> None:
    left = MAX_STRINGS

    def visit(_name: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal left
        for key in item.attrs:
            found = item.attrs.get_id(key)
            if is_variable(found.dtype):
                left -= max(1, found.get_space().get_simple_extent_npoints())
                _require(left >= 0)
                item.attrs[key]
        if isinstance(item, h5py.Dataset) and is_variable(item.dtype):
            left -= max(1, item.size or 0)
            _require(left >= 0)
            item[()]

    visit("/", file)
    file.visititems(visit)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("too many strings")
