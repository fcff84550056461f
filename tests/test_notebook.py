"""The tutorial's notebook is the tutorial; tests/test_doc_commands.py runs its cells."""

import json
from pathlib import Path

import pytest

from tools import docs, notebook


def test_is_current() -> None:
    """Sources of all cells, and no cell of another kind."""
    found = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in found["cells"]]
    assert sources == list(notebook.cells()), "python -m tools.notebook writes it anew"


def test_has_the_code_of_the_page() -> None:
    assert list(notebook.code()) == list(docs.code(notebook.PAGE))


def test_links_lead_from_its_folder() -> None:
    for kind, source in notebook.cells():
        if kind == "markdown":
            for link in source.split("](")[1:]:
                target = link.partition(")")[0].partition("#")[0]
                assert target.startswith("http") or (notebook.NOTEBOOK.parent / target).exists(), target


def test_has_outputs() -> None:
    found = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    printing = [cell for cell in cells if cell["source"][0].startswith("!") or "print(" in "".join(cell["source"])]
    assert printing and all(cell["outputs"] for cell in printing)
    assert any("EXACT: " in line for cell in cells for output in cell["outputs"] for line in output["text"])


def test_running_cells(tmp_path: Path) -> None:
    """They share a namespace, and commands run in the same folder."""
    program = "from pathlib import Path\nPath('f.py').write_text('print(3)')\nprint(x)"
    printed = notebook.run(["x = 2", program, "!python f.py"], tmp_path)
    assert printed == ["", "2\n", "3\n"]
    with pytest.raises(NameError):
        notebook.run(["print(x)"], tmp_path)
