"""What the report needs beside the project itself."""

from importlib.util import find_spec

from nqlava.errors import InputError

_PACKAGES = {"matplotlib": "matplotlib", "jinja2": "Jinja2", "scipy": "SciPy"}


def require(option: str, target: str = "Lava") -> None:
    """InputError where a package is missing that the report of ``option`` needs, or the run is not in Lava."""
    if target != "Lava":
        raise InputError(f"{option} is about runs in Lava; allowed: without --backend c")
    missing = [name for module, name in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise InputError(
            f"{option} needs {', '.join(missing)}, not installed: pip install -e '.[report]' -c constraints.txt"
        )
