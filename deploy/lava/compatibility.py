"""Lets lava-nc 0.10.0 be imported on Python 3.11 and newer. Import this before any module of Lava.

The dataclasses of ``lava.magma.compiler.var_model`` have instances of another one, ByteEncoder, as defaults. Since
Python 3.11 a dataclass refuses a default that is not hashable ("mutable default … use default_factory"), and a
dataclass that compares by value is not, unless it asks for ``unsafe_hash``. Here var_model is loaded with just that:
``@dataclass(unsafe_hash=True)`` on ByteEncoder. Its instances stay shared defaults, as on Python 3.10, and nothing else
of Lava changes. (Networks for a CPU use none of these classes; only their definition was in the way.)

On Python 3.10 importing this does nothing. Processes that are forked later inherit it; others import it again with the
modules of this folder.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

_MODULE = "lava.magma.compiler.var_model"
_REFUSED = "@dataclass\nclass ByteEncoder:"
_ACCEPTED = "@dataclass(unsafe_hash=True)\nclass ByteEncoder:"


class _HashableDefault(SourceFileLoader):  # pragma: no cover  coverage is counted on Python 3.10
    """Loads var_model with ByteEncoder hashable, and neither reads nor writes cached bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) or ""
        if source.count(_REFUSED) != 1:
            raise ImportError(
                f"{self.path} is not that of lava-nc 0.10.0, which newer Pythons need: pip install --no-deps "
                "--ignore-requires-python lava-nc==0.10.0",
                name=fullname,
                path=self.path,
            )
        return self.source_to_code(source.replace(_REFUSED, _ACCEPTED).encode(), self.path)


class _VarModelFinder(MetaPathFinder):  # pragma: no cover  as above
    """Finds var_model where it is, to be loaded by _HashableDefault; leaves every other module to the other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _HashableDefault(fullname, spec.origin)
        return spec


# Lava's compiler executes this file again, under another name, when var_model is long there.
if sys.version_info >= (3, 11) and _MODULE not in sys.modules:  # pragma: no cover  as above
    sys.meta_path.insert(0, _VarModelFinder())
