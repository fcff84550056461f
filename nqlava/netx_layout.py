"""What the writer and the reader of netx files must agree on; docs/format.md documents the layout."""

import math
from collections.abc import Mapping
from pathlib import Path

from nqlava.errors import shown
from nqlava.hdf5 import NetxError
from nqlava.network import IntegerNetwork, Layer

FORMAT = "nq-netx"
VERSIONS = (1, 2)
SPIKING, HARD_RESET, INTEGRATOR = "IF-soft-reset", "IF-hard-reset", "integrator"
"""Values of neuron/type."""

MAX_LAYERS = 1000
MAX_CONNECTIONS = 64
"""Per layer."""
_MAX_TEXT = 2**15

_GEOMETRY = {"stride", "padding", "dilation", "groups"}
_DENSE = {"type", "shape", "weight", "bias", "neuron"}
LAYER_KEYS: dict[int, dict[str, set[str]]] = {
    1: {"input": {"type", "shape"}, "flatten": {"type"}, "dense": _DENSE, "conv": _DENSE | _GEOMETRY},
    2: {"input": {"type", "shape"}, "neurons": {"type", "shape", "bias", "neuron", "connection"}},
}
"""Keys of a layer by version and type."""
_SYNAPSES = {"type", "source", "weight", "exponent"}
CONNECTION_KEYS = {"dense": _SYNAPSES, "conv": _SYNAPSES | _GEOMETRY}
"""Keys of a connection of version 2 by type."""
_SOFT = {SPIKING: {"type", "vThMant", "v0"}, INTEGRATOR: {"type", "v0"}}
NEURON_KEYS: dict[int, dict[str, set[str]]] = {1: _SOFT, 2: _SOFT | {HARD_RESET: {"type", "vThMant", "v0"}}}
"""Keys of neuron by version and type."""


def version_of(network: IntegerNetwork) -> int:
    """The version of the file that holds this network: 1 where every layer follows the one before it, all exponents are
    0 and all resets soft, which lava-dl's layout can express; 2 otherwise."""
    plain = all(
        layer.reset == "soft" and all(connection.exponent == 0 for connection in layer.connections)
        for layer in network.layers
    )
    return 1 if network.is_sequence and plain else 2


def neuron_type(layer: Layer) -> str:
    """Value of neuron/type for a layer."""
    if layer.is_readout:
        return INTEGRATOR
    return SPIKING if layer.reset == "soft" else HARD_RESET


def require_name(path: Path, name: str) -> None:
    """Raises NetxError where the format cannot hold the name of a layer."""
    if not (1 <= len(name) <= 64 and name.isascii() and name.isprintable()):
        raise NetxError(f"{path}: layer: name is {name[:80]!a}; allowed: 1 to 64 printable ASCII characters")


def _length(value: str) -> int:
    return len(value.encode("utf-8", "replace"))


def require_info(path: Path, info: Mapping[str, str | int | float]) -> None:
    """Raises NetxError where the format cannot hold a key or value of the info."""
    for key, value in info.items():
        if not (1 <= len(key) <= 64 and key.isascii() and key.isprintable()):
            raise NetxError(f"{path}: info: key is {key[:80]!a}; allowed: 1 to 64 printable ASCII characters")
        valid = (
            (isinstance(value, str) and _length(value) <= _MAX_TEXT and "\0" not in value)
            or (isinstance(value, int) and -(2**63) <= value < 2**63)
            or (isinstance(value, float) and math.isfinite(value))
        )  # fmt: skip
        if not valid:
            raise NetxError(
                f"{path}: info: {key} is {shown(value)} ({type(value).__name__}); "
                f"allowed: a string of at most {_MAX_TEXT} bytes in UTF-8, a 64-bit integer or a finite float"
            )
