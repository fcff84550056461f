"""Commands whose end is watched from outside: what they leave in memory, in folders and among the processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from nqlava.command.interruption import SIGNALS

ROOT = Path(__file__).resolve().parent.parent
END_SECONDS = 5.0  # from a fault until nothing may run any more, on a machine that does nothing else
_GIVE_UP_SECONDS = 120.0
_POLL_SECONDS = 0.02
_MARK = "NQ_LAVA_FAULT"
_FULL_BYTES = 300_000


class Sandbox:
    """A folder, and where the system allows it a mount namespace with a /dev/shm and a small disk of its own.

    Then what other programs do meanwhile does not count. Elsewhere /dev/shm is compared as it is, and only a limit on
    the size of files stands for a full disk.

    Args:
        folder: emptied first.

    Attributes:
        temporary: what the commands take for temporary files. outputs: for what they write.
        full: mount point of the small disk; None without.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.temporary, self.outputs = self.folder / "tmp", self.folder / "out"
        self.full: Path | None = None
        self.memory = Path("/dev/shm")
        self._holder: subprocess.Popen[str] | None = None
        self._last: Watched | None = None
        self._enter: list[str] = []

    def __enter__(self) -> "Sandbox":
        shutil.rmtree(self.folder, ignore_errors=True)
        disk = self.folder / "disk"
        for made in (self.temporary, self.outputs, disk):
            made.mkdir(parents=True)
        if shutil.which("unshare") is None or shutil.which("nsenter") is None:
            return self
        small = f'mount -t tmpfs -o size={_FULL_BYTES} tmpfs "$0"'
        script = f"mount -t tmpfs tmpfs /dev/shm && {small} && echo ready && exec cat"
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", *user, "sh", "-c", script, str(disk)],
            stdin=subprocess.PIPE,  # its end ends the holder, also when this process is killed
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() == "ready\n":
            seen = Path(f"/proc/{self._holder.pid}/root")  # the files of the namespace
            self.memory, self.full = seen / "dev/shm", seen / disk.relative_to("/")
            spaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--preserve-credentials", "--mount"]
            self._enter = ["nsenter", "--target", str(self._holder.pid), *spaces]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._last is not None:
            self._last.kill()
            self._last.process.wait()
        if self._holder is not None:
            self._holder.communicate()

    @property
    def private(self) -> bool:
        """Whether nobody else writes to /dev/shm."""
        return bool(self._enter)

    @property
    def disk(self) -> Path:
        """The small disk, as commands see it."""
        return self.folder / "disk"

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> "Watched":
        """Starts ``python -m command`` in the project's folder, as a terminal does: a process group of its own."""
        before = self._left()
        mark = uuid.uuid4().hex
        environment = os.environ | {"TMPDIR": str(self.temporary), _MARK: mark} | dict(environment or {})
        with (self.folder / "stderr").open("wb") as stderr, (self.folder / "stdout").open("wb") as stdout:
            process = subprocess.Popen(
                # Entering the namespace ends in the folder that is the root there.
                [*self._enter, "sh", "-c", 'cd "$0" && exec "$@"', str(ROOT), sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
                preexec_fn=_heed_signals,
            )
        self._last = Watched(self, process, mark, before)
        return self._last

    def _left(self) -> set[str]:
        """What may be left somewhere, by name."""
        shared = {f"/dev/shm/{path.name}" for path in self.memory.iterdir()}
        return shared | {f"$TMPDIR/{path.name}" for path in self.temporary.iterdir()}


@dataclass
class Watched:
    """A command that runs.

    Attributes:
        began: when it was started.
    """

    sandbox: Sandbox
    process: subprocess.Popen[bytes]
    _mark: str
    _before: set[str]
    began: float = field(default_factory=time.monotonic)

    @property
    def family(self) -> list[int]:
        """It and the processes that stem from it, whoever is their parent now."""
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:  # ended meanwhile
                continue
        return found

    @property
    def errors(self) -> str:
        """What it wrote on stderr, the last command started that is."""
        return (self.sandbox.folder / "stderr").read_text(encoding="utf-8", errors="replace")

    @property
    def output(self) -> str:
        """As ``errors``, on stdout."""
        return (self.sandbox.folder / "stdout").read_text(encoding="utf-8", errors="replace")

    def sleep(self, seconds: float) -> bool:
        """Waits until so many seconds after the start; False where the command ended before."""
        try:
            self.process.wait(max(0.0, self.began + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            return True
        return False

    def signal(self, number: signal.Signals, *, group: bool) -> None:
        """Sends a signal to the command, or to its process group as a terminal does."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self, limit: float = END_SECONDS) -> "Ending":
        """Waits until nothing runs any more, and looks at what is left.

        ``limit`` is in seconds; where more programs want to run than there are cores, so many times longer.
        """
        began = time.monotonic()
        limit *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        problems: list[str] = []
        late: list[str] = []
        while self._running():
            if time.monotonic() - began > limit and not late:
                late = [_describe(pid) for pid in self.family]
            if time.monotonic() - began > _GIVE_UP_SECONDS:
                problems.append("never ended")
                self.kill()
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - began
        if seconds > limit and not problems:
            problems.append(f"ended only after {seconds:.1f} s; after {limit:g} s ran {', '.join(late) or 'nothing'}")
        left = sorted(self.sandbox._left() - self._before) if self.sandbox.private else sorted(self._own_left())
        if left:
            problems.append(f"left {', '.join(left)}")
            for path in self.sandbox.temporary.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Ending(self.process.returncode, seconds, self.errors, problems)

    def kill(self) -> None:
        """Ends everything at once."""
        for pid in self.family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _running(self) -> bool:
        return self.process.poll() is None or bool(self.family)

    def _own_left(self) -> set[str]:
        """Without a namespace, segments that other programs made meanwhile are there too: only $TMPDIR is certain."""
        return {name for name in self.sandbox._left() - self._before if name.startswith("$TMPDIR")}


def _heed_signals() -> None:
    """Programs inherit signals that are ignored, such as SIGHUP from nohup, and a signal would then try nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _describe(pid: int) -> str:
    """What a process runs, its state and its parent."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
        state, parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[:2]
    except OSError:
        return f"{pid} (ended)"
    return f"{pid} (state {state}, parent {parent}: {command[-80:].strip()})"


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        status: as of subprocess. seconds: until nothing ran any more. errors: what it wrote on stderr.
        problems: what was not as it must be.
    """

    status: int
    seconds: float
    errors: str
    problems: list[str]

    @property
    def in_start(self) -> bool:
        """Whether the interpreter, or the shell before it, ended before it came to the project's files."""
        ended_itself = self.status >= 0 and "Traceback" not in self.errors
        return not ended_itself and str(ROOT) not in self.errors

    def check(self, allowed: Sequence[int], *, said: str = "", traceback: bool = False) -> list[str]:
        """Problems, those of the status and of what was said included."""
        found = list(self.problems)
        if self.status not in allowed:
            found.append(f"exit status {self.status}, expected {' or '.join(map(str, allowed))}")
        if ("Traceback" in self.errors) != traceback:
            found.append(f"{'no' if traceback else 'a'} traceback on stderr")
        if said not in self.errors:
            found.append(f"stderr lacks {said!r}")
        if found:
            found.append(f"stderr: {self.errors.strip()[-400:]!r}")
        return found
