"""Commands whose end is watched from outside: what they leave in memory, in folders and among the processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from nqlava.command.interruption import SIGNALS

ROOT = Path(__file__).resolve().parent.parent
END_SECONDS = 5.0  # from a signal until nothing may run any more, on a machine that does nothing else
_GIVE_UP_SECONDS = 120.0
_MARK = "NQ_LAVA_STRESS"
_PRIVATE = "NQ_LAVA_PRIVATE_MEMORY"
PRIVATE = _PRIVATE in os.environ
_SHARED = Path("/dev/shm")


def enter(command: Sequence[str]) -> None:
    """Replaces this process by ``python -m command`` with a /dev/shm of its own, where the system allows it.

    Then entries of other programs do not count; PRIVATE tells it that this was done.
    """
    if PRIVATE:
        return
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", "--mount", *user, "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") and not subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
        os.environ[_PRIVATE] = "1"
        os.execvp("unshare", [*unshare, sys.executable, "-m", *command])


class Sandbox:
    """A folder for commands, which are ended with it. ``memory``, where given, is compared as /dev/shm."""

    def __init__(self, folder: Path, memory: Path | None = _SHARED if PRIVATE else None) -> None:
        self.folder, self.memory = folder.resolve(), memory
        self.temporary, self.outputs = self.folder / "tmp", self.folder / "out"
        self._last: Watched | None = None

    def __enter__(self) -> "Sandbox":
        shutil.rmtree(self.folder, ignore_errors=True)
        self.temporary.mkdir(parents=True)
        self.outputs.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._last.kill()
            self._last.process.wait()

    def start(self, command: Sequence[str]) -> "Watched":
        """Starts ``python -m command`` in the project's folder, as a terminal does: a process group of its own."""
        before, mark = self.left(), uuid.uuid4().hex
        with (self.folder / "stderr").open("wb") as stderr, (self.folder / "stdout").open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                env=os.environ | {"TMPDIR": str(self.temporary), _MARK: mark}, start_new_session=True,
                preexec_fn=_heed_signals,
            )  # fmt: skip
        self._last = Watched(self, process, mark, before)
        return self._last

    def left(self) -> set[str]:
        """Names in /dev/shm and in the folder for temporary files."""
        folders = {"$TMPDIR": self.temporary} | ({} if self.memory is None else {"/dev/shm": self.memory})
        return {f"{name}/{path.name}" for name, folder in folders.items() for path in folder.iterdir()}


@dataclass
class Watched:
    """A command that runs."""

    sandbox: Sandbox
    process: "subprocess.Popen[bytes]"
    _mark: str
    _before: set[str]
    _began: float = field(default_factory=time.monotonic)

    @property
    def family(self) -> list[int]:
        """It and the processes that stem from it, whoever is their parent now."""
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # ended meanwhile
                found += [int(path.parent.name)] * (mark in path.read_bytes())
        return found

    def signal(self, number: signal.Signals, *, group: bool, after: float = 0.0) -> bool:
        """Signals the command, or its process group as a terminal does, so many seconds after the start.

        False where it ended before.
        """
        try:
            self.process.wait(max(0.0, self._began + after - time.monotonic()))
            return False
        except subprocess.TimeoutExpired:
            (os.killpg if group else os.kill)(self.process.pid, number)
            return True

    def end(self, limit: float = inf) -> "Ending":
        """Waits until nothing runs any more, and looks at what is left.

        ``limit`` is in seconds; where more programs want to run than there are cores, so many times longer.
        """
        began = time.monotonic()
        limit *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        problems: list[str] = []
        late: list[str] = []
        while self.process.poll() is None or self.family:
            seconds = time.monotonic() - began
            if seconds > limit and not late:
                late = [f"{pid} ({_command_line(pid)})" for pid in self.family]
            if limit < inf and seconds > limit + _GIVE_UP_SECONDS and not problems:
                problems.append("never ended")
                self.kill()
            time.sleep(0.02)
        seconds = time.monotonic() - began
        if seconds > limit and not problems:
            problems.append(f"ended only after {seconds:.1f} s; after {limit:g} s ran {', '.join(late) or 'nothing'}")
        if left := sorted(self.sandbox.left() - self._before):
            problems.append(f"left {', '.join(left)}")
            for path in self.sandbox.temporary.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        output, errors = ((self.sandbox.folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Ending(self.process.returncode, seconds, output, errors, problems)

    def kill(self) -> None:
        """Ends everything at once."""
        for pid in self.family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _heed_signals() -> None:
    """Programs inherit ignored signals, such as Ctrl-C in a shell's background; a signal would then try nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-80:].strip()
    except OSError:
        return "ended"


@dataclass(frozen=True)
class Ending:
    """How a command ended: its status as of subprocess, and the seconds until nothing ran any more."""

    status: int
    seconds: float
    output: str
    errors: str
    problems: list[str]

    @property
    def in_start(self) -> bool:
        """Whether the interpreter, or the shell before it, ended before it came to the project's files."""
        ended_itself = self.status >= 0 and "Traceback" not in self.errors
        return not ended_itself and str(ROOT) not in self.errors

    def check(self, allowed: Sequence[int] = (0,), *, said: str = "", traceback: bool = False) -> list[str]:
        """Problems, those of the status and of what was said included."""
        found = list(self.problems)
        if self.status not in allowed:
            found.append(f"exit status {self.status}, expected {' or '.join(map(str, allowed))}")
        if ("Traceback" in self.errors) != traceback:
            found.append(f"{'no' if traceback else 'a'} traceback on stderr")
        if said not in self.errors:
            found.append(f"stderr lacks {said!r}")
        return [*found, f"stderr: {self.errors.strip()[-400:]!r}"] if found else []
