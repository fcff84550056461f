"""What the report needs beside the project itself."""

import io
from importlib import import_module

from nqlava.errors import InputError

_PACKAGES = {"matplotlib": "matplotlib", "jinja2": "Jinja2", "scipy": "SciPy"}
_INSTALL = "pip install -e '.[report]' -c constraints.txt"


def require(option: str, target: str = "Lava") -> None:
    """InputError where what the report of ``option`` needs is missing or does not work, which is tried; or the run is
    not in Lava."""
    if target != "Lava":
        raise InputError(f"{option} is about runs in Lava; allowed: without --backend c")
    missing = []
    for module, name in _PACKAGES.items():
        try:
            import_module(module)
        except Exception as error:  # whatever a damaged installation raises
            if not isinstance(error, ModuleNotFoundError) or error.name != module:
                raise InputError(f"{option} needs {name}, which cannot be imported ({error}): {_INSTALL}") from None
            missing.append(name)
    if missing:
        raise InputError(f"{option} needs {', '.join(missing)}, not installed: {_INSTALL}")
    from matplotlib.figure import Figure

    try:
        figure = Figure()
        figure.text(0.5, 0.5, "θ")
        figure.savefig(io.StringIO(), format="svg")
    except Exception as error:
        raise InputError(f"{option} needs matplotlib, which draws no figure here ({error}): {_INSTALL}") from None
