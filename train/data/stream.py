"""Image sets too large for memory: files of any size, listed once and decoded batch by batch in worker processes."""

import hashlib
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from nqlava.command.interruption import SIGNALS
from nqlava.command.orphans import die_with_parent
from train.data.image_set import Augment, Batches, DataError, ImageSet, split_indices
from train.data.views import view

MAX_WORKERS = 256
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class StreamedSet:
    """Image files and labels of one split; of the images nothing is kept in memory.

    A ``for`` loop over the batches that is left by an exception keeps its worker processes until the exception is gone.
    ``with contextlib.closing(data.batches(size)) as batches`` ends them at once.

    Attributes:
        folder: of the split; it holds ``<class>/<image>``.
        paths: (N,) of the images in it, encoded by os.fsencode.
        sizes: int64 (N,), bytes of the files.
        labels: int64 (N,), indices into ``classes``.
        classes: class names in label order.
        size: side of the square images that a network gets, in pixels.
        workers: processes that decode; with 0 this one does. The batches do not depend on it.
        device: where batches go.
    """

    folder: Path
    paths: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    labels: Tensor
    classes: tuple[str, ...]
    size: int
    workers: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as a network gets it."""
        return 3, self.size, self.size

    def subset(self, indices: Tensor) -> "StreamedSet":
        chosen = indices.numpy()
        return replace(self, paths=self.paths[chosen], sizes=self.sizes[chosen], labels=self.labels[indices])

    def digest(self) -> str:
        """SHA-256 over classes, labels, paths within the split, and sizes of files; their content is not read."""
        sha = hashlib.sha256(repr((self.classes, len(self))).encode())
        for part in (self.labels.numpy().tobytes(), self.sizes.tobytes(), b"\0".join(self.paths.tolist())):
            sha.update(part)
        return sha.hexdigest()

    def to(self, device: torch.device) -> "StreamedSet":
        """The same files, whose batches go to the device."""
        return replace(self, device=device)

    def split(self, held_out: int, seed: int) -> tuple["StreamedSet", "StreamedSet"]:
        """(rest, held-out part), a random split decided by the seed."""
        rest, chosen = split_indices(len(self), held_out, seed)
        return self.subset(rest), self.subset(chosen)

    def batches(self, size: int) -> Batches:
        """Images as uint8 (N, C, H, W), channels-last in memory, and labels, in order.

        The shorter side is resized to 256/224 of the images' side, and the middle is cut out.
        """
        return self._decoded(torch.arange(len(self)).split(size), None)

    def training_batches(self, order: Tensor, batch: int, generator: torch.Generator, augment: Augment) -> Batches:
        """Random crops as uint8 (N, C, H, W), channels-last in memory, and labels, in complete batches only.

        Each image is cropped to 8 to 100 % of its area with a ratio of sides of 3/4 to 4/3, resized, and mirrored at
        random (Szegedy et al., CVPR 2015). What is drawn depends on one draw from the generator and the image's index.

        Args:
            order: indices, on the CPU.
            batch: N; what is left of ``order`` at the end is left out.
            generator: a CPU generator.
            augment: not used: it shifts images that all have one size, and here the crop has done that.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        return self._decoded(order.split(batch)[: len(order) // batch], seed)

    def _decoded(self, batches: Sequence[Tensor], seed: int | None) -> Batches:
        self._require_shared_memory(max(map(len, batches), default=0))
        loader = DataLoader(
            _Views(self, seed),
            batch_size=None,
            sampler=(chosen.tolist() for chosen in batches),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # which it draws from; without one from that of the caller's network
            worker_init_fn=partial(_begin_worker, os.getpid()),
        )
        images: Iterator[Tensor | DataError] | None = None
        try:
            images = iter(loader)
            for chosen in batches:
                found = next(images)
                if isinstance(found, DataError):
                    raise found
                yield found.permute(0, 3, 1, 2).to(self.device, non_blocking=True), self.labels[chosen].to(self.device)
        except RuntimeError as error:
            if str(error).startswith("DataLoader worker"):  # which was killed
                line = str(error).splitlines()[0]
                raise DataError(f"data: {line}; allowed: fewer workers, or 0 if {SHARED_MEMORY} is full") from None
            raise
        finally:
            if isinstance(images, _MultiProcessingDataLoaderIter):
                images._shutdown_workers()  # now, and not when the last reference is gone, such as that of a traceback

    def _require_shared_memory(self, batch: int) -> None:
        """DataError where the batches that workers hand over, two from each, do not fit into what is left of it."""
        needed = 2 * self.workers * batch * 3 * self.size**2
        free = shutil.disk_usage(SHARED_MEMORY).free if needed and SHARED_MEMORY.is_dir() else needed
        if free < needed:
            raise DataError(
                f"data: {SHARED_MEMORY}, through which {self.workers} workers pass batches, has {free:,} bytes left; "
                f"allowed: {needed:,}, so fewer workers, or 0, or more of it, as by docker run --shm-size"
            )


def _begin_worker(parent: int, _index: int) -> None:
    """A process that decodes ends with the one that trains; what a terminal sends to all is for that one."""
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    die_with_parent(parent)
    if sys.platform == "linux":
        # The sockets through which batches are handed over then have no file, which would be left of a killed process.
        connection.arbitrary_address = (  # type: ignore[attr-defined]
            lambda _family: f"\0nq-lava-{secrets.token_hex(16)}"
        )


Images = ImageSet | StreamedSet


class _Views(Dataset):
    """Batches by lists of indices: uint8 (N, size, size, 3), or the error that stops them.

    An error is put out, not raised: raised in a worker it would arrive with the worker's traceback in its message.
    """

    def __init__(self, data: StreamedSet, seed: int | None) -> None:
        self._data = data
        self._seed = seed

    def __getitem__(self, indices: list[int]) -> Tensor | DataError:
        size = self._data.size
        out = np.empty((len(indices), size, size, 3), dtype=np.uint8)
        try:
            for place, index in enumerate(indices):
                file = self._data.folder / os.fsdecode(self._data.paths[index])
                random = None if self._seed is None else np.random.default_rng((self._seed, index))
                out[place] = view(file, size, random)
        except DataError as error:
            return error
        return torch.from_numpy(out)
