"""Parts of a comparison in processes of their own: each a fresh interpreter with its own Lava network.

The interpreters are started as programs, and not with multiprocessing, which a Dask worker must not use. They are tied
to the thread that starts them: if it ends, the kernel kills them.
"""

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO

from deploy.compare.compare import run_part
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict
from deploy.errors import LavaMissingError, LavaRunError, Loihi2UnavailableError, WorkerError
from nqlava.c.errors import ProgramError
from nqlava.command.orphans import die_with_parent
from nqlava.errors import InputError

_ROOT = Path(__file__).resolve().parents[2]
_EXPECTED = (InputError, LavaMissingError, LavaRunError, Loihi2UnavailableError, ProgramError)


def in_processes(settings: Settings, parts: Sequence[Part]) -> Generator[Verdict, None, None]:
    """Runs all parts at the same time, a process each; yields verdicts on their chunks as they come.

    Whatever happens, no process is left when this generator is closed.

    Raises:
        what deploy.compare.compare.run_part raises in a process; WorkerError for any other exception there;
        LavaRunError, which names the samples, where a process dies.
    """
    workers: list[_Worker] = []
    try:
        for part in parts:
            workers.append(_Worker(part))
        for worker in workers:
            worker.send(settings)
        running = {worker.connection: worker for worker in workers}
        while running:
            for connection in wait(list(running)):
                verdict = running[connection].receive()  # type: ignore[index]
                if verdict is None:
                    del running[connection]  # type: ignore[arg-type]
                else:
                    yield verdict
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.close()


class _Worker:
    """A process that runs one part."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed in close()
        self.connection, other = Pipe()
        command = [sys.executable, "-m", "deploy.compare.workers", str(os.getpid()), str(other.fileno())]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        # The new process inherits the blocked signals: Ctrl-C is for this process, which then ends the others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[other.fileno()],
                env=os.environ | {"PYTHONPATH": path},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            other.close()

    def send(self, settings: Settings) -> None:
        try:
            self.connection.send((settings, self._part))
        except BrokenPipeError:
            raise self._death() from None

    def receive(self) -> Verdict | None:
        """A verdict, or None after the last one."""
        try:
            message: Verdict | Exception | None = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if isinstance(message, Exception):
            raise message
        return message

    def _death(self) -> LavaRunError:
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._errors.seek(0)
        printed = f"\n{self._errors.read().decode(errors='replace').rstrip()}" if code > 0 else ""
        return LavaRunError(f"the worker process of {self._part} {how}{printed}")

    def close(self) -> None:
        """Waits for the killed process."""
        self.process.wait()
        self.connection.close()
        self._errors.close()


def _serve(parent: int, descriptor: int) -> None:
    """What a worker process does: receives settings and a part, sends verdicts, and then None or an expected error."""
    die_with_parent(parent)
    with Connection(descriptor) as connection:
        settings, part = connection.recv()
        try:
            for verdict in run_part(settings, part):
                connection.send(verdict)
            connection.send(None)
        except _EXPECTED as error:
            connection.send(error)
        except Exception:
            connection.send(WorkerError(traceback.format_exc()))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
