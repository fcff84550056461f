"""An hour of deploy runs in one process: memory, files, threads, processes and shared memory stay as they are.

Real runs of every kind follow each other: the engine alone, Lava compared with it, worker processes, the command, runs
that are given up or whose process is killed, and files that cannot be read. About once a minute, between two runs, the
process is measured. After a warm-up, the first quarter of the time, these must be as they were:

* exactly: open files, threads, child processes, entries of /dev/shm and temporary files;
* memory (anonymous and shared: pages of files come and go with what else the machine does), its own and its children's,
  and the largest that a child ever had resident: the line fitted through the measurements may rise by less than GROWTH
  in all. That is judged in runs of ten minutes and more: a shorter one is all warm-up. What was freed and the allocator
  keeps is given back before each measurement: how much that is depends on how runs happened to overlap.

A run must also compute the same as the run before it on the same images.
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
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import astuple, dataclass, fields
from itertools import cycle
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import psutil
from campaign.plan import Figure, Outcome, Plan
from numpy.typing import NDArray

from deploy import api, run_lava
from deploy.compare.job import Job, Part
from deploy.compare.tally import merge
from deploy.compare.verify import backend_traces, verdict_of
from deploy.compare.workers import in_processes
from deploy.errors import LavaRunError
from nqlava import netx
from nqlava.errors import InputError
from nqlava.network import Connection, IntegerNetwork, Layer
from nqlava.trace import Trace

SECONDS = 3600.0
WARM_UP = 0.25
GROWTH = 20.0
"""MiB that the fitted line may rise by after the warm-up."""
LONG = 600.0
"""Seconds from which on memory is judged."""
_MEASUREMENTS = 60
_FAILURES = 20  # after which no more is learnt
_SHARED = Path("/dev/shm")
_SHIPPED = ("tests/golden/version1.h5", "tests/golden/version2.h5")


@dataclass(frozen=True)
class Sample:
    """The process between two runs.

    Attributes:
        seconds: since the start.
        memory, children_memory: MiB of this process, and of its children, that no file stands behind.
        largest_child: MiB that any child ever had resident at most.
        files, threads, children, shared, temporary: open file descriptors, threads, processes below this one, entries
            of /dev/shm, temporary files.
    """

    seconds: float
    memory: float
    children_memory: float
    largest_child: float
    files: int
    threads: int
    children: int
    shared: int
    temporary: int


MEMORY = {
    "memory": "own memory, MiB",
    "children_memory": "children's memory, MiB",
    "largest_child": "largest child's memory so far, MiB",
}
COUNTS = {
    "files": "open files",
    "threads": "threads",
    "children": "child processes",
    "shared": "entries of /dev/shm",
    "temporary": "temporary files",
}


class Bench:
    """What the runs work with: files, and what they computed first.

    Args:
        folder: for files.
        seed: of networks, images and the choices of a run.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        root = Path(__file__).resolve().parent.parent
        self.nets = [root / name for name in _SHIPPED]
        self.sample_net = folder / "sample.h5"
        netx.write(_for_the_sample(seed), self.sample_net)
        self._digests: dict[tuple[object, ...], str] = {}

    def images(self, net: Path, count: int) -> NDArray[np.uint8]:
        """The first so many of the images of this file: always the same."""
        shape = api.read(net).input_shape
        return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)

    def part(self, net: Path, count: int) -> Part:
        """The same images as a part of a run."""
        return Part(0, self.images(net, count).transpose(0, 2, 3, 1), np.zeros(count, np.int64))

    def any_net(self) -> Path:
        return self.nets[self.rng.integers(len(self.nets))]

    def number(self, low: int, high: int) -> int:
        """Of low … high."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, *numbers: int) -> int:
        """Few, so that the caches of the libraries fill during the warm-up."""
        return int(self.rng.choice(numbers))

    def same(self, digest: str, *what: object) -> None:
        """AssertionError unless a digest is that of the first run of the same."""
        first = self._digests.setdefault(what, digest)
        if digest != first:
            raise AssertionError(f"{what}: digest {digest[:16]}, at first {first[:16]}")


def _for_the_sample(seed: int) -> IntegerNetwork:
    """A strided convolution and a read-out for the images that the project ships."""
    rng = np.random.default_rng(seed)
    neurons = np.zeros(8, np.int32)
    first = rng.integers(-127, 128, (8, 3, 4, 4)).astype(np.int8)
    last = rng.integers(-127, 128, (10, 8 * 8 * 8)).astype(np.int8)
    return IntegerNetwork(
        (3, 32, 32),
        (
            Layer("first", (Connection("input", first, stride=(4, 4)),), neurons, neurons + 9000, neurons + 4500),
            Layer("readout", (Connection("first", last),), neurons.repeat(2)[:10], None, neurons.repeat(2)[:10]),
        ),
        {"T": 2},
    )


def engine_alone(bench: Bench) -> None:
    net, count, steps = bench.any_net(), bench.one_of(1, 7, 40), bench.one_of(1, 4, 9)
    network = api.read(net)
    trace = api.run(network, bench.images(net, count), steps=steps).trace
    bench.same(f"{trace.digest(network.digest()):064x}", net.name, count, steps)


def lava(bench: Bench) -> None:
    net, count, steps = bench.any_net(), bench.one_of(1, 5, 12), bench.one_of(1, 4, 6)
    _compare(bench, net, "cpu", count, steps, batch=bench.one_of(1, 3, 8))


def stock_lava(bench: Bench) -> None:
    _compare(bench, bench.nets[0], "stock", 2, 3)


def lava_dl(bench: Bench) -> None:
    _compare(bench, bench.nets[0], "netx", 2, 3)


def _compare(bench: Bench, net: Path, backend: str, count: int, steps: int, batch: int = 1) -> None:
    labels = np.zeros(count, np.int64)
    verdict = api.run_lava(net, bench.images(net, count), labels, steps=steps, backend=backend, batch=batch)
    assert verdict.exact, verdict.first
    bench.same(verdict.digest, net.name, count, steps)


def worker_processes(bench: Bench) -> None:
    net, count, steps = bench.any_net(), bench.one_of(2, 8), bench.one_of(1, 4)
    network = api.read(net)
    whole = bench.part(net, count)
    job = Job(net, network.digest(), "cpu", steps, bench.one_of(1, 3), cores=1)
    verdict = verdict_of(network, merge(in_processes(job, whole.split(2))), count)
    assert verdict.exact, verdict.first
    bench.same(verdict.digest, net.name, count, steps)


def command(bench: Bench) -> None:
    result = bench.folder / "result.json"
    options = ["--samples", str(bench.one_of(1, 20)), "--T", str(bench.one_of(1, 4)), "--json", str(result)]
    assert _command(bench.sample_net, *options) == 0
    result.unlink()


def bad_files(bench: Bench) -> None:
    """Every second one is a real file of which the end is missing."""
    whole = bench.any_net().read_bytes()
    bad = bench.folder / "bad.h5"
    for content in (whole[: bench.number(0, len(whole) - 1)], bench.rng.bytes(bench.number(1, 5000))):
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
    net = bench.any_net()
    network = api.read(net)
    copy = bench.folder / "copy.h5"
    netx.write(network, copy)
    assert api.read(copy).digest() == network.digest()
    copy.unlink()


def started(bench: Bench) -> Generator[Trace, None, None]:
    """A run of nine images in batches of one, on two processes."""
    net = bench.any_net()
    network = api.read(net)
    return backend_traces(Job(net, network.digest(), "cpu", 3, 1, 2), network, bench.part(net, 9))


def run_given_up(bench: Bench) -> None:
    with closing(started(bench)) as chunks:
        next(chunks)


def killed_process(bench: Bench) -> None:
    with closing(started(bench)) as chunks:
        next(chunks)
        of_layers = [child for child in active_children() if "SharedMemoryManager" not in child.name]
        of_layers[bench.number(0, len(of_layers) - 1)].kill()
        try:
            for _ in chunks:
                pass
        except LavaRunError:
            return
    raise AssertionError("a run went on without one of its processes")


Kind = Callable[[Bench], None]
OFTEN: tuple[Kind, ...] = (engine_alone, lava, written_file, bad_files, command, run_given_up, killed_process)
SELDOM: tuple[Kind, ...] = (worker_processes, stock_lava, lava_dl)
"""What takes ten seconds: one of them after each round of the others."""


def rounds() -> Iterator[Kind]:
    """Without an end."""
    for seldom in cycle(SELDOM):
        yield from OFTEN
        yield seldom


def run(plan: Plan) -> Outcome:
    """The campaign: an hour at share 1."""
    seconds = min(plan.share * SECONDS, plan.seconds)
    with _temporary_files_in(plan.folder / "temporary") as temporary:
        return soak(rounds(), Bench(plan.folder, plan.seed), seconds, temporary, plan.folder / "samples.csv")


def soak(kinds: Iterator[Kind], bench: Bench, seconds: float, temporary: Path, table: Path) -> Outcome:
    """Runs the kinds, one after the other, for so long; measurements go to ``table`` as they are made."""
    done: Counter[str] = Counter()
    failures: list[str] = []
    meter = Meter(temporary)
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(Sample)])
        samples = [meter.measure()]  # with the table open
        writer.writerow(astuple(samples[0]))
        over = False
        while not over:
            until = len(samples) * seconds / _MEASUREMENTS
            while True:
                kind = next(kinds)
                done[kind.__name__] += 1
                try:
                    kind(bench)
                except Exception as error:
                    failures.append(f"{kind.__name__}, number {done[kind.__name__]}: {error or type(error).__name__}")
                over = meter.seconds >= seconds or len(failures) >= _FAILURES
                if over or meter.seconds >= until:
                    break
            samples.append(meter.measure())
            writer.writerow(astuple(samples[-1]))
            stream.flush()
    figures: dict[str, Figure] = {"seconds": round(samples[-1].seconds), "runs": done.total()}
    figures |= {f"runs: {name.replace('_', ' ')}": count for name, count in done.items()}
    return Outcome(figures | _table(samples), failures + grown(samples))


class Meter:
    """Measures this process.

    Args:
        temporary: folder of the temporary files.
    """

    def __init__(self, temporary: Path) -> None:
        self._process = psutil.Process()
        self._temporary = temporary
        self._began = time.monotonic()
        self._there = _shared_names()
        self._unmapped: set[str] = set()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def measure(self) -> Sample:
        gc.collect()
        if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
        children = self._process.children(recursive=True)
        return Sample(
            seconds=round(self.seconds, 1),
            memory=_mebibytes(self._process),
            children_memory=sum(map(_mebibytes, children)),
            largest_child=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10,
            files=self._process.num_fds(),
            threads=self._process.num_threads(),
            children=len(children),
            shared=len(self._own_shared({self._process.pid, *(child.pid for child in children)})),
            temporary=sum(1 for _ in self._temporary.rglob("*")),
        )

    def _own_shared(self, own: set[int]) -> set[str]:
        """New entries that this process or a child maps, or that nobody maps, now and when it was measured before.

        Those that other programs map, or clean up, do not count.
        """
        new = _shared_names() - self._there
        mapped: dict[str, set[int]] = {name: set() for name in new}
        for process in psutil.process_iter() if new else ():
            with suppress(psutil.Error):
                for region in process.memory_maps():
                    if region.path.startswith(f"{_SHARED}/") and (name := Path(region.path).name) in mapped:
                        mapped[name].add(process.pid)
        before, self._unmapped = self._unmapped, {name for name, by in mapped.items() if not by} & _shared_names()
        return {name for name, by in mapped.items() if by & own} | (before & self._unmapped)


def _shared_names() -> set[str]:
    return {entry.name for entry in _SHARED.glob("psm_*")}


def _mebibytes(process: psutil.Process) -> float:
    """Anonymous and shared memory."""
    with suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        return sum(int(kilobytes) for kilobytes in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status)) / 2**10
    return 0.0


def grown(samples: Sequence[Sample]) -> list[str]:
    """What did not stay as it was after the warm-up, a line each."""
    end = samples[-1].seconds
    judged = [sample for sample in samples if sample.seconds >= WARM_UP * end]
    found = []
    for name, words in COUNTS.items():
        counts = [getattr(sample, name) for sample in judged]
        if min(counts) != max(counts):
            found.append(f"{words}: {min(counts)} to {max(counts)} after the warm-up; allowed: the same all the time")
    if end >= LONG:
        for name, words in MEMORY.items():
            if (growth := rise(judged, name)) >= GROWTH:
                found.append(f"{words}: rises by {growth:.1f} after the warm-up; allowed: less than {GROWTH:g}")
    return found


def rise(samples: Sequence[Sample], name: str) -> float:
    """By how much the line rises that fits the samples best; 0 where there is no line."""
    if len({sample.seconds for sample in samples}) < 2:  # they may all be of the same tenth of a second
        return 0.0
    times = np.array([sample.seconds for sample in samples])
    slope = np.polyfit(times, [getattr(sample, name) for sample in samples], 1)[0]
    return float(slope * (times[-1] - times[0]))


def _table(samples: Sequence[Sample]) -> dict[str, Figure]:
    """Every quantity at the start, at three quarters in between, and at the end; and the fitted rises."""
    end = samples[-1].seconds
    chosen = [min(samples, key=lambda s, at=at: abs(s.seconds - at * end)) for at in (0, 0.25, 0.5, 0.75, 1)]
    judged = [sample for sample in samples if sample.seconds >= WARM_UP * end]
    rows: dict[str, Figure] = {"measured": "start, 25 %, 50 %, 75 %, end"}
    for name, words in MEMORY.items():
        values = ", ".join(f"{getattr(sample, name):.0f}" for sample in chosen)
        rows[words] = f"{values}; fitted rise after the warm-up {rise(judged, name):+.1f}"
    for name, words in COUNTS.items():
        rows[words] = ", ".join(str(getattr(sample, name)) for sample in chosen)
    return rows


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[Path]:
    """This process and its children put their temporary files there."""
    folder.mkdir(parents=True, exist_ok=True)
    before, of_children = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR")
        if of_children is not None:
            os.environ["TMPDIR"] = of_children
