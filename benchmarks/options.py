"""Command lines of the measurements."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nqlava.command.parser import Parser


class Options(Parser):
    """Options of ``python -m benchmarks.NAME``, whose first line and examples are in ``text``, its docstring.

    With ``out`` it writes NAME.json and NAME.md to the folder --out.
    """

    def __init__(self, name: str, text: str | None, *, out: bool = True) -> None:
        lines = (text or "").splitlines()
        examples = [line.strip() for line in lines if line.startswith("    python -m ")]
        super().__init__(f"benchmarks.{name}", lines[0], examples or [f"benchmarks.{name} --help"])
        if out:
            self.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"for {name}.json and .md")

    def number(self, name: str, default: float, what: str, *, kind: Callable = int, **more: Any) -> None:
        """An option of one number."""
        self.add_argument(name, type=kind, default=default, help=f"{what} (default: %(default)s)", **more)

    def several(self, name: str, default: Sequence[Any], what: str, *, nargs: str = "+", **more: Any) -> None:
        """An option of several values: words among ``choices``, or else whole numbers."""
        kind = str if "choices" in more else int
        more.setdefault("metavar", name.strip("-").rstrip("s").upper())
        self.add_argument(name, nargs=nargs, type=kind, default=default, help=f"{what} (default: %(default)s)", **more)
