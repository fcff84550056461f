"""Memory of the C library: kept between the steps of a training instead of returned and asked for again."""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Let malloc keep freed memory for the next allocations of this process; without glibc nothing happens.

    A training step frees activations of many megabytes. glibc returns each to the kernel, which clears the pages before
    it hands them out again: that took half the time of a step on one core.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    mallopt(_M_TOP_PAD, 2**28)
