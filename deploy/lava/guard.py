"""Running a Lava network so that it always ends.

Left alone, Lava 0.10.0 waits for ever when a process model fails, is killed or is interrupted, and leaves orphans when
its parent dies. Here every child asks the kernel to be killed together with its parent, and the parent polls instead of
waiting, so that it notices every failure and can clean up.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from types import TracebackType

import deploy.lava.compatibility  # noqa: F401 — before Lava

from lava.magma.compiler.builders.py_builder import PyProcessBuilder
from lava.magma.compiler.compiler import Compiler
from lava.magma.compiler.executable import Executable
from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.process.process import AbstractProcess, LogConfig, ProcessServer
from lava.magma.core.process.variable import VarServer
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import RunConfig
from lava.magma.runtime.message_infrastructure.multiprocessing import MultiProcessing
from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal
from lava.magma.runtime.runtime import Runtime

from deploy.errors import LavaRunError
from deploy.lava.waiting import AnonymousMemory, Waiting
from nqlava.command.interruption import SIGNALS
from nqlava.command.orphans import die_with_parent

_LAVA_LINE = LogConfig(file="").format
_POLL_SECONDS = 0.02
STALL_SECONDS = 600.0
"""Without a time step, after which a run is given up."""
_TRACEBACK_SECONDS = 5.0  # how long to wait for the traceback behind a reported error


class GuardedRun:
    """A context in which the network around ``process`` is compiled, forked, run and always cleaned up.

    Leaving it kills the children: all results lie in shared memory by then. Enter it in a thread that outlives the
    run, since the kernel ties the children to the thread that forked them.

    Args:
        process: any process of the network.
        run_cfg: chooses the process models.
        progress: returns a number that changes while the network advances.
    """

    def __init__(self, process: AbstractProcess, run_cfg: RunConfig, *, progress: Callable[[], int]) -> None:
        self._process, self._run_cfg, self._progress = process, run_cfg, progress
        self._runtime: _Runtime | None = None

    def __enter__(self) -> "GuardedRun":
        try:
            with _interrupt_deferred():
                executable = self._process.compile(self._run_cfg)
                self._runtime = _Runtime(executable)
                executable.assign_runtime_to_all_processes(self._runtime)
                with _children_die_with_parent():
                    self._runtime.initialize()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._close()

    def run(self, steps: int) -> None:
        """Advances by ``steps`` time steps; LavaRunError where that fails."""
        runtime = self._runtime
        if runtime is None:
            raise RuntimeError("the run is not entered; use it in a with statement")
        runtime.start(RunSteps(steps, blocking=False))
        last, since = self._progress(), time.monotonic()
        while not all(port.probe() for port in runtime.service_to_runtime):
            runtime.check_children()
            now = self._progress()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                raise LavaRunError(
                    f"no progress for {STALL_SECONDS:g} s after time step {last}: {runtime.waiting.describe()}"
                )
            time.sleep(_POLL_SECONDS)
        if all(enum_equal(port.peek(), MGMT_RESPONSE.DONE) for port in runtime.service_to_runtime):
            runtime.wait()
            return
        deadline = time.monotonic() + _TRACEBACK_SECONDS
        while time.monotonic() < deadline:
            runtime.check_children()
            time.sleep(_POLL_SECONDS)
        raise LavaRunError("a process reported an error without a traceback")

    def _close(self) -> None:
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            with _interrupt_deferred():
                runtime.kill()
        _forget()


class _Runtime(Runtime):
    """Lava's runtime, except that it watches its children, also while they start, and can be killed.

    Attributes:
        waiting: which process waits for which.
    """

    def __init__(self, executable: Executable) -> None:
        super().__init__(executable, ActorType.MultiProcessing)
        builders = executable.proc_builders.items()
        self._ending_since: float | None = None
        self.waiting = Waiting(executable)
        self._names = [process.name for process, builder in builders if isinstance(builder, PyProcessBuilder)]

    def _build_watchdog_manager(self) -> None:
        self._watchdog_manager = self.waiting

    def _build_message_infrastructure(self) -> None:
        self._messaging_infrastructure = MultiProcessing()
        self._messaging_infrastructure._smm = AnonymousMemory()

    def _start_ports(self) -> None:
        super()._start_ports()
        deadline = time.monotonic() + STALL_SECONDS
        services = ["runtime service"] * (len(self.exception_q) - len(self._names))
        for queue, name in zip(self.exception_q, self._names + services, strict=True):
            while True:
                try:
                    error = queue.get(timeout=_POLL_SECONDS)
                    break
                except Empty:
                    self.check_children()
                    if time.monotonic() > deadline:
                        raise LavaRunError(f"process {name} did not start within {STALL_SECONDS:g} s") from None
            if error is not None:
                raise LavaRunError(f"a process failed to start\n{getattr(error, 'trace', error)}")
        self.exception_q: list = []  # Lava would wait for the same answers without a timeout

    def check_children(self) -> None:
        """LavaRunError if a child has failed or ended."""
        actors = self._messaging_infrastructure.actors
        names = self._names + ["runtime service"] * (len(actors) - len(self._names))
        codes = {name: actor.exitcode for name, actor in zip(names, actors, strict=True)}
        for name, actor in zip(names, actors, strict=True):
            if actor.exception:
                raise LavaRunError(f"process {name} failed\n{actor.exception[1]}")
        for name, code in codes.items():
            if code:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                raise LavaRunError(f"process {name} {how}")
        # One failure makes Lava end the other children, perhaps before the failed one has sent its traceback.
        if 0 not in codes.values():
            return
        if self._ending_since is None:
            self._ending_since = time.monotonic()
        elif time.monotonic() - self._ending_since > _TRACEBACK_SECONDS:
            ended = ", ".join(name for name, code in codes.items() if code == 0)
            raise LavaRunError(f"processes ended without an error: {ended}")

    def kill(self) -> None:
        """Ends all children."""
        self._is_started = self._is_running = False  # Lava's destructor would try to stop the run
        infrastructure = self._messaging_infrastructure
        if infrastructure is None:
            return
        for actor in infrastructure.actors:
            actor.kill()
        for actor in infrastructure.actors:
            actor.join()
        for port in (*self._open_ports, *self.runtime_to_service, *self.service_to_runtime):
            port.join()


def _forget() -> None:
    """Takes back what Lava keeps of every run for ever: lists of all processes and variables, and with them the memory
    that they share, which nothing reads; and a handler of the root logger per process, so that a line is printed as
    often."""
    ProcessServer().processes.clear()
    VarServer().vars.clear()
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and getattr(handler.formatter, "_fmt", None) == _LAVA_LINE:
            root.removeHandler(handler)
    logging.getLogger(Compiler.__module__).handlers.clear()


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Signals that end a command take effect at the end, so that no child is forked, or left, half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    handled = [number for number, handler in previous.items() if callable(handler)]
    for number in handled:
        signal.signal(number, lambda number, _frame: pending.append(number))
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number])
        if pending:  # also where a child that got the signal too has failed because of it
            signal.raise_signal(pending[0])


_guarded_parent: int | None = None
_hook_registered = False


@contextmanager
def _children_die_with_parent() -> Iterator[None]:
    """Processes forked inside are killed by the kernel when this one dies, and leave to it what a terminal sends."""
    global _guarded_parent, _hook_registered
    if not _hook_registered:  # a hook cannot be taken back, so it is set once and switched
        os.register_at_fork(after_in_child=_prepare_child)
        _hook_registered = True
    _guarded_parent = os.getpid()
    try:
        yield
    finally:
        _guarded_parent = None


def _prepare_child() -> None:
    global _guarded_parent
    if _guarded_parent is None:
        return
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    die_with_parent(_guarded_parent)
    _guarded_parent = None
