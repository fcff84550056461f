"""Speed of the integer engine on this processor, and as on others: in child processes with fewer instructions.

    python -m benchmarks.processors net.h5 --data cifar10-*.zip

One process per mode (tests/nqlava/engine/cpu_modes.py) loads the network and waits. In every repeat all of them run in
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
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.markdown import table, with_spread
from benchmarks.timing import rates, ratios
from deploy.images import channels_first
from nqlava import netx
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.integer import Engine
from tests.nqlava.engine import cpu_modes
from train.data.images import load

NATIVE = "as it is"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processors", description=__doc__.splitlines()[0])
    parser.add_argument("net", type=Path)
    parser.add_argument("--data", nargs="+", default=["sample"], help="images, as of deploy.run_lava (default: sample)")
    parser.add_argument("--T", type=int, default=4, help="steps (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=256, help="images of one run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--modes", nargs="+", choices=list(cpu_modes.MODES), default=["avx512", "avx2", "no-int8"],
        help="beside this processor (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _serve(options: argparse.Namespace) -> None:
    """Writes the largest int8 input and the read-outs' digest, then for each line that it reads processor seconds."""
    torch.set_num_threads(1)
    engine = Engine(netx.read(options.net))
    images = channels_first(load(options.data, "test").images.numpy())[: options.samples]
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
        modes, images = list(processes), int(told[NATIVE][2])
        times: dict[str, list[float]] = {mode: [] for mode in modes}
        for repeat in range(options.repeats):
            shift = repeat % len(modes)
            for mode in modes[shift:] + modes[:shift]:
                times[mode].append(_seconds(processes[mode]) / images)
    settings = machine.describe()
    print(
        f"{settings['processor']}, one thread, load {settings['load_average']:.1f}; torch "
        f"{settings['versions']['torch']}; commit {settings['commit']}; {options.net.name}, T = {options.T}, "
        f"{images} images, {options.repeats} repeats, read-outs {told[NATIVE][1]}\n"
    )
    rows = [
        (mode, told[mode][0], with_spread(rates(found)), with_spread(ratios(times[NATIVE], found)))
        for mode, found in times.items()
    ]
    print(table(("mode", "largest int8 input", "images per second of processor time", "of the speed as it is"), rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
