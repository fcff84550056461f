"""Speed of the integer engine on this processor, and as on others: in child processes with fewer instructions.

    python -m benchmarks.processors net.h5 --data cifar10-*.zip

One process per mode (nqlava/testing/cpu_modes.py) loads the network and waits. In every repeat all of them run in
turn, one at a time, each time another one first; ratios are formed within a repeat. All must give the same read-outs.
One thread and processor time: other work on the machine counts less.
"""

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.markdown import table, with_spread
from benchmarks.options import Options
from benchmarks.timing import Contestant, interleaved, rates, ratios
from nqlava import netx
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.integer import Engine
from nqlava.testing import cpu_modes
from train.data.images import load

NATIVE = "as it is"


def _parser() -> Options:
    parser = Options("processors", __doc__, out=False)
    parser.add_argument("net", type=Path)
    parser.add_argument("--data", nargs="+", default=["sample"], help="images, as of deploy.run_lava (default: sample)")
    parser.number("--T", 4, "steps")
    parser.number("--samples", 256, "images of one run")
    parser.number("--repeats", 5, "of every mode")
    parser.several("--modes", ["avx512", "avx2", "no-int8"], "beside this processor", choices=list(cpu_modes.MODES))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _serve(options: argparse.Namespace) -> None:
    """Writes the largest int8 input and the read-outs' digest, then for each line that it reads processor seconds."""
    torch.set_num_threads(1)
    engine = Engine(netx.read(options.net))
    images = load(options.data, "test").pixels[: options.samples]
    digest = hashlib.sha256(engine.scores(images, options.T).tobytes()).hexdigest()[:16]
    print(int8_limit(), digest, len(images), flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        engine.scores(images, options.T)
        print(time.process_time() - began, flush=True)


def _seconds(process: subprocess.Popen) -> float:
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.child:
        _serve(options)
        return 0
    command = [sys.executable, "-m", "benchmarks.processors", *(sys.argv[1:] if argv is None else argv), "--child"]
    told, processes = {}, {}
    with ExitStack() as stack:
        for mode in (NATIVE, *options.modes):
            environment = None if mode == NATIVE else cpu_modes.environment(mode)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes[mode] = stack.enter_context(subprocess.Popen(command, env=environment, **pipes))
            told[mode] = processes[mode].stdout.readline().split()
        if len({digest for _, digest, _ in told.values()}) > 1:
            raise RuntimeError(f"the read-outs differ: {told}")
        images = int(told[NATIVE][2])
        runs = {mode: Contestant(partial(_seconds, process), images) for mode, process in processes.items()}
        times = interleaved(runs, options.repeats, warm=True, clock=lambda run: run())
    print(f"{machine.line(machine.describe(), 'torch')}; one thread used; {options.net.name}, T = {options.T}, "
          f"{images} images, {options.repeats} repeats, read-outs {told[NATIVE][1]}\n")  # fmt: skip
    rows = [
        (mode, told[mode][0], with_spread(rates(found)), with_spread(ratios(times[NATIVE], found)))
        for mode, found in times.items()
    ]
    print(table(("mode", "largest int8 input", "images per second of processor time", "of the speed as it is"), rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
