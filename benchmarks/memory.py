"""Peak memory of one run in a process of its own: ``python -m benchmarks.memory engine net.h5``; prints JSON."""

import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lava_speed import run_lava
from benchmarks.networks import sample_images
from benchmarks.options import Options
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork

_ROOT = Path(__file__).resolve().parent.parent
_KIBIBYTES = 2**10  # in a mebibyte


def peak_memory(kind: str, network: IntegerNetwork, *, samples: int, steps: int, batch: int) -> dict[str, float]:
    """MiB that a run in a new process had resident at most: that "process", and with "lava" its "largest child" too.

    Args:
        kind: "scores" or "engine" (which keeps every spike) for the integer engine, or "lava".
        network: what to run.
        samples: images.
        steps: T.
        batch: images in one message of Lava.
    """
    with tempfile.TemporaryDirectory() as folder:
        net = f"{folder}/net.h5"
        netx.write(network, net)
        sizes = [f"--{name}={value}" for name, value in (("samples", samples), ("T", steps), ("batch", batch))]
        command = [sys.executable, "-m", "benchmarks.memory", kind, net, *sizes]
        done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _own_peak() -> float:
    """Of this process; resource's number would include the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / _KIBIBYTES


def main(argv: Sequence[str] | None = None) -> int:
    parser = Options("memory", __doc__, out=False)
    parser.add_argument("kind", choices=["scores", "engine", "lava"], help="what runs; 'scores' keeps no spikes")
    parser.add_argument("net", type=Path, help="netx file")
    parser.number("--samples", 64, "images")
    parser.number("--T", 4, "time steps", dest="steps")
    parser.number("--batch", 16, "in one message of Lava")
    options = parser.parse_args(argv)
    network, images = netx.read(options.net), sample_images(options.samples)
    if options.kind == "lava":
        run_lava(network, images, options.steps, options.batch)
    elif options.kind == "engine":
        Engine(network).run(images, options.steps)
    else:
        Engine(network).scores(images, options.steps)
    peak = {"process": _own_peak()}
    if options.kind == "lava":
        peak["largest child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _KIBIBYTES
    print(json.dumps(peak))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
