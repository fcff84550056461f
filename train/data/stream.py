"""Image sets too large for memory: files of any size, listed once and decoded batch by batch in worker processes."""

import hashlib
import math
import os
import secrets
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from nqlava.command.interruption import SIGNALS
from nqlava.command.orphans import die_with_parent
from train.choices import MAX_SIDE, Split
from train.data.images import (
    FOLDERS,
    SUFFIXES,
    Augment,
    Batches,
    DataError,
    ImageSet,
    check_classes,
    decoding,
    opened_image,
    split_indices,
)

MAX_WORKERS = 256
MAX_PIXELS = 2**26
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]


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
                raise DataError(f"data: {str(error).splitlines()[0]}; allowed: fewer workers, or 0") from None
            raise
        finally:
            if isinstance(images, _MultiProcessingDataLoaderIter):
                images._shutdown_workers()  # now, and not when the last reference is gone, such as that of a traceback


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


def open_tree(path: Path | str, split: Split, size: int = 224, *, workers: int = 4) -> StreamedSet:
    """The given split of ``<path>/train/<class>/<image>`` and ``<path>/val/<class>/<image>``.

    Args:
        path: folder of the splits.
        split: ``"train"``, or ``"test"`` for the first of the folders test, val and validation that holds folders.
        size: side of the square images that a network gets, in pixels.
        workers: processes that decode; with 0 this one does.

    Raises:
        DataError: no such tree, a class without images or that only one of the splits has, size or workers not allowed.
    """
    for name, value, low, high in (("size", size, 1, MAX_SIDE), ("workers", workers, 0, MAX_WORKERS)):
        if not low <= value <= high:
            raise DataError(f"{name} is {value}; allowed: {low}..{high}")
    try:
        folders = {key: _split_folder(Path(path), key) for key in FOLDERS}
        folder, classes = folders[split]
        if not classes:
            raise DataError(f"data: {path} holds no {' or '.join(f'{top}/<class>/' for top in FOLDERS[split])}")
        if all(names for _, names in folders.values()):
            check_classes(folders["train"][1], folders["test"][1], str(path))
        paths, sizes, counts = [], [], []
        for name in classes:
            with os.scandir(folder / name) as entries:
                images = [entry for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
            if not images:
                raise DataError(f"data: {folder / name} holds no images; allowed: {', '.join(sorted(SUFFIXES))}")
            images.sort(key=lambda entry: entry.name)
            paths += [os.fsencode(f"{name}/{entry.name}") for entry in images]
            sizes += [entry.stat().st_size for entry in images]
            counts.append(len(images))
    except OSError as error:
        raise DataError(f"data: {path} is not readable ({error})") from None
    return StreamedSet(
        folder=folder,
        paths=np.array(paths),
        sizes=np.array(sizes, dtype=np.int64),
        labels=torch.arange(len(classes)).repeat_interleave(torch.tensor(counts)),
        classes=tuple(classes),
        size=size,
        workers=workers,
        device=torch.device("cpu"),
    )


def _split_folder(path: Path, split: Split) -> tuple[Path, list[str]]:
    """(folder, sorted class names) of a split; no names where it is not there."""
    for top in FOLDERS[split]:
        if (path / top).is_dir():
            with os.scandir(path / top) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
            if names:
                return path / top, names
    return path, []


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
                out[place] = _view(file, size, random)
        except DataError as error:
            return error
        return torch.from_numpy(out)


def _view(file: Path, size: int, random: np.random.Generator | None) -> NDArray[np.uint8]:
    """RGB uint8 (size, size, 3): the middle of an image, or, given a generator, a random crop of it, maybe mirrored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of EXIF data that is not used
        with opened_image(file, str(file)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"data: {file} is {image.size}; allowed: up to {MAX_PIXELS} pixels")
            left, top, right, bottom = _middle(width, height, size) if random is None else _crop(width, height, random)
            # A JPEG decodes at 1/2, 1/4 or 1/8 of its size where that leaves the box no smaller than what comes out.
            least = (math.ceil(width * size / (right - left)), math.ceil(height * size / (bottom - top)))
            with decoding(str(file)):
                drafted = image.draft(None, least)
                scale = drafted[1][2] / width if drafted else 1.0
                box = (left * scale, top * scale, right * scale, bottom * scale)
                view = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    if random is not None and random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def _middle(width: int, height: int, size: int) -> Box:
    """Left, top, right, bottom of what a resize of the shorter side to 256/224 of ``size`` and a central crop leave.

    The numbers are those of torchvision's Resize and CenterCrop.
    """
    shorter = round(size * 256 / 224)
    resized = [int(shorter * side / min(width, height)) for side in (width, height)]
    left, top = (round((side - size) / 2) for side in resized)
    return (
        left * width / resized[0],
        top * height / resized[1],
        (left + size) * width / resized[0],
        (top + size) * height / resized[1],
    )


def _crop(width: int, height: int, random: np.random.Generator) -> Box:
    """Left, top, right, bottom of a random part, drawn as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = width * height * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(random.integers(width - wide, endpoint=True))
            top = int(random.integers(height - high, endpoint=True))
            return left, top, left + wide, top + high
    wide, high = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high
