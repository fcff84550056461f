"""Code blocks of the documentation, for its tests."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_COMMAND = re.compile(r" {4,}(python|torchrun|make|pip|git|dask) ")


@dataclass(frozen=True)
class Code:
    """A Python program ("python"), or the words of a command line ("sh") without its comment."""

    language: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def code(page: Path) -> Iterator[Code]:
    """Python programs and command lines of a page, in order: its ``python`` and ``sh`` blocks and indented commands."""
    language, block = "", ""
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            if language == "python":
                yield Code("python", block)
            language, block = ("", "") if language else (line[3:].strip() or "text", "")
        elif language == "python":
            block += line + "\n"
        elif language == "sh" or (not language and _COMMAND.match(line)):
            words = shlex.split(line, comments=True)
            if words:
                yield Code("sh", shlex.join(words))
