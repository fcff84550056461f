"""Images as uint8 arrays: from class folders, zip archives of class folders, torchvision, or the embedded sample."""

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path
from torch import Tensor

SAMPLE = Path(__file__).parent / "sample" / "cifar10-sample.zip"
SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp"}
MAX_FILE_BYTES = 64 * 2**20
MAX_SIDE = 4096
MAX_SEED = 2**40

Split = Literal["train", "test"]


class DataError(ValueError):
    """Unusable image data: the message names the place and what is expected."""


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: int64 (N,), indices into ``classes``.
        classes: class names in label order.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "ImageSet":
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def digest(self) -> str:
        """SHA-256 over classes, labels and images."""
        sha = hashlib.sha256(repr((self.classes, tuple(self.images.shape))).encode())
        for values in (self.labels, self.images):
            sha.update(values.cpu().contiguous().numpy())
        return sha.hexdigest()

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as uint8 (N, C, H, W), channels-last in memory, and labels, in order."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size].permute(0, 3, 1, 2), self.labels[start : start + size]

    def split(self, held_out: int, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(rest, held-out part), a random split decided by the seed."""
        if not 1 <= held_out < len(self):
            raise DataError(f"validation: {held_out} images held out; allowed: 1..{len(self) - 1}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[held_out:]), self.subset(order[:held_out])

    def sample(self, count: int, seed: int) -> "ImageSet":
        """``count`` images drawn without replacement, decided by the seed."""
        if not 1 <= count <= len(self):
            raise DataError(f"samples is {count}; allowed: 1..{len(self)}")
        if not 0 <= seed <= MAX_SEED:
            raise DataError(f"seed is {seed}; allowed: 0..{MAX_SEED}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:count])


def load(sources: Sequence[str], split: Split) -> ImageSet:
    """The given split of a data set, decoded once and cached as one uint8 array.

    Args:
        sources: ``["sample"]`` for the images shipped with the project; ``["cifar10"]`` for torchvision's CIFAR-10,
            downloaded where there is a network; otherwise folders or zip archives that hold
            ``<split>/<class>/<image>``, or folders that hold such archives; several are united.
        split: ``"train"`` or ``"test"``.
    """
    if list(sources) == ["cifar10"]:
        return _torchvision_cifar10(split)
    paths = [SAMPLE] if list(sources) == ["sample"] else [p for s in sources for p in _archives(Path(s))]
    cached = _cache_file(paths, split)
    try:
        with cached.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels, classes = arrays["images"], arrays["labels"], arrays["classes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        images, labels, classes = _decode(paths, split)
        _store(cached, images=images, labels=labels, classes=classes)
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), tuple(str(name) for name in classes))


def _archives(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"data: {path} does not exist; allowed: 'sample', 'cifar10', a folder or a zip archive")
    if (path / "train").is_dir() or (path / "test").is_dir():
        return [path]
    archives = sorted(path.glob("*.zip"))
    if not archives:
        raise DataError(f"data: {path} holds neither train/ or test/ folders nor zip archives")
    return archives


def _cache_file(paths: Sequence[Path], split: Split) -> Path:
    key = hashlib.sha256(split.encode())
    for path in paths:
        files = [path] if path.is_file() else sorted((path / split).rglob("*"))
        for file in files:
            status = file.stat()
            key.update(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return user_cache_path("nq-lava") / f"{split}-{key.hexdigest()[:24]}.npz"


def _store(path: Path, **arrays: NDArray) -> None:
    """Write the cache atomically; a cache that cannot be written is only slower."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)


def _decode(paths: Sequence[Path], split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]:
    with ThreadPoolExecutor() as pool:
        found = [entry for path in paths for entry in pool.map(_image, _files(path, split))]
    if not found:
        raise DataError(f"data: no {split}/<class>/<image> in {', '.join(map(str, paths))}")
    found.sort(key=lambda entry: entry[:2])
    classes = sorted({name for name, _, _ in found})
    shape = found[0][2].shape
    for name, file, image in found:
        if image.shape != shape:
            raise DataError(f"data: {split}/{name}/{file} is {image.shape[:2]}; allowed: {shape[:2]} as the others")
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[name] for name, _, _ in found], dtype=np.int64)
    return np.stack([image for _, _, image in found]), labels, np.array(classes)


def _files(path: Path, split: Split) -> Iterator[tuple[str, bytes]]:
    """(member name, content) of every image of the split, read in memory; nothing is unpacked to disk."""
    try:
        if path.is_dir():
            for file in sorted((path / split).glob("*/*")):
                if file.suffix.lower() in SUFFIXES:
                    yield file.relative_to(path).as_posix(), file.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename)
                if len(name.parts) == 3 and name.parts[0] == split and name.suffix.lower() in SUFFIXES:
                    if entry.file_size > MAX_FILE_BYTES:
                        raise DataError(f"data: {path}: {name} is larger than {MAX_FILE_BYTES} bytes")
                    yield entry.filename, archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError) as error:  # RuntimeError: encrypted or unsupported
        raise DataError(f"data: {path} is not readable ({error})") from None


def _image(file: tuple[str, bytes]) -> tuple[str, str, NDArray[np.uint8]]:
    """(class, file name, RGB uint8 (H, W, 3)) of one image."""
    member, data = file
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > MAX_SIDE:
                raise DataError(f"data: {member} is {image.size}; allowed: sides up to {MAX_SIDE}")
            pixels = np.asarray(image.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError, struct.error, ... on damaged images
        raise DataError(f"data: {member} is not a readable image ({error})") from None
    _, name, file_name = PurePosixPath(member).parts
    return name, file_name, pixels


def _torchvision_cifar10(split: Split) -> ImageSet:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(str(user_cache_path("nq-lava")), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"data: CIFAR-10 could not be downloaded ({error}); give a folder or archives instead"
        ) from None
    return ImageSet(torch.from_numpy(data.data), torch.tensor(data.targets), tuple(data.classes))
