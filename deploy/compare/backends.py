"""The backends that run a network: which there are here, and their traces. Lava is imported only here."""

import importlib.util
import multiprocessing
import sys
from collections.abc import Generator
from platform import python_version

import numpy as np
from numpy.typing import NDArray

from deploy.compare.settings import Settings
from deploy.errors import LavaMissingError
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace

_INSTALL = "pip install -e '.[lava]' -c constraints.txt"
_SETS_METHOD = "lava.magma.runtime.message_infrastructure.multiprocessing"
if sys.version_info >= (3, 11):
    _INSTALL += "; pip install --no-deps --ignore-requires-python lava-nc==0.10.0"


def traces(
    settings: Settings, network: IntegerNetwork, images: NDArray[np.uint8], *, membranes: int = 0
) -> Generator[Trace, None, None]:
    """Traces of images (N, C, H, W) from the backend; those of the first ``membranes`` hold v(T), if it leaves any.

    Raises:
        InputError: the backend cannot run this network, or there is no C compiler.
        LavaMissingError, Loihi2UnavailableError: something is missing.
        LavaRunError, ProgramError: a process failed, was killed or stalled.
    """
    steps = settings.T
    if settings.backend == "c":
        from nqlava.c import backend

        return backend.run(network, images, steps, processes=settings.cores, membranes=membranes)
    require_lava()
    if settings.backend == "cpu":
        from deploy.lava import build

        cores = settings.cores
        return build.run(network, images, steps, batch=settings.batch, processes=cores, membranes=membranes)
    if settings.backend == "stock":
        from deploy.lava import stock

        return stock.run(network, images, steps)
    from deploy.lava import netx_network

    if settings.backend == "netx":
        return netx_network.run(settings.net, images, steps, membranes=membranes)
    return netx_network.run(settings.net, images, steps, backend=settings.backend)


def _lava_is_installed() -> bool:
    """Whether a module of lava-nc is there; folders alone may be left of a Lava that was uninstalled."""
    try:
        return importlib.util.find_spec("lava.magma.core.process.process") is not None
    except ModuleNotFoundError:
        return False


def require_lava() -> None:
    """Call this before Lava is imported; LavaMissingError where it is not installed.

    Importing Lava sets the start method to fork, and fails where something, such as a progress bar, did before.
    """
    if not _lava_is_installed():
        raise LavaMissingError(f"Lava is not installed: {_INSTALL} (docs/install.md)")
    if _SETS_METHOD not in sys.modules and multiprocessing.get_start_method(allow_none=True) is not None:
        multiprocessing.set_start_method(None, force=True)


def require_lava_dl(option: str, instead: str) -> None:
    """LavaMissingError where lava-dl is not installed, which ``option`` needs; ``instead`` says what does without."""
    if importlib.util.find_spec("lava.lib") is None or importlib.util.find_spec("lava.lib.dl") is None:
        raise LavaMissingError(
            f"{option} needs lava-dl, which is not installed; it needs Python 3.10, and this is {python_version()} "
            f"(docs/install.md); {instead}"
        )
