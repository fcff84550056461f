"""Options of the commands: what is wrong with them is said in one line, and --config takes them from a TOML file."""

import argparse
import errno
import io
import os
import shlex
import sys
import textwrap
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import configargparse

from nqlava.command.files import open_regular
from nqlava.command.interruption import Interruption
from nqlava.command.names import called, label
from nqlava.command.output import leave_output
from nqlava.errors import InputError, shown

SOURCES = (
    "'sample' (1,000 training and 1,000 test images shipped with the project), 'cifar10' or 'cifar100' (download), or "
    "folders or archives of CIFAR or Tiny-ImageNet, or with train/<class>/<image> and test/<class>/<image>, all images "
    "of one size"
)

EXIT_BAD_INPUT, EXIT_INTERNAL = 2, 70
"""Exit statuses of every command; 70 is EX_SOFTWARE of sysexits.h."""
_MAX_CONFIG = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Toml(configargparse.ConfigFileParser):  # type: ignore[misc]
    """Reads a TOML file of options, without tables."""

    def get_syntax_description(self) -> str:
        return "TOML"

    def parse(self, stream: IO[str]) -> dict[str, str | list[str]]:
        found: dict[str, str | list[str]] = {}
        try:
            for key, value in tomllib.loads(stream.read()).items():
                words = [_word(key, one) for one in (value if isinstance(value, list) else [value])]
                if (name := key.replace("_", "-")) in found or name == "config":
                    raise ValueError(f"{key} is given twice; remove one")
                found[name] = words if isinstance(value, list) else words[0]
        except (ValueError, RecursionError) as error:
            raise configargparse.ConfigFileParserException(f"not a TOML file of options: {error}") from None
        return found


def _word(key: str, value: object) -> str:
    """A value in the file as it would be typed."""
    word = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str | int | float) or "\0" in word:
        raise ValueError(f"{key} is {shown(value)}; allowed: strings, numbers, true and false, and lists of them")
    return word


class Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    """The options of one command.

    Bad options end the command with one line on stderr and exit status 2. Every option, but no positional argument, may
    also stand in a TOML file given with --config, under its long name without the dashes; flags win over the file.
    Option names cannot be abbreviated, so that a script keeps its meaning when options are added.

    Args:
        command: module that ``python -m`` runs, such as train.cifar.
        description: one or two sentences.
        examples: command lines without ``python -m``; or with a program before it, such as torchrun.
        notes: printed between the options and the examples.
    """

    def __init__(self, command: str, description: str, examples: Sequence[str], notes: str = "") -> None:
        self.command = label(command)
        self._configured = ""
        self._called = called(command)
        self.examples = [
            line if " -m " in line else " ".join([*self._called, *line.split(" ")[1:]]) for line in examples
        ]
        self.notes = notes
        ending = "\n  ".join(["examples:", *self.examples])
        super().__init__(
            prog=" ".join(self._called),
            description=textwrap.fill(description, 100),
            epilog=f"{textwrap.fill(notes, 100)}\n\n{ending}" if notes else ending,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            config_file_parser_class=_Toml,
            config_file_open_func=self._open,
            add_config_file_help=False,
            add_env_var_help=False,
        )
        self.add_argument(
            "--config",
            is_config_file=True,
            type=Path,
            metavar="FILE",
            help="TOML file with options, such as samples = 1000; flags win over it",
        )

    def line(self, options: Namespace) -> str:
        """A command line that gives these options, those of a file included, for people to run again."""
        words = list(self._called)
        for action in self._actions:
            value = getattr(options, action.dest, action.default)
            if action.dest == "config" or (action.option_strings and value == action.default):
                continue
            named = [max(action.option_strings, key=len)] if action.option_strings else []
            values = [] if action.nargs == 0 else value if isinstance(value, list) else [value]
            place = len(self._called)
            words[place:place] = [] if named else map(str, values)  # before options that take several values
            words += [*named, *map(str, values)] if named else []
        return shlex.join(words)

    def run(
        self,
        work: Callable[[Namespace], int | None],
        args: Sequence[str] | None,
        failures: Mapping[type[Exception], int] | None = None,
        interrupted: str = "",
    ) -> int:
        """The command: its exit status, after a line on stderr where it failed.

        An InputError is bad input: one line and status 2. So is an OSError that is not converted yet, if it is about a
        path that the options name or a file in it, or if a disk is full, such as that of the standard output. Every
        other exception is an internal error, plain ValueError and OSError included: its traceback, a line that asks for
        a report, and status 70.

        Args:
            work: called with the options; what it returns, None for 0, is the status.
            args: as for ``parse_args``.
            failures: statuses of further exceptions, of which the message is printed.
            interrupted: what else to say where Ctrl-C ends the command, whose status is 130, or SIGTERM (143).
        """
        options = self.parse_args(args)
        interruption = Interruption()
        try:
            with interruption.caught():
                _require_folder()
                status = work(options) or 0
                sys.stdout.flush()
                return status
        except BaseException as error:
            if interruption.number or isinstance(error, KeyboardInterrupt):
                # After an interrupted exec, such as in an import, Python would end by SIGINT; another one resets that.
                exec("")
                with suppress(OSError):  # a terminal that was closed
                    print(f"\n{self.command}: {interruption}{interrupted}", file=sys.stderr)
                return interruption.status
            if isinstance(error, BrokenPipeError):
                return leave_output()
            if not isinstance(error, Exception):  # such as SystemExit
                raise
            return self._failed(error, options, failures or {})

    def _failed(self, error: Exception, options: Namespace, failures: Mapping[type[Exception], int]) -> int:
        """Says what failed; the exit status."""
        if isinstance(error, InputError) or (isinstance(error, OSError) and _is_about_input(error, options)):
            status, text = EXIT_BAD_INPUT, shown(error, 4000)
        elif isinstance(error, tuple(failures)):
            status, text = next(status for kind, status in failures.items() if isinstance(error, kind)), str(error)
        else:
            status, text = EXIT_INTERNAL, "internal error; please report it with the traceback above"
            print(_lines("".join(traceback.format_exception(error))), file=sys.stderr)
        print(f"{self.command}: {_lines(text)}", file=sys.stderr)
        return status

    def _open(self, path: str, _mode: str = "r") -> IO[str]:
        file = io.TextIOWrapper(open_regular(Path(path), _MAX_CONFIG), "utf-8")
        self._configured = f"with {path}: "
        return file

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:
        try:
            super()._print_message(message, file)
            sys.stdout.flush()
        except BrokenPipeError:
            raise SystemExit(leave_output()) from None

    def error(self, message: str) -> NoReturn:
        line = shown(self._configured + " ".join(message.removeprefix("argument ").split()), 2000)
        if " are required: " in line and " are required: -" not in line:
            line += ", before options that take several values such as --data"
        print(f"{self.command}: {line} (--help has the options and examples)", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _require_folder() -> None:
    try:
        Path.cwd()
    except OSError:  # PyTorch's MKL then ends the process
        raise InputError("the current folder was removed; allowed: to start in another one") from None


def _is_about_input(error: OSError, options: Namespace) -> bool:
    """Whether the error is about a path that the options name, or a file in it, or no disk space is left."""
    if error.errno in _FULL:
        return True
    if not isinstance(error.filename, str | os.PathLike):
        return False
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        here = Path()
    values = [one for value in vars(options).values() for one in (value if isinstance(value, list) else [value])]
    found = here / error.filename
    return any(here / value in (found, *found.parents) for value in values if isinstance(value, str | Path))


def _lines(text: str) -> str:
    """Lines without control characters."""
    return "\n".join(shown(line, 4000) for line in text.splitlines())


def add_data(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --data, by default the sample; ``what`` says which images are taken."""
    parser.add_argument(
        "--data", nargs="+", default=["sample"], metavar="SOURCE", help=f"{what}: {SOURCES} (default: sample)"
    )
