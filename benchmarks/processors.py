"""Speed of the integer engine on this processor, and as on others: in child processes with fewer instructions.

    python -m benchmarks.processors net.h5 --data cifar10-*.zip

One process per mode of tests/cpu_modes.py loads the network and waits. In every repeat all of them run in turn, one at a
time, each time another one first; ratios are formed within a repeat. All must give the same read-outs.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks import machine
from benchmarks.markdown import table, with_spread
from benchmarks.timing import Contestant, interleaved, rates, ratios, seconds
from deploy.cpu.machine import describe, int8_limit
from deploy.images import channels_first
from deploy.integer import IntegerEngine
from export import netx
from tests import cpu_modes
from train.data import load

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
    """Writes a line with the largest int8 input and the read-outs' digest, then one for each line that it reads."""
    engine = IntegerEngine(netx.read(options.net))
    images = channels_first(load(options.data, "test"))[: options.samples]
    digest = hashlib.sha256(engine.scores(images, options.T).tobytes()).hexdigest()[:16]
    print(f"{int8_limit()} {digest} {describe()}", flush=True)
    for _ in sys.stdin:
        print(seconds(lambda: engine.scores(images, options.T)), flush=True)


def _ask(stdin: IO[str], stdout: IO[str]) -> None:
    stdin.write("\n")
    stdin.flush()
    if not stdout.readline():
        raise RuntimeError("a process ended before its time")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.child:
        _serve(options)
        return 0
    told, contestants = {}, {}
    with ExitStack() as stack:
        for mode in (NATIVE, *options.modes):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.processors", *(sys.argv[1:] if argv is None else argv), "--child"],
                env=None if mode == NATIVE else cpu_modes.environment(mode),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            assert process.stdin is not None and process.stdout is not None
            told[mode] = process.stdout.readline().split(maxsplit=2)
            contestants[mode] = Contestant(partial(_ask, process.stdin, process.stdout), options.samples)
        if len({digest for _, digest, _ in told.values()}) > 1:
            raise RuntimeError(f"the read-outs differ: {told}")
        times = interleaved(contestants, options.repeats)
    settings = machine.describe()
    print(
        f"{settings['processor']}, {settings['threads']} thread(s), load {settings['load_average']:.1f}; torch "
        f"{settings['versions']['torch']}; commit {settings['commit']}; {options.net.name}, T = {options.T}, "
        f"{options.samples} images, {options.repeats} repeats, read-outs {told[NATIVE][1]}\n"
    )
    rows = [
        (mode, told[mode][0], with_spread(rates(found)), with_spread(ratios(times[NATIVE], found)))
        for mode, found in times.items()
    ]
    print(table(("mode", "largest int8 input", "images/s", "of the speed as it is"), rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
