"""The ends of a network on a chip: Lava's adapters between Python processes and neurons on Loihi 2.

They are in ``lava.proc.embedded_io``, a part of Intel's extension that lava-nc does not contain. What is used of it is
what lava-nc's own lava.networks.gradedvecnetwork uses: the names PyToNxAdapter and NxToPyAdapter, their arguments, and
their ports inp and out. This was never run on a chip (docs/loihi.md).
"""

from types import ModuleType

import deploy.lava.compatibility  # noqa: F401 — before Lava

from lava.magma.core.process.ports.ports import OutPort

from deploy.errors import Loihi2UnavailableError


def to_chip(port: OutPort, message_bits: int) -> OutPort:
    """The port on the chip that sends what a Python process sends from ``port``.

    Args:
        port: of the Python process.
        message_bits: of a message; 0 for spikes.

    Raises:
        Loihi2UnavailableError: there are no adapters.
    """
    adapter = _adapters().PyToNxAdapter(shape=port.shape, num_message_bits=message_bits)
    port.connect(adapter.inp)
    return adapter.out


def from_chip(port: OutPort, message_bits: int) -> OutPort:
    """The port for Python processes that sends what neurons on the chip send from ``port``; see ``to_chip``."""
    adapter = _adapters().NxToPyAdapter(shape=port.shape, num_message_bits=message_bits)
    port.connect(adapter.inp)
    return adapter.out


def _adapters() -> ModuleType:
    try:
        from lava.proc import embedded_io
    except ImportError:
        raise Loihi2UnavailableError(
            "Loihi 2 needs the adapters of lava.proc.embedded_io, a part of Intel's Loihi extension of Lava that is "
            "not installed; use backend cpu"
        ) from None
    return embedded_io.spike
