"""Signals that end a command: what is open is closed, one line says so, and the status is what shells expect."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and ``kill``. Other signals end a command in the system's own way; its children end with it."""


class Interruption:
    """Turns SIGNALS into KeyboardInterrupt, so that what is open is closed, and remembers which came.

    Attributes:
        number: of the first signal; 0 for none. The exception may surface as another one, from a library that it went
            through, and what fails afterwards fails because of it.
    """

    def __init__(self) -> None:
        self.number = 0
        self._process = os.getpid()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """While it is active; signals that are ignored stay so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in SIGNALS}
        handled = [number for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)]
        for number in handled:
            signal.signal(number, self._raise)
        try:
            yield
        finally:
            for number in handled:
                signal.signal(number, previous[number])

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked, and without a handler of its own yet
            os._exit(128 + number)
        self.number = self.number or number
        raise KeyboardInterrupt

    @property
    def status(self) -> int:
        """Exit status of the command that the signal ended."""
        return 128 + (self.number or signal.SIGINT)

    def __str__(self) -> str:
        return "ended by SIGTERM" if self.number == signal.SIGTERM else "interrupted"
