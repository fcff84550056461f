"""Names of layers as a netx file holds them."""

from collections.abc import Iterable
from dataclasses import replace

from nqlava.network import IntegerNetwork

_MOST = 64
_TAIL = 32


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """For every name a different one of 1 to 64 printable ASCII characters, which is the name itself where it can be.

    Other characters are escaped, and the middle of a long name is left out.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        text = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in name)
        short, number = _cut(text, ""), 1
        while short in taken:
            number += 1
            short = _cut(text, f"~{number}")
        taken.add(short)
        found[name] = short
    return found


def _cut(text: str, ending: str) -> str:
    room = _MOST - len(ending)
    return (text if len(text) <= room else f"{text[: room - _TAIL - 2]}..{text[-_TAIL:]}") + ending


def renamed(network: IntegerNetwork) -> IntegerNetwork:
    """The network with ``stored_names``."""
    names = stored_names(layer.name for layer in network.layers)
    layers = tuple(
        replace(
            layer,
            name=names[layer.name],
            connections=tuple(replace(one, source=names.get(one.source, one.source)) for one in layer.connections),
        )
        for layer in network.layers
    )
    return replace(network, layers=layers)
