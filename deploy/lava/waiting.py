"""Which process of a Lava network waits for which, and the memory through which they talk."""

import mmap
from collections.abc import Mapping
from types import TracebackType

import deploy.lava.compatibility  # noqa: F401 — before Lava

from lava.magma.compiler.builders.channel_builder import ChannelBuilderMp, ServiceChannelBuilderMp
from lava.magma.compiler.channels.watchdog import NoOPWatchdog, WatchdogManagerInterface
from lava.magma.compiler.executable import Executable
from lava.magma.core.process.process import AbstractProcess


class AnonymousMemory:
    """Takes the place of multiprocessing's SharedMemoryManager, for processes that are forked afterwards.

    What it hands out has no name, so that nothing is left in /dev/shm however the processes end. It needs no
    process, socket or resource tracker of its own.
    """

    def create_shared_memory(self, size: int) -> "_Segment":
        return _Segment(size)

    def shutdown(self) -> None:
        """The memory goes with the last process that maps it."""


class _Segment:
    """Shared memory with the interface of multiprocessing's: its bytes are ``buf``."""

    def __init__(self, size: int) -> None:
        self.buf = memoryview(mmap.mmap(-1, max(1, size)))


class _Counter:
    """Odd while a process is inside a send or receive; the port's process alone changes it."""

    def __init__(self, counts: memoryview, index: int) -> None:
        self._counts, self._index = counts, index

    def __enter__(self) -> None:
        self._counts[self._index] += 1

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._counts[self._index] += 1


class Waiting(WatchdogManagerInterface):
    """Counts sends and receives, in memory shared with the processes, where Lava has a hook for watchdogs.

    Lava's own watchdog takes a process, a queue and a thread per message, and knows only the classes of processes.

    Args:
        executable: whose channels are built next, in its order.
    """

    lq = sq = None  # queues of Lava's own watchdog

    def __init__(self, executable: Executable) -> None:
        found = [b for b in executable.channel_builders if isinstance(b, ChannelBuilderMp)]
        self._channels = [*found, *executable.sync_channel_builders]
        self._counts = memoryview(mmap.mmap(-1, max(1, 16 * len(self._channels)))).cast("q")
        self._made = 0

    def create_watchdog(self, queue: None, channel_name: str, method_type: str) -> "_Counter | NoOPWatchdog":
        """Called for every channel in turn, for the sender and then the receiver, and twice for what needs none."""
        if method_type == "join":
            return NoOPWatchdog(None)
        self._made += 1
        return _Counter(self._counts, self._made - 1)

    def describe(self) -> str:
        """In a line, for a network that stands still: who waits for whom, and who keeps the others waiting."""
        waits: dict[str, None] = {}
        waiting: set[AbstractProcess] = set()
        answers: dict[AbstractProcess, int] = {}
        for index, channel in enumerate(self._channels):
            sent, received = self._counts[2 * index], self._counts[2 * index + 1]
            if isinstance(channel, ChannelBuilderMp):
                sender, receiver = channel.src_process, channel.dst_process
                if received % 2:
                    waits[f"{label(receiver)} waits for a message from {label(sender)}"] = None
                    waiting.add(receiver)
                if sent % 2:
                    waits[f"{label(sender)} waits until {label(receiver)} takes a message"] = None
                    waiting.add(sender)
            elif isinstance(channel, ServiceChannelBuilderMp) and isinstance(channel.src_process, AbstractProcess):
                answers[channel.src_process] = sent
        return "; ".join([_stuck(answers, waiting), *waits])


def _stuck(answers: Mapping[AbstractProcess, int], waiting: set[AbstractProcess]) -> str:
    """Who has not finished the step, for no one's fault but its own; a process answers Lava at the end of a step."""
    behind = [process for process, count in answers.items() if count < max(answers.values())]
    # Where no process has finished the step, all of them are behind.
    names = [label(process) for process in behind or answers if process not in waiting]
    if not names:
        return "all processes wait for each other"
    return f"{', '.join(names)} {'does' if len(names) == 1 else 'do'} not finish the step"


def label(process: AbstractProcess) -> str:
    """The name that a process was given, else its class with Lava's number."""
    return f"{type(process).__name__} {process.name}" if process.name == f"Process_{process.id}" else process.name
