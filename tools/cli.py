"""The page of all options, from the parsers themselves: ``python -m tools.cli`` writes docs/cli.md."""

from argparse import Action
from pathlib import Path

from deploy import demo, run_lava, run_lava_dl
from deploy.fit import __main__ as fit
from deploy.report import __main__ as report
from export import from_nir, to_netx, to_nir
from nqlava.command.parser import Parser
from train import cifar, command, evaluate, figures, imagenet, potentials

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
_VALUES = {"int": "N", "float": "X", "Path": "FILE"}  # of options, by what converts them
HEAD = """# Commands and options

Written by `python -m tools.cli` from the commands themselves; a test keeps it current.

All commands have these habits:

* `--help` ends with examples. Option names cannot be abbreviated.
* `--config FILE` takes options from a TOML file, under their names without the dashes: `samples = 1000`,
  `learning-rate = 0.1`, `data = ["a.zip", "b.zip"]`, `resume = true`. Flags win over it; positional arguments stay on
  the command line; values are checked as flags are, and an unknown name is refused. Paths are relative to the working
  folder.
* Bad options, files and data are one line on stderr that names the thing, its value and what is allowed: exit status 2.
  An output file that cannot be written is the same. 70 is an internal error: a traceback, and a line that asks for a
  report. 130 is an interruption (Ctrl-C), 143 SIGTERM ([reliability.md](reliability.md)). Output files are written
  completely or not at all, and none may be an input too. Exporters want a folder that is there; all other commands make
  the folder of what they write.
* `--dry-run`, where work is costly, checks options and data, says what would be done, and writes nothing.
* On a terminal a bar shows the progress; into a pipe or a file goes a line every half a minute at most, without control
  characters. No command uses colours, so that NO_COLOR has nothing to switch off.
* `--T` is the number of time steps, `--samples` of images, drawn by `--seed`; `--json FILE` takes the numbers.
"""


def parsers() -> list[Parser]:
    """Of all commands, in the order in which one needs them."""
    return [
        command.parser(cifar.COMMAND),
        command.parser(imagenet.COMMAND),
        potentials.parser(),
        evaluate.parser(),
        figures.parser(),
        to_netx.parser(),
        run_lava.parser(),
        report.parser(),
        fit.parser(),
        to_nir.parser(),
        from_nir.parser(),
        run_lava_dl.parser(),
        demo.parser(),
    ]


def page() -> str:
    """The text of docs/cli.md."""
    return "\n".join([HEAD, *map(section, parsers())])


def section(parser: Parser) -> str:
    """One command. From the actions, since the text that argparse formats differs between versions of Python."""
    lines = [
        f"## {parser.command}",
        "",
        " ".join((parser.description or "").split()),
        "",
        "```sh",
        *parser.examples,
        "```",
        "",
    ]
    lines += ["| option | meaning |", "| --- | --- |"]
    for action in parser._actions:
        if action.dest not in ("help", "config"):
            text = (action.help or "") % (vars(action) | {"prog": parser.prog})
            lines.append(f"| {_name(action)} | {_escaped(text)} |")
    if parser.notes:
        lines += ["", f"{parser.notes[0].upper()}{parser.notes[1:]}."]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _name(action: Action) -> str:
    """As one types it: ``--T STEPS``."""
    value = action.metavar or _VALUES.get(getattr(action.type, "__name__", ""), action.dest.upper())
    if action.choices and not action.metavar:
        value = "\\|".join(map(str, action.choices))
    if action.nargs == 0 or not action.option_strings:
        value = ""
    elif action.nargs == "+":
        value = f" {value} ..."
    else:
        value = f" {value}"
    names = action.option_strings or [action.metavar or action.dest]
    optional = " (optional)" if not action.option_strings and action.nargs == "?" else ""
    return ", ".join(f"`{name}{value}`" for name in names) + optional


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
