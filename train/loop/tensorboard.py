"""Numbers of a training by epoch, for TensorBoard."""

import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from nqlava.command.files import check_output, reading
from nqlava.errors import FileError, InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class EpochLog:
    """Writes events that ``tensorboard --logdir FOLDER`` draws.

    The first epoch written hides what an earlier training left in the folder for that epoch and later ones, so that a
    resumed training continues its curves and a new one starts them anew.

    Args:
        folder: made where it is not there.

    Raises:
        InputError: the package tensorboard is not installed, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import_module("torch.utils.tensorboard")  # it is used after the first epoch
        except ImportError as error:
            raise InputError(
                f"--tensorboard needs TensorBoard, which cannot be imported ({error}): "
                "pip install -e '.[tensorboard]' -c constraints.txt"
            ) from None
        with reading(folder):
            if folder.exists() and not folder.is_dir():
                raise InputError(f"--tensorboard is {folder}, a file; allowed: a folder")
        check_output(folder / "events")
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def __call__(self, epoch: int, numbers: dict[str, float]) -> None:
        """Writes the numbers of an epoch, from 1. FileError, which names the folder, where they cannot be written."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._writer is None:
                threading.excepthook = _except_file_errors(threading.excepthook)
                self._writer = SummaryWriter(str(self.folder), purge_step=epoch)
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()
        except OSError as error:
            raise FileError(f"{self.folder}: cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        """Ends the file, if any; all epochs are in it already."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()


def _except_file_errors(hook: Callable[[threading.ExceptHookArgs], object]) -> Callable:
    """TensorBoard's thread prints the traceback of a full disk, which its next call raises here as well."""
    return lambda found: None if issubclass(found.exc_type, OSError) else hook(found)
