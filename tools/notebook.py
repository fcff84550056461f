"""The tutorial as a notebook: ``python -m tools.notebook`` writes examples/tutorial.ipynb and the tutorial's figures.

Text and code are those of docs/tutorial.md; command lines become cells that begin with an exclamation mark. The code
runs, on one thread, only where it differs from that of the notebook that is there; otherwise its outputs are kept.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.docs import ROOT, Code

PAGE = ROOT / "docs" / "tutorial.md"
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
"""Code, and what it prints."""


def cells(page: Path = PAGE) -> Iterator[tuple[str, str]]:
    """Kind ("markdown" or "code") and source of each cell."""
    text = page.read_text(encoding="utf-8")
    end = 0
    for block in _BLOCK.finditer(text):
        yield "markdown", _linked(text[end : block.start()])
        language, source = block.groups()
        yield "code", source.strip() if language == "python" else "!" + source.strip().replace("\n", "\n!")
        end = block.end()
    yield "markdown", _linked(text[end:])


def _linked(text: str) -> str:
    """Text whose links start at the notebook's folder; what it says of the notebook is left out."""
    lines = (line for line in text.strip().splitlines() if NOTEBOOK.name not in line)
    return re.sub(r"\]\((?!\.\./|https?:|#)", f"](../{PAGE.parent.name}/", "\n".join(lines))


def code(notebook: Path = NOTEBOOK) -> Iterator[Code]:
    """Programs and command lines of a notebook, as ``tools.docs.code`` gives those of a page."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield from _parts("".join(cell["source"]))


def _parts(source: str) -> Iterator[Code]:
    if not source.startswith("!"):
        yield Code("python", source + "\n")
        return
    for line in source.splitlines():
        yield Code("sh", shlex.join(shlex.split(line[1:], comments=True)))


def run(sources: list[str], folder: Path) -> list[str]:
    """What each source prints, in one namespace; the files that they write are in the folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = []
    with _inside(folder):
        for source in sources:
            output = io.StringIO()
            for part in _parts(source):
                if part.language == "python":
                    with contextlib.redirect_stdout(output):
                        exec(compile(part.text, NOTEBOOK.name, "exec"), namespace)
                else:
                    words = [sys.executable, *part.words[1:]]
                    output.write(subprocess.run(words, env=environment, check=True, stdout=-1, text=True).stdout)
            printed.append(output.getvalue())
    return printed


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def notebook(printed: list[str]) -> dict[str, Any]:
    """The notebook, in nbformat 4.4, with what its code cells print."""
    made: list[dict[str, Any]] = []
    outputs = iter(enumerate(printed, 1))
    for kind, source in cells():
        cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)}
        if kind == "code":
            cell["execution_count"], text = next(outputs)
            stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
            cell["outputs"] = [stream] if text else []
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def _kept(sources: list[str]) -> list[str] | None:
    """What the notebook that is there prints; None where its code is another."""
    if not NOTEBOOK.exists():
        return None
    found = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    if ["".join(cell["source"]) for cell in found] != sources:
        return None
    return ["".join(line for output in cell["outputs"] for line in output["text"]) for cell in found]


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # sums depend on it
    sources = [source for kind, source in cells() if kind == "code"]
    printed = _kept(sources)
    if printed is None:
        with tempfile.TemporaryDirectory() as folder:
            printed = run(sources, Path(folder))
            for figure in sorted(Path(folder).glob("*.png")):
                shutil.copy(figure, PAGE.parent / "figures")
                print(f"docs/figures/{figure.name}: {figure.stat().st_size:,} bytes")
    NOTEBOOK.write_text(json.dumps(notebook(printed), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(NOTEBOOK.relative_to(ROOT))


if __name__ == "__main__":
    main()
