"""Options of the commands: what is wrong with them is said in one line, and --config takes them from a TOML file."""

import argparse
import errno
import os
import shlex
import signal
import sys
import textwrap
import traceback
from argparse import SUPPRESS, Action, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from nqlava.command.files import open_regular
from nqlava.command.interruption import Interruption
from nqlava.errors import InputError, shown

SOURCES = (
    "'sample' (1,000 training and 1,000 test images shipped with the project), 'cifar10' or 'cifar100' (download), or "
    "folders or zip archives of Tiny-ImageNet or with train/<class>/<image> and test/<class>/<image>, all images of "
    "one size"
)

EXIT_BAD_INPUT, EXIT_INTERNAL = 2, 70
"""Exit statuses of every command; 70 is EX_SOFTWARE of sysexits.h."""
_MAX_CONFIG = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
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
        self.command = command
        self.examples = [line if " -m " in line else f"python -m {line}" for line in examples]
        self.notes = notes
        ending = "\n  ".join(["examples:", *self.examples])
        super().__init__(
            prog=f"python -m {command}",
            description=textwrap.fill(description, 100),
            epilog=f"{textwrap.fill(notes, 100)}\n\n{ending}" if notes else ending,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="TOML file with options, such as samples = 1000; flags win over it",
        )

    def line(self, options: Namespace) -> str:
        """A command line that gives these options, those of a file included, for people to run again."""
        words = ["python", "-m", self.command]
        for action in self._actions:
            value = getattr(options, action.dest, action.default)
            if action.dest == "config" or (action.option_strings and value == action.default):
                continue
            named = [max(action.option_strings, key=len)] if action.option_strings else []
            values = [] if action.nargs == 0 else value if isinstance(value, list) else [value]
            words[3:3] = [] if named else map(str, values)  # before options that take several values
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
            interrupted: what else to say where a signal ends the command: Ctrl-C, whose status is 130, SIGTERM (143),
                SIGHUP (129) or SIGQUIT (131).
        """
        options = self.parse_args(args)
        interruption = Interruption()
        try:
            with interruption.caught():
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
            if isinstance(error, BrokenPipeError):  # who read the output has seen enough, such as ``head``
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 128 + signal.SIGPIPE
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

    def error(self, message: str) -> NoReturn:
        line = shown(" ".join(message.removeprefix("argument ").split()), 2000)
        if " are required: " in line and " are required: -" not in line:
            line += ", before options that take several values such as --data"
        self.exit(2, f"{self.command}: {line} (--help has the options and examples)\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> Namespace:  # type: ignore[override]
        """The options, of the command line, else of the file, else the defaults."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--config", type=Path, nargs="?")  # the second parser says what is wrong with it
        path = first.parse_known_args(args)[0].config
        configured = {} if path is None else self._read(path)
        for action in configured:
            action.required = False
        options = [action for action in self._actions if action.option_strings and action.default != SUPPRESS]
        # None tells options that were not given; argparse itself sets defaults only of what is not there yet.
        found = super().parse_args(args, Namespace(**{action.dest: None for action in options}))
        given = {action for action in options if getattr(found, action.dest) is not None}
        for group in self._mutually_exclusive_groups:
            if given.intersection(group._group_actions):
                configured = {
                    action: value for action, value in configured.items() if action not in group._group_actions
                }
        for action in options:
            if action not in given:
                setattr(found, action.dest, configured.get(action, action.default))
        return found

    def _read(self, path: Path) -> dict[Action, Any]:
        """The options in a TOML file, converted and checked as flags are."""
        try:
            with open_regular(path, _MAX_CONFIG) as file:
                content = tomllib.loads(file.read().decode())
        except OSError as error:
            self.error(f"{path}: {error.strerror}")
        except (ValueError, RecursionError) as error:
            self.error(f"{path}: not a TOML file: {error}")
        known = {
            name.lstrip("-").replace("-", "_"): action
            for action in self._actions
            for name in action.option_strings
            if action.dest not in ("help", "config") and name.startswith("--") and not name.startswith("--no-")
        }
        found: dict[Action, Any] = {}
        for key, value in content.items():
            action = known.get(key.replace("-", "_"))
            if action is None:
                names = ", ".join(sorted(known, key=str.lower))
                self.error(f"{path}: {key} is no option; allowed: {names}")
            if action in found:
                self.error(f"{path}: {key} is given twice; allowed: once")
            found[action] = self._converted(f"{path}: {key}", action, value)
        for group in self._mutually_exclusive_groups:
            both = [action.dest for action in found if action in group._group_actions]
            if len(both) > 1:
                self.error(f"{path}: {' and '.join(both)} are given; allowed: one of them")
        return found

    def _converted(self, name: str, action: Action, value: object) -> Any:
        if action.nargs == 0:
            if not isinstance(value, bool):
                self.error(f"{name} is {_quoted(value)}; allowed: true, false")
            return value
        if action.nargs == "?" and value is True:
            return action.const
        several = action.nargs == "+" or isinstance(action.nargs, int)
        entries = value if several and isinstance(value, list) else [value]
        if not entries:
            self.error(f"{name} is empty; allowed: at least one value")
        converted = [self._one(name, action, entry) for entry in entries]
        return converted if several else converted[0]

    def _one(self, name: str, action: Action, value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.error(f"{name} is {_quoted(value)}; allowed: a string or a number")
        if isinstance(value, str) and "\0" in value:  # which no path can have, nor a flag
            self.error(f"{name} is {_quoted(value)}; allowed: no null character")
        convert = action.type if callable(action.type) else str
        try:
            result = convert(str(value))
        except argparse.ArgumentTypeError as error:
            self.error(f"{name}: {error}")
        except ValueError:
            kind = getattr(convert, "__name__", "another value")
            self.error(f"{name} is {_quoted(value)}; allowed: {_KINDS.get(kind, kind)}")
        if action.choices is not None and result not in action.choices:
            self.error(f"{name} is {_quoted(value)}; allowed: {', '.join(map(str, action.choices))}")
        return result


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


def _quoted(value: object) -> str:
    return repr(shown(value)) if isinstance(value, str) else shown(value)


def add_data(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --data, by default the sample; ``what`` says which images are taken."""
    parser.add_argument(
        "--data", nargs="+", default=["sample"], metavar="SOURCE", help=f"{what}: {SOURCES} (default: sample)"
    )
