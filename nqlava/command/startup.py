"""What a command does first: its output takes any text, Ctrl-C while it imports, for seconds, ends it in one line, and
nothing is imported from the current folder, and matplotlib needs no display.

A command imports this module before all others. It acts where a command of the project is the main program; in other
programs the import changes nothing. nqlava.command.parser.Parser.run takes over from it.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from nqlava.command.names import label
from nqlava.command.search_path import leave_current_folder


def _open_missing() -> None:
    """Standard input, output and error go to nowhere where they are closed."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # becomes the lowest number that is free
                setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _command() -> str:
    """The module that ``python -m`` runs, such as deploy.fit; empty in another program."""
    name = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    return name.removesuffix(".__main__") if name.partition(".")[0] in ("train", "export", "deploy") else ""


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os.write(2, f"\n{label(_command())}: interrupted\n".encode())
    os._exit(128 + number)


if _command():
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, _end_at_once)
    _open_missing()
    leave_current_folder()
    os.environ["MPLBACKEND"] = "agg"  # that of a notebook, which is inherited, may not be installed here
    with suppress(AttributeError):  # another kind of stream
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as stderr
