"""Where Python looks for modules."""

import os
import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]


def leave_current_folder() -> None:
    """Take the current folder off the search path: a train.py or export.py of the user's may lie there.

    It stays where the project itself lies there.
    """
    try:
        here = Path.cwd().resolve()
    except OSError:  # it was removed
        return
    if here != _HOME:
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != str(here)]
