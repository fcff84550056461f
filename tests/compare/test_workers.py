"""Parts in processes of their own give the same; whatever happens to them, the run ends and nothing is left."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.workers import in_processes
from deploy.errors import (
    ClusterError,
    CoverageError,
    LavaMissingError,
    LavaRunError,
    Loihi2UnavailableError,
    WorkerError,
)
from nqlava import netx
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork, NetworkError
from nqlava.netx import NetxError
from nqlava.testing.networks import images_for, random_layer
from tests.parts import part_of
from tests.processes import alive, children, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MANY = 200_000


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    family = children(os.getpid())
    yield
    wait_until(lambda: not any(map(alive, children(os.getpid()) - family)), "a process is left")


def make_network(size: int = 4) -> IntegerNetwork:
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (3, size, size), outputs=5)
    readout = random_layer(rng, "out", (5,), source="hidden", outputs=10, readout=True)
    return IntegerNetwork((3, size, size), (hidden, readout))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    netx.write(make_network(), tmp_path / "net.h5")
    return Settings(tmp_path / "net.h5", steps=3, batch=4, workers=2, digest=make_network().digest())


def samples(count: int) -> Part:
    return part_of(images_for(make_network(), count), np.arange(count) % 10)


def worker_pids() -> list[int]:
    """Worker processes of this one, in the order in which they were started."""
    found = (
        pid for pid in children(os.getpid()) if b"deploy.compare.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return sorted(pid for pid in found if f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text())


def test_a_killed_worker_ends_the_run(settings: Settings) -> None:
    running = in_processes(settings, samples(MANY).split(2))
    assert next(running).samples
    os.kill(worker_pids()[1], signal.SIGKILL)
    message = f"^the worker process of samples {MANY // 2}..{MANY - 1} was killed by SIGKILL$"
    with pytest.raises(LavaRunError, match=message):
        list(running)
    assert worker_pids() == []


def test_a_killed_lava_process_is_named(settings: Settings) -> None:
    running = in_processes(settings, [samples(MANY)])
    next(running)
    (worker,) = worker_pids()
    os.kill(max(children(worker)), signal.SIGKILL)
    with pytest.raises(LavaRunError, match=r"^process [\w ]+ was killed by SIGKILL$"):
        list(running)


def test_an_abandoned_run_is_stopped(settings: Settings) -> None:
    running = in_processes(settings, [samples(MANY)])
    next(running)
    family = children(worker_pids()[0])
    assert family
    running.close()
    assert worker_pids() == []
    wait_until(lambda: not any(map(alive, family)), "a Lava process is left")


def test_an_expected_error_comes_as_it_is(settings: Settings) -> None:
    settings.net.unlink()
    with pytest.raises(FileNotFoundError, match=rf"^{settings.net}: no such file$"):
        list(in_processes(settings, [samples(2)]))


def test_an_unexpected_error_comes_with_its_traceback(settings: Settings) -> None:
    part = samples(2)
    with pytest.raises(WorkerError, match=r"(?s)^Traceback.*IndexError"):
        list(in_processes(settings, [Part(0, part.images, part.labels[0])]))


@pytest.mark.parametrize(
    "kind",
    [ClusterError, CoverageError, LavaMissingError, LavaRunError, Loihi2UnavailableError, NetworkError, NetxError],
)
def test_errors_survive_pickling(kind: type[Exception]) -> None:
    text = "a line" if issubclass(kind, InputError) else "a line\nanother"
    copy = pickle.loads(pickle.dumps(kind(text)))
    assert type(copy) is kind and str(copy) == text


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A file for the images of the sample."""
    netx.write(make_network(32), tmp_path / "net.h5")
    return tmp_path / "net.h5"


def command(net: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "deploy.run_lava", str(net), "--workers", "2", *options]


def test_the_command_gives_the_same_with_two_workers(net: Path) -> None:
    results = []
    for workers in ("1", "2"):
        output = net.with_name(f"{workers}.json")
        options = ["--samples", "7", "--batch", "2", "--json", str(output), "--workers", workers]
        done = subprocess.run(command(net, *options), cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stderr == "", "no progress bar, no escape codes where there is no terminal"
        results.append(json.loads(output.read_text()))
    for result, workers in zip(results, (1, 2), strict=True):
        assert result.pop("workers") == workers
        assert result.pop("images_per_second") == pytest.approx(7 / result.pop("wall_seconds"))
        assert result.pop("seconds") > 0
        assert result.pop("reference_samples") >= workers
    assert results[0] == results[1] and results[0]["exact"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals(net: Path, number: signal.Signals) -> None:
    """What a terminal sends goes to the whole process group, SIGKILL to the command itself."""
    long = ["--T", "4096", "--samples", "1000", "--batch", "1"]
    process = subprocess.Popen(command(net, *long), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:  # two workers, each with a source, one process of layers or two, and Lava's service
        wait_until(lambda: len(children(process.pid)) >= 8 or process.poll() is not None, "workers did not start")
        family = children(process.pid)
        assert len(family) >= 8
        if number != signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.kill()
        _, errors = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    wait_until(lambda: not any(map(alive, family)), "a process is left")
    if number != signal.SIGKILL:
        said = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
        assert (process.returncode, errors) == (128 + number, f"\ndeploy.run_lava: {said}\n")
