"""Wall-clock time of the command that runs Lava: its help, and its first result."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.markdown import table as markdown_table
from benchmarks.markdown import with_spread
from benchmarks.networks import exported
from benchmarks.timing import Contestant, Effort, interleaved, spread
from nqlava import netx

_ROOT = Path(__file__).resolve().parent.parent


def _command(*arguments: str) -> None:
    """Runs ``python -m deploy.run_lava``; RuntimeError where it does not exit with 0, which stands for exact."""
    command = [sys.executable, "-m", "deploy.run_lava", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")


def measure(model: str, images: int, checkpoints: Mapping[str, Path], effort: Effort) -> dict[str, Any]:
    """Seconds for --help, and for a run of ``images`` images at T = 4 with its comparison."""
    with tempfile.TemporaryDirectory() as folder:
        net = f"{folder}/net.h5"
        netx.write(exported(model, checkpoints), net)
        contestants = {
            "--help": Contestant(lambda: _command("--help")),
            f"{model}, {images} images, T = 4": Contestant(lambda: _command(net, "--T", "4", "--samples", str(images))),
        }
        times = interleaved(contestants, effort.repeats)
    return {"seconds": {name: spread(values) for name, values in times.items()}}


def table(result: dict[str, Any]) -> str:
    """Seconds by command."""
    rows = [(f"`deploy.run_lava`: {name}", with_spread(values)) for name, values in result["seconds"].items()]
    return markdown_table(("command", "seconds"), rows)
