"""Standard output that nobody reads to its end, such as that of a command before ``head``."""

import os
import signal
import sys

EXIT_NO_READER = 128 + signal.SIGPIPE


def leave_output() -> int:
    """After a BrokenPipeError: what is still to be written goes to nowhere; the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_NO_READER
