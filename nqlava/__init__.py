"""The integer spiking network: its file, its exact engine, and the reference that judges them.

    import nqlava

    network = nqlava.read("net.h5")
    engine = nqlava.Engine(network)
    nqlava.write(network, "copy.h5")

Names are imported when they are used: reading and checking a file needs NumPy and h5py alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nqlava.engine.integer import Engine as Engine
    from nqlava.errors import InputError as InputError
    from nqlava.network import IntegerNetwork as IntegerNetwork
    from nqlava.netx import read as read
    from nqlava.netx import write as write

_WHERE = {
    "Engine": "nqlava.engine.integer",
    "InputError": "nqlava.errors",
    "IntegerNetwork": "nqlava.network",
    "read": "nqlava.netx",
    "write": "nqlava.netx",
}
__all__ = ["Engine", "InputError", "IntegerNetwork", "read", "write"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
