"""Deployments for an hour in one process: memory, files, threads, processes and shared memory stay as they are.

Real runs of every kind follow each other: the engine alone, Lava compared with it, worker processes, the command, runs
that are given up or whose process is killed, and files that cannot be read. A run must compute the same as an earlier
one on the same images. About once a minute, between two runs, the process is measured. After a warm-up, the first
quarter of the time, these must hold:

* open files, threads, child processes, entries of /dev/shm and temporary files stay exactly as many;
* memory (anonymous and shared: pages of files come and go with what else the machine does), its own and its children's,
  and the largest that a child ever had resident: the line fitted through the measurements rises by less than GROWTH in
  all. That is judged from ten minutes on: a shorter run is all warm-up. What was freed and the allocator keeps is given
  back before each measurement: how much that is depends on how runs happened to overlap.
"""

import csv
import ctypes
import gc
import io
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from itertools import cycle
from multiprocessing import active_children
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil

from deploy import api, run_lava
from deploy.compare.backends import traces
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import merge
from deploy.compare.workers import in_processes
from deploy.errors import LavaRunError
from nqlava import netx
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_layer
from nqlava.trace import Trace
from stress.sandbox import PRIVATE

WARM_UP = 0.25
GROWTH = 20.0
"""MiB that the fitted line may rise by after the warm-up."""
LONG = 600.0
"""Seconds from which on memory is judged."""
_MEASUREMENTS = 60
_FAILURES = 20  # after which no more is learnt
_SHARED = Path("/dev/shm")
_GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"

Sample = dict[str, float]
"""A measurement: seconds since the start, MEMORY in MiB that no file stands behind, and COUNTS."""
MEMORY = ("own memory", "children's memory", "largest child's memory so far")
COUNTS = ("open files", "threads", "child processes", "entries of /dev/shm", "temporary files")


class Bench:
    """What the runs work with: files in ``folder``, random choices, and the results of the first run of each kind."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.nets = [_GOLDEN / "version1.h5", _GOLDEN / "version2.h5"]
        self.sample_net = folder / "sample.h5"
        first = random_layer(self.rng, "first", (3, 32, 32), outputs=8, kernel=(4, 4), stride=(4, 4))
        last = random_layer(self.rng, "readout", (8, 8, 8), source="first", outputs=10, readout=True)
        netx.write(IntegerNetwork((3, 32, 32), (first, last), {"T": 2}), self.sample_net)
        self._digests: dict[tuple[object, ...], str] = {}

    def part(self, net: Path, count: int) -> Part:
        """Always the same images for this file."""
        return Part(0, images_for(api.read(net), count), np.zeros(count, np.int64))

    def any_net(self) -> Path:
        return self.nets[self.rng.integers(len(self.nets))]

    def one_of(self, *numbers: int) -> int:
        """Few, so that the caches of the libraries fill during the warm-up."""
        return int(self.rng.choice(numbers))

    def same(self, digest: str, *what: object) -> None:
        """AssertionError unless a digest is that of the first run of the same."""
        first = self._digests.setdefault(what, digest)
        if digest != first:
            raise AssertionError(f"{what}: digest {digest[:16]}, at first {first[:16]}")


def engine_alone(bench: Bench) -> None:
    net, count, steps = bench.any_net(), bench.one_of(1, 7, 40), bench.one_of(1, 4, 9)
    network = api.read(net)
    trace = api.run(network, images_for(network, count), steps=steps).trace
    bench.same(f"{trace.digest(network.digest()):064x}", net.name, count, steps)


def lava(bench: Bench) -> None:
    net, count, steps = bench.any_net(), bench.one_of(1, 5, 12), bench.one_of(1, 4, 6)
    _compare(bench, net, "cpu", count, steps, batch=bench.one_of(1, 3, 8))


def lava_with_other_parts(bench: Bench) -> None:
    """Lava's own, and those that lava-dl's reader makes."""
    for backend in ("stock", "netx") if sys.version_info < (3, 11) else ("stock",):
        _compare(bench, bench.nets[0], backend, 2, 3)


def _compare(bench: Bench, net: Path, backend: str, count: int, steps: int, batch: int = 1) -> None:
    images, labels = images_for(api.read(net), count), np.zeros(count, np.int64)
    verdict = api.run_lava(net, images, labels, steps=steps, backend=backend, batch=batch)
    assert verdict.exact, verdict.first
    bench.same(verdict.digest, net.name, count, steps)


def worker_processes(bench: Bench) -> None:
    net, count, steps = bench.any_net(), bench.one_of(2, 8), bench.one_of(1, 4)
    network = api.read(net)
    settings = Settings(net, steps=steps, batch=bench.one_of(1, 3), workers=2, digest=network.digest())
    verdict = merge(in_processes(settings, bench.part(net, count).split(2)))
    verdict.require_all(count)
    assert verdict.exact, verdict.first
    bench.same(verdict.digest, net.name, count, steps)


def command(bench: Bench) -> None:
    result = bench.folder / "result.json"
    options = ["--samples", str(bench.one_of(1, 20)), "--T", str(bench.one_of(1, 4)), "--json", str(result)]
    assert _command(bench.sample_net, *options) == 0
    result.unlink()


def bad_files(bench: Bench) -> None:
    """A real file of which the end is missing, random bytes, and none."""
    whole, bad = bench.any_net().read_bytes(), bench.folder / "bad.h5"
    for content in (whole[: bench.rng.integers(len(whole))], bench.rng.bytes(bench.rng.integers(1, 5001))):
        bad.write_bytes(content)
        assert _command(bad) == 2
        with suppress(InputError):
            api.read(bad)
            raise AssertionError(f"{bad} was read")
    bad.unlink()
    assert _command(bad) == 2


def _command(net: Path, *options: str) -> int:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return run_lava.main([str(net), *options])


def written_file(bench: Bench) -> None:
    network, copy = api.read(bench.any_net()), bench.folder / "copy.h5"
    netx.write(network, copy)
    assert api.read(copy).digest() == network.digest()
    copy.unlink()


def _started(bench: Bench) -> Generator[Trace, None, None]:
    """A run of nine images in batches of one, on two processes."""
    net = bench.any_net()
    network = api.read(net)
    return traces(Settings(net, steps=3, batch=1), network, images_for(network, 9))


def run_given_up(bench: Bench) -> None:
    with closing(_started(bench)) as chunks:
        next(chunks)


def killed_process(bench: Bench) -> None:
    with closing(_started(bench)) as chunks:
        next(chunks)
        of_layers = [child for child in active_children() if "SharedMemoryManager" not in child.name]
        of_layers[bench.rng.integers(len(of_layers))].kill()
        with suppress(LavaRunError):
            for _ in chunks:
                pass
            raise AssertionError("a run went on without one of its processes")


Kind = Callable[[Bench], None]
OFTEN: tuple[Kind, ...] = (engine_alone, lava, written_file, bad_files, command, run_given_up, killed_process)
SELDOM: tuple[Kind, ...] = (worker_processes, lava_with_other_parts)
"""What takes ten seconds: one of them after each round of the others."""


def rounds() -> Iterator[Kind]:
    """Without an end."""
    for seldom in cycle(SELDOM):
        yield from OFTEN
        yield seldom


def run(seconds: float, seed: int, folder: Path) -> tuple[dict[str, object], list[str]]:
    """Runs all kinds, with a folder of their own for temporary files; figures and failures."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    with patch.dict(os.environ, TMPDIR=str(temporary)), patch.object(tempfile, "tempdir", str(temporary)):
        return soak(rounds(), Bench(folder, seed), seconds, temporary, folder / "samples.csv")


def soak(
    kinds: Iterator[Kind], bench: Bench, seconds: float, temporary: Path, table: Path
) -> tuple[dict[str, object], list[str]]:
    """Runs the kinds, one after the other, for so long; measurements go to ``table`` as they are made."""
    done: Counter[str] = Counter()
    failures: list[str] = []
    samples: list[Sample] = []
    began = time.monotonic()
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["seconds", *MEMORY, *COUNTS])
        writer.writeheader()
        while True:
            samples.append({"seconds": round(time.monotonic() - began, 1), **measure(temporary)})
            writer.writerow(samples[-1])
            stream.flush()
            if len(failures) >= _FAILURES or (time.monotonic() >= began + seconds and done):
                break
            until = began + len(samples) * seconds / _MEASUREMENTS
            for kind in kinds:
                name = kind.__name__.replace("_", " ")
                done[name] += 1
                try:
                    kind(bench)
                except Exception as error:
                    failures.append(f"{name}, number {done[name]}: {error or type(error).__name__}")
                if time.monotonic() >= until or len(failures) >= _FAILURES:
                    break
    figures: dict[str, object] = {"runs": done.total(), **{f"runs: {name}": count for name, count in done.items()}}
    for name in (*MEMORY, *COUNTS):
        course = ", ".join(f"{samples[at * (len(samples) - 1) // 4][name]:.0f}" for at in range(5))
        figures[f"{name} at the start, 25 %, 50 %, 75 %, the end"] = course
    figures |= {f"{name}, fitted rise after the warm-up": f"{rise(_warm(samples), name):+.1f} MiB" for name in MEMORY}
    return figures, failures + grown(samples)


def measure(temporary: Path) -> dict[str, float]:
    """This process; ``temporary`` is the folder of its temporary files."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    children = process.children(recursive=True)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    shared = len(list(_SHARED.iterdir())) if PRIVATE else 0  # others' entries come and go
    counts = (process.num_fds(), process.num_threads(), len(children), shared, len(list(temporary.rglob("*"))))
    memory = (_mebibytes(process), sum(map(_mebibytes, children)), largest)
    return dict(zip((*MEMORY, *COUNTS), (*memory, *counts), strict=True))


def _mebibytes(process: psutil.Process) -> float:
    """Anonymous and shared memory."""
    with suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        return sum(int(kilobytes) for kilobytes in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status)) / 2**10
    return 0.0


def _warm(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample["seconds"] >= WARM_UP * samples[-1]["seconds"]]


def grown(samples: Sequence[Sample]) -> list[str]:
    """What did not stay as it was after the warm-up, a line each."""
    warm, found = _warm(samples), []
    for name in COUNTS:
        values = [sample[name] for sample in warm]
        if min(values) != max(values):
            found.append(f"{name}: {min(values)} to {max(values)} after the warm-up; allowed: the same all the time")
    for name in MEMORY if samples[-1]["seconds"] >= LONG else ():
        if (growth := rise(warm, name)) >= GROWTH:
            found.append(f"{name}: rises by {growth:.1f} MiB after the warm-up; allowed: less than {GROWTH:g}")
    return found


def rise(samples: Sequence[Sample], name: str) -> float:
    """By how much the line rises that fits the samples best; 0 where there is no line."""
    times = np.array([sample["seconds"] for sample in samples])
    if len(set(times)) < 2:  # they may all be of the same tenth of a second
        return 0.0
    slope = np.polyfit(times, [sample[name] for sample in samples], 1)[0]
    return float(slope * (times[-1] - times[0]))
