"""Leaves what a stress run must notice: ``python -m tests.stress.leaving [process|folder|traceback]``."""

import subprocess
import sys
import tempfile


def main() -> None:
    what = sys.argv[1]
    if what == "process":
        subprocess.Popen(["sleep", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    elif what == "folder":
        tempfile.mkdtemp(prefix="pymp-")
    elif what == "traceback":
        raise RuntimeError("on purpose")


if __name__ == "__main__":
    main()
