"""Leaves what a campaign must notice: ``python -m tests.campaign.leaving [process|memory|folder|traceback]``."""

import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    what = sys.argv[1]
    if what == "process":
        subprocess.Popen(["sleep", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    elif what == "memory":
        Path("/dev/shm/psm_left").touch()
    elif what == "folder":
        tempfile.mkdtemp(prefix="pymp-")
    elif what == "traceback":
        raise RuntimeError("on purpose")


if __name__ == "__main__":
    main()
