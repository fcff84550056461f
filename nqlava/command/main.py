"""The command ``nqlava``, which runs a command of the project by its name; its options are that command's."""

import runpy
import sys

from nqlava.command.names import COMMANDS, call_by_name
from nqlava.command.output import leave_output
from nqlava.command.search_path import leave_current_folder
from nqlava.errors import shown


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: nqlava COMMAND [options]",
            "",
            *lines,
            "",
            "nqlava COMMAND --help has the options and examples. python -m MODULE is the same, such as",
            f"python -m {COMMANDS['run'][0]} for nqlava run.",
        ]
    )


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return leave_output()
    return 0


def main() -> int:
    """Run the command that the first word names; its exit status."""
    leave_current_folder()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        return _print(_usage())
    if name == "--version":
        from importlib.metadata import version

        return _print(version("nq-lava"))
    if name not in COMMANDS:
        print(f"nqlava: {shown(name)!r} is no command; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    call_by_name()
    del sys.argv[1]
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    return 0
