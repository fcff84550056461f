"""Numbers of a training by epoch, for TensorBoard."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from train.checkpoint import check_writable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class EpochLog:
    """Writes events that ``tensorboard --logdir FOLDER`` draws.

    The first epoch written hides what an earlier training left in the folder for that epoch and later ones, so that a
    resumed training continues its curves and a new one starts them anew.

    Args:
        folder: made where it is not there.

    Raises:
        ValueError: the package tensorboard is not installed, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "--tensorboard needs TensorBoard, which is not installed: pip install -e '.[tensorboard]' "
                "-c constraints.txt"
            )
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--tensorboard is {folder}, a file; allowed: a folder")
        check_writable(folder / "events")
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def __call__(self, epoch: int, numbers: dict[str, float]) -> None:
        """Writes the numbers of an epoch, from 1."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder), purge_step=epoch)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file, if any."""
        if self._writer is not None:
            self._writer.close()
