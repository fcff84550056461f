"""Signals that end a command: everything is cleaned up, one line says so, and the status is what shells expect."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_SECONDS = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Ctrl-C, ``kill``, a terminal that closes, Ctrl-\\."""


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
        """While it is active; signals that are ignored, such as under nohup, stay so.

        Where Python cannot raise the exception, such as in the callback of a weak reference, nothing is printed of it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
        handled = [number for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)]
        hook = sys.unraisablehook

        def not_raised(unraisable: "sys.UnraisableHookArgs") -> None:
            if not (self.number and issubclass(unraisable.exc_type, KeyboardInterrupt)):
                hook(unraisable)

        sys.unraisablehook = not_raised
        for number in handled:
            signal.signal(number, self._raise)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number in handled:
                signal.signal(number, previous[number])
            sys.unraisablehook = hook

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked, and without a handler of its own yet
            os._exit(128 + number)
        self.number = self.number or number
        # A destructor, or an import that catches everything, swallows the exception: the signal comes again.
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise KeyboardInterrupt

    @property
    def status(self) -> int:
        """Of a command that it ended."""
        return 128 + (self.number or signal.SIGINT)

    def __str__(self) -> str:
        number = signal.Signals(self.number or signal.SIGINT)
        return "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
