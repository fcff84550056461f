"""What may import what: read from the source, so that it holds for imports inside functions too."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nqlava", "train", "export", "deploy")
SOURCES = sorted(path for name in (*PACKAGES, "tools", "benchmarks", "stress") for path in (ROOT / name).rglob("*.py"))


def module_name(path: Path) -> str:
    """Dotted name of a source file of the repository."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or package of this repository."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def within(name: str, *parents: str) -> bool:
    """Whether the module is one of the parents or inside one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def imports(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Dotted names of the modules imported anywhere in the source, relative and literal dynamic imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if within(base, *PACKAGES) and is_module(inner) else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def imported_by(path: Path) -> set[str]:
    """Modules that a source file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return set(imports(tree, module_name(path), is_package=path.name == "__init__.py"))


def forbidden(module: str, imported: str) -> bool:
    """Whether the rules of the project forbid this import."""
    if within(imported, "lava") and not within(module, "deploy.lava"):
        return True
    if within(imported, "nqlava.testing") and within(module, *PACKAGES) and not within(module, "nqlava.testing"):
        return True
    if within(imported, "tests") and not within(module, "tests"):
        return True
    if within(module, "nqlava"):
        return within(imported, "train", "export", "deploy")
    if within(module, "train"):
        return within(imported, "export", "deploy")
    if within(module, "export"):
        return within(imported, "deploy")
    if within(module, "deploy"):
        return within(imported, "export")
    return False


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_source_imports_only_what_its_package_may(path: Path) -> None:
    assert [name for name in sorted(imported_by(path)) if forbidden(module_name(path), name)] == []


LAVA_USERS = [
    path
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    if any(within(name, "lava") for name in imported_by(path))
]


@pytest.mark.parametrize("path", LAVA_USERS, ids=module_name)
def test_lava_is_imported_after_what_newer_pythons_need(path: Path) -> None:
    """The order is held by ruff (pyproject.toml); in functions only what follows the imports above them stands."""
    assert "deploy.lava.compatibility" in imported_by(path)


def foreign(path: Path) -> set[str]:
    """What a source file imports beside the standard library."""
    return {name for name in imported_by(path) if name.partition(".")[0] not in sys.stdlib_module_names}


def test_network_representation_needs_only_numpy() -> None:
    """Its base of bad input, nqlava.errors, needs the standard library alone."""
    assert foreign(ROOT / "nqlava" / "network.py") == {"numpy", "numpy.typing", "nqlava.errors", "nqlava.geometry"}
    assert foreign(ROOT / "nqlava" / "geometry.py") == {"numpy", "numpy.typing"}
    assert foreign(ROOT / "nqlava" / "errors.py") == set()


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=module_name)
def test_package_file_holds_a_docstring_and_no_imports(path: Path) -> None:
    """But for the public face, whose names are imported when they are used."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    if path != ROOT / "nqlava" / "__init__.py":
        assert imported_by(path) == set()


@pytest.mark.parametrize("name", PACKAGES)
def test_every_folder_with_sources_is_a_package(name: str) -> None:
    folders = {path.parent for path in (ROOT / name).rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("module", "source", "rejected"),
    [
        ("nqlava.reference", "from nqlava.network import Layer", False),
        ("nqlava.netx", "from train.model.models import Network", True),
        ("nqlava.engine.integer", "import deploy.run_lava", True),
        ("nqlava.network", "from nqlava.testing import networks", True),
        ("nqlava.testing.engines", "from nqlava.testing import networks", False),
        ("nqlava.testing.engines", "from deploy import api", True),
        ("deploy.api", "import nqlava.testing.engines", True),
        ("stress.agreement", "from nqlava.testing import strategies", False),
        ("stress.soak", "from tests.tiny import tiny", True),
        ("train.model.models", "import export.to_netx", True),
        ("train.model.models", "from train import data", False),
        ("train.model.models", "def f():\n    from deploy import api", True),
        ("export.to_netx", "from nqlava.engine.integer import Engine", False),
        ("export.to_netx", "from train.model.models import Network", False),
        ("export.to_netx", "from deploy.lava import layers", True),
        ("export.to_netx", "from . import fold", False),
        ("deploy.run", "from nqlava import network", False),
        ("deploy.run", "import export.fold.lower", True),
        ("deploy.demo", "from train import data", False),
        ("deploy.run", "import lava.proc", True),
        ("deploy.run", "import importlib; importlib.import_module('lava.proc')", True),
        ("deploy.run", "from .lava import layers", False),
        ("deploy.run", "from deploy.lava import layers", False),
        ("deploy.lava.layers", "from lava.proc import lif", False),
        ("benchmarks.speed", "from lava.proc import lif", True),
    ],
)
def test_rules_reject_what_they_should(module: str, source: str, rejected: bool) -> None:
    assert any(forbidden(module, name) for name in imports(ast.parse(source), module)) is rejected
