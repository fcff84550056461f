"""A Dask cluster gives the same verdict as one process, also when a worker is killed in the middle."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import run_lava
from deploy.compare import cluster
from deploy.compare.compare import run_part
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict, merge
from deploy.errors import ClusterError
from nqlava import netx
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_layer
from tests.parts import part_of
from tests.processes import alive, children, wait_until
from tools.docs import code

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# The commands on the page, the first of which is for one machine.
_, SCHEDULER, WORKERS, COMMAND = (part.words for part in code(ROOT / "docs" / "cluster.md"))


def make_network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (3, 32, 32), outputs=5)
    readout = random_layer(rng, "out", (5,), source="hidden", outputs=10, readout=True)
    return IntegerNetwork((3, 32, 32), (hidden, readout))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with two workers, started by the commands in the documentation; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = str(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("dask")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__ENABLED": "False",
    }
    running = []
    with open(folder / "log", "w") as log:
        try:
            for command in (SCHEDULER, WORKERS):
                words = [word.replace("8786", number) for word in command]
                running.append(subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log))
            yield number
            family = set().union(*(children(process.pid) for process in running))
        finally:
            for process in reversed(running):
                process.send_signal(signal.SIGINT)
            for process in reversed(running):
                process.wait(20)
    wait_until(lambda: not any(map(alive, family)), "a process of the cluster is left")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    netx.write(make_network(), tmp_path / "net.h5")
    return Settings(tmp_path / "net.h5", steps=3, batch=4, digest=make_network().digest())


def samples(count: int) -> Part:
    return part_of(images_for(make_network(), count), np.arange(count) % 10)


def on(port: str, settings: Settings) -> Settings:
    """The same on a cluster."""
    return replace(settings, scheduler=f"tcp://127.0.0.1:{port}")


def without_seconds(verdict: Verdict) -> Verdict:
    return replace(verdict, seconds=0.0)


def test_the_documented_command(port: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    module, *options = (word.replace("8786", port) for word in COMMAND[2:])
    assert COMMAND[:2] == ["python", "-m"] and module == "deploy.run_lava"
    wait_for_workers(port)
    results = []
    for arguments in (options, options[:1]):
        assert run_lava.main([*arguments, "--samples", "6", "--json", "result.json"]) == 0
        results.append(json.loads(Path("result.json").read_text()))
    for result in results:
        for key in ("scheduler", "seconds", "wall_seconds", "images_per_second"):
            result.pop(key)
    assert results[0] == results[1]


def wait_for_workers(port: str) -> dict[str, int]:
    """Process ids of the workers by their addresses."""
    from distributed import Client

    with Client(f"tcp://127.0.0.1:{port}") as client:
        client.wait_for_workers(2, timeout=30)
        return client.run(os.getpid)


def test_a_killed_worker_loses_nothing(port: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import default_client

    monkeypatch.setattr(cluster, "_FEWEST_SAMPLES", 5)
    pids = wait_for_workers(port)
    whole = samples(15)
    verdicts = cluster.on_cluster(on(port, settings), whole)
    done = [next(verdicts)]
    deadline = time.monotonic() + 20
    while not (busy := [pids[a] for a, keys in default_client().processing().items() if keys and children(pids[a])]):
        assert time.monotonic() < deadline, "no part is running"
    os.kill(busy[0], signal.SIGKILL)
    done += verdicts
    assert len(done) == 3
    verdict = merge(done)
    verdict.require_all(15)
    assert not alive(busy[0])
    assert without_seconds(verdict) == without_seconds(merge(run_part(settings, whole)))


def test_other_source_files_are_refused(port: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_workers(port)
    monkeypatch.setattr(cluster, "fingerprint", lambda: "another")
    with pytest.raises(ClusterError, match=r"^worker tcp://127\.0\.0\.1:\d+ has other source files of nq-lava"):
        list(cluster.on_cluster(on(port, settings), samples(2)))


def test_a_worker_without_the_project_is_named(port: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_workers(port)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"worker tcp://127\.0\.0\.1:\d+ cannot import nq-lava"):
        list(cluster.on_cluster(on(port, settings), samples(2)))


def test_a_worker_without_the_project_that_joins_later_is_named() -> None:
    class Cluster:
        """What is asked of a Dask client."""

        def __init__(self, **workers: object) -> None:
            self.workers, self.asked = workers, []

        def scheduler_info(self, n_workers: int) -> dict:
            return {"workers": self.workers}

        def run(self, _function: object, _name: str, workers: list[str], on_error: str) -> dict:
            self.asked += workers
            return {worker: self.workers[worker] for worker in workers if self.workers[worker] != "dead"}

    good = Cluster(old=None, new="found", dying="dead")
    assert cluster._require_project(good, "a", {"old", "gone"}) == {"old", "new", "dying"}
    assert good.asked == ["dying", "new"]
    with pytest.raises(ClusterError, match=r"^--scheduler a: worker new cannot import nq-lava; the scheduler and all"):
        cluster._require_project(Cluster(old="found", new=None), "a", {"old"})


def test_an_error_on_a_worker_comes_as_it_is(port: str, settings: Settings) -> None:
    wait_for_workers(port)
    with pytest.raises(ValueError, match=r"allowed: 0{16}, as at the start$"):
        list(cluster.on_cluster(on(port, replace(settings, digest="0" * 64)), samples(2)))


@pytest.mark.parametrize(
    ("address", "named"),
    [("nowhere", "missing port number"), ("http://a:1", "unknown address scheme"), ("127.0.0.1:1", "Timed out")],
)
def test_no_scheduler(
    address: str, named: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    assert run_lava.main([str(settings.net), "--samples", "2", "--scheduler", address]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"deploy.run_lava: --scheduler is '{address}': ") and named in error
    assert error.endswith("; allowed: the address of a Dask scheduler\n") and error.count("\n") == 1


def test_without_dask(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else find(name))
    assert run_lava.main([str(settings.net), "--scheduler", "tcp://127.0.0.1:8786"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install -e '.[dask]' -c constraints.txt" in error
