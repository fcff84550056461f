"""Whatever happens to a run, it ends within seconds, says why, and leaves no process and no shared memory."""

import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import pytest
from lava.magma.core.process.process import ProcessServer
from lava.magma.core.process.variable import VarServer
from lava.proc.dense.models import PyDenseModelBitAcc

from deploy.compare.backends import traces
from deploy.compare.settings import Settings
from deploy.errors import LavaRunError
from deploy.lava import build, guard, models
from deploy.lava.guard import _Runtime
from deploy.lava.models import PyBatchSource, PyLayerGroup
from nqlava import netx
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_layer
from tests.processes import SECONDS, alive, children, named_memory, wait_until
from tests.with_lava_dl import needs_lava_dl


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before, start = set(multiprocessing.active_children()), time.monotonic()
    yield
    gc.collect()
    assert time.monotonic() - start < 2 * SECONDS
    assert not set(multiprocessing.active_children()) - before


@pytest.fixture
def network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (1, 4, 4), outputs=5)
    return IntegerNetwork((1, 4, 4), (hidden, random_layer(rng, "out", (5,), source="hidden", outputs=2, readout=True)))


def test_a_good_run_leaves_nothing(network: IntegerNetwork) -> None:
    assert len(list(build.run(network, images_for(network, 4), 3, batch=2))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "stock", pytest.param("netx", marks=needs_lava_dl)])
def test_lava_forgets_a_run(network: IntegerNetwork, tmp_path: Path, backend: str) -> None:
    """Left alone, it keeps a list of all processes that ever were, and a handler of the root logger for each."""
    netx.write(network, tmp_path / "net.h5")
    handlers = list(logging.getLogger().handlers)
    settings = Settings(tmp_path / "net.h5", backend=backend, steps=1)
    list(traces(settings, network, images_for(network, 1)))
    assert ProcessServer().processes == [] and VarServer().vars == []
    assert logging.getLogger().handlers == handlers


@pytest.mark.slow
def test_the_memory_of_a_run_is_freed(network: IntegerNetwork) -> None:
    before = sum(
        type(thing) is _Runtime for thing in gc.get_objects()
    )  # classes keep that of one network of stock parts
    for _ in range(2):
        list(build.run(network, images_for(network, 1), 1))
    gc.collect()
    assert sum(type(thing) is _Runtime for thing in gc.get_objects()) <= before


def test_no_memory_of_a_run_has_a_name(network: IntegerNetwork) -> None:
    """So nothing is left in /dev/shm, even if all is killed at once."""
    traces = build.run(network, images_for(network, 50), 3, batch=2, processes=2)
    next(traces)
    assert children(os.getpid()) and not named_memory(os.getpid())
    traces.close()


@pytest.mark.parametrize("name", ["hidden", "out"])
@pytest.mark.parametrize("late", [False, True])
def test_exception_in_a_model(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch, name: str, late: bool) -> None:
    """Before its message is sent, and after."""
    original = PyLayerGroup.run_spk

    def fail(self: PyLayerGroup) -> None:
        if self.time_step == 3 and name in self.members:
            if late:
                original(self)
            raise ZeroDivisionError("on purpose")
        original(self)

    monkeypatch.setattr(PyLayerGroup, "run_spk", fail)
    with pytest.raises(LavaRunError, match=rf"(?s)process {name} failed\nTraceback.*in fail.*on purpose"):
        list(build.run(network, images_for(network, 8), 3, batch=2, processes=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("stock", models.PyProbe),
        pytest.param("netx", models.PyIFNeuron, marks=needs_lava_dl),
        pytest.param("netx", PyDenseModelBitAcc, marks=needs_lava_dl),
    ],
)
def test_exception_in_another_model(
    network: IntegerNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, model: type
) -> None:
    def fail(_self: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(model, "run_spk", fail)
    netx.write(network, tmp_path / "net.h5")
    settings = Settings(tmp_path / "net.h5", backend=backend, steps=1)
    with pytest.raises(LavaRunError, match=r"(?s) failed\nTraceback.*in fail.*on purpose"):
        list(traces(settings, network, images_for(network, 1)))


def test_exception_at_start(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object, _parameters: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(PyLayerGroup, "__init__", fail)
    with pytest.raises(LavaRunError, match=r"(?s)failed to start\nTraceback.*on purpose"):
        list(build.run(network, images_for(network, 8), 3, batch=2, processes=2))


@pytest.mark.parametrize("where", ["__init__", "run_spk"])
def test_killed_process(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    original = getattr(PyLayerGroup, where)

    def die(self: PyLayerGroup, *arguments: dict) -> None:
        if "hidden" in (self.members if not arguments else [layer.name for layer in arguments[0]["layers"]]):
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, *arguments)

    monkeypatch.setattr(PyLayerGroup, where, die)
    with pytest.raises(LavaRunError, match="process hidden was killed by SIGKILL"):
        list(build.run(network, images_for(network, 8), 3, batch=2, processes=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (PyBatchSource, "source", "source does not finish the step; hidden waits for a message from source"),
        (PyLayerGroup, "hidden", "hidden does not finish the step; out waits for a message from hidden"),
        (PyLayerGroup, "out", "out does not finish the step"),
    ],
)
def test_a_stalled_process_is_named_with_who_waits_for_it(
    network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch, model: type, name: str, message: str
) -> None:
    original = model.run_spk

    def stall(self: PyBatchSource | PyLayerGroup) -> None:
        if self.time_step == 3 and self.proc_params["name"] == name:
            time.sleep(3600)
        original(self)

    monkeypatch.setattr(model, "run_spk", stall)
    monkeypatch.setattr(guard, "STALL_SECONDS", 2.0)
    with pytest.raises(LavaRunError, match=rf"^no progress for 2 s after time step \d: {message}$"):
        list(build.run(network, images_for(network, 8), 3, batch=2, processes=2))


@pytest.mark.slow
def test_a_process_that_never_starts_is_named(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    original = PyLayerGroup.__init__

    def stall(self: PyLayerGroup, parameters: dict) -> None:
        if parameters["layers"][0].name == "hidden":
            time.sleep(3600)
        original(self, parameters)

    monkeypatch.setattr(PyLayerGroup, "__init__", stall)
    monkeypatch.setattr(guard, "STALL_SECONDS", 2.0)
    with pytest.raises(LavaRunError, match=r"^process hidden did not start within 2 s$"):
        list(build.run(network, images_for(network, 8), 3, batch=2, processes=2))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("running", [True, False])
def test_signals(number: signal.Signals, running: bool) -> None:
    """Ctrl-C goes to the whole process group, SIGTERM and SIGKILL to the parent; also while processes start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lava.guard_script"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        if running:
            assert process.stdout.readline().strip()
        else:
            wait_until(lambda: len(children(process.pid)) >= 3 or process.poll() is not None, "nothing was started")
        family = children(process.pid)
        assert len(family) >= 3
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    wait_until(lambda: not any(map(alive, family)), "a process is left")


def test_a_signal_that_waited_wins_over_what_it_broke() -> None:
    """Sent to all processes, it also kills those that are being started; the command ends with its status."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), guard._interrupt_deferred():
        signal.raise_signal(signal.SIGINT)
        raise LavaRunError("process hidden was killed by SIGTERM")
    assert signal.getsignal(signal.SIGINT) is before
