"""What the writer and the reader of netx files must agree on; docs/format.md documents the layout."""

import math
from collections.abc import Mapping
from pathlib import Path

from export.netx_hdf5 import NetxError

FORMAT = "nq-netx"
VERSION = 1
SPIKING, INTEGRATOR = "IF-soft-reset", "integrator"
"""Values of neuron/type."""

MAX_LAYERS = 1000
_MAX_TEXT = 2**15
KEYS = {
    "input": {"type", "shape"},
    "flatten": {"type"},
    "dense": {"type", "shape", "weight", "bias", "neuron"},
    "conv": {"type", "shape", "weight", "bias", "neuron", "stride", "padding", "dilation", "groups"},
}
NEURON_KEYS = {SPIKING: {"type", "vThMant", "v0"}, INTEGRATOR: {"type", "v0"}}


def require_name(path: Path, name: str) -> None:
    """Raises NetxError where the format cannot hold the name of a layer."""
    if not (1 <= len(name) <= 64 and name.isascii() and name.isprintable()):
        raise NetxError(f"{path}: layer: name is {name[:80]!a}; allowed: 1 to 64 printable ASCII characters")


def require_info(path: Path, info: Mapping[str, str | int | float]) -> None:
    """Raises NetxError where the format cannot hold a key or value of the info."""
    for key, value in info.items():
        if not (1 <= len(key) <= 64 and key.isascii() and key.isprintable()):
            raise NetxError(f"{path}: info: key is {key[:80]!a}; allowed: 1 to 64 printable ASCII characters")
        valid = (
            (isinstance(value, str) and len(value) <= _MAX_TEXT and "\0" not in value)
            or (isinstance(value, int) and -(2**63) <= value < 2**63)
            or (isinstance(value, float) and math.isfinite(value))
        )  # fmt: skip
        if not valid:
            shown = str(value)[:80].encode("unicode_escape").decode()
            raise NetxError(
                f"{path}: info: {key} is {shown} ({type(value).__name__}); "
                f"allowed: a string of at most {_MAX_TEXT} characters, a 64-bit integer or a finite float"
            )
