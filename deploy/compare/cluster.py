"""A comparison on a Dask cluster, part by part. The scheduler must be trusted: Dask sends pickles."""

import hashlib
import tempfile
import time
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import dask
from distributed import Client, Future, KilledWorker, as_completed, get_worker
from distributed.comm import CommClosedError, resolve_address

from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict, merge
from deploy.compare.workers import in_processes
from deploy.errors import ClusterError
from nqlava.command.files import reading
from nqlava.errors import InputError

_PARTS_PER_THREAD = 3  # so that the fast workers can take over from the slow ones
_FEWEST_SAMPLES = 250  # in a part: the start of a Lava network takes as long as some tens of images
_CONNECT_SECONDS = 10
_LOOK_SECONDS, _POLL_SECONDS = 5.0, 0.05  # between looks at workers that joined, and at parts that are done
_INSTALL = "the scheduler and all workers need the same nq-lava as this machine"
_PACKAGES = ("nqlava", "deploy")
_CONFIGURATION = {"distributed.admin.large-graph-warning-threshold": "1GiB"}  # the images go with the tasks


def on_cluster(settings: Settings, whole: Part) -> Generator[Verdict, None, None]:
    """Runs ``whole`` in parts on the workers of a Dask scheduler; yields verdicts on them as they come.

    The part of a worker that dies is run again by another one. Network and images go with the tasks, through the
    scheduler, and not as scattered data, which would be lost with the workers that hold it.

    Args:
        settings: what to run, and the address of the scheduler, such as tcp://10.0.0.1:8786.
        whole: all samples.

    Raises:
        InputError: no scheduler is there, or it has no workers.
        ClusterError: no or another nq-lava on the scheduler or a worker, too many workers died, or the scheduler did.
        what deploy.compare.workers.in_processes raises on a worker.
    """
    address = settings.scheduler
    assert address is not None
    try:
        yield from _on_cluster(address, settings, whole)
    except CommClosedError as error:  # an OSError
        raise ClusterError(f"--scheduler {address}: the connection is lost: {' '.join(str(error).split())}") from None


def _on_cluster(address: str, settings: Settings, whole: Part) -> Iterator[Verdict]:
    with reading(settings.net):
        content = settings.net.read_bytes()
    with dask.config.set(_CONFIGURATION), _connected(address) as client:
        threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
        if not threads:
            raise InputError(f"--scheduler {address} has no workers; start some with: dask worker {address}")
        known = _require_project(client, address, set())
        parts = whole.split(max(1, min(_PARTS_PER_THREAD * threads, len(whole.images) // _FEWEST_SAMPLES)))
        net = client.submit(_same, content, pure=False)
        futures = [client.submit(_evaluate, fingerprint(), net, settings, part, pure=False) for part in parts]
        for future in _completed(client, address, futures, known):
            try:
                yield future.result()
            except (KilledWorker, CancelledError) as error:
                raise ClusterError(f"--scheduler {address}: {' '.join(str(error).split())}") from None
            except RuntimeError as error:
                if "deserialization of the task graph" not in str(error):
                    raise
                raise ClusterError(f"--scheduler {address}: the scheduler cannot import nq-lava; {_INSTALL}") from None


def _completed(client: Client, address: str, futures: list[Future], known: set[str]) -> Iterator[Future]:
    """The futures as they are done; ``known`` are the workers that were looked at."""
    done, looked = as_completed(futures), time.monotonic()
    while done.count():
        if time.monotonic() - looked > _LOOK_SECONDS:
            known, looked = _require_project(client, address, known), time.monotonic()
        found = done.next_batch(block=False)
        yield from found
        if not found:
            time.sleep(_POLL_SECONDS)


def _require_project(client: Client, address: str, known: set[str]) -> set[str]:
    """The workers that are there now; ClusterError where one that is not known yet cannot import the project.

    A worker that cannot read its task drops it without a word, and Dask waits for ever.
    """
    workers = set(client.scheduler_info(n_workers=-1)["workers"])
    if joined := sorted(workers - known):
        for worker, found in client.run(find_spec, __package__, workers=joined, on_error="ignore").items():
            if found is None:
                raise ClusterError(f"--scheduler {address}: worker {worker} cannot import nq-lava; {_INSTALL}")
    return workers


def _connected(address: str) -> Client:
    try:
        resolve_address(address)
        return Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:  # Dask raises all three for an address that is none
        raise InputError(f"--scheduler is {address!r}: {error}; allowed: the address of a Dask scheduler") from None


def _same(net: bytes) -> bytes:
    """The file as the result of a task: sent once to the scheduler, found again when the worker that has it dies."""
    return net


def _evaluate(expected: str, net: bytes, settings: Settings, part: Part) -> Verdict:
    """Runs on a worker."""
    worker = get_worker()
    if fingerprint() != expected:
        raise ClusterError(f"worker {worker.address} has other source files of nq-lava; install the same there")
    with tempfile.NamedTemporaryFile(dir=worker.local_directory, suffix=".h5") as file:
        file.write(net)
        file.flush()
        return merge(in_processes(replace(settings, net=Path(file.name)), [part]))


@cache
def fingerprint() -> str:
    """SHA-256 of the source files that a comparison runs."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for file in sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
