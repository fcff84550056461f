"""CIFAR-10 and CIFAR-100 as their author distributes them, "python version": the archive, or the folder in it."""

import lzma
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nqlava.command.files import LFS_POINTER, is_lfs_pointer, open_regular
from train.choices import Split
from train.data.image_set import DataError
from train.data.safe_pickle import parsed

TAR = (".tar", ".tar.gz", ".tgz")
MAX_BYTES = 2**28
"""Largest file; the training images of CIFAR-100 take 155 MB."""
_SIDE = 32
_ALLOWED = "allowed: that of CIFAR (python version), a zip archive of images, or a folder"

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]  # images (N, H, W, C), labels, class names


@dataclass(frozen=True)
class _Edition:
    files: dict[Split, tuple[str, ...]]
    meta: str
    labels: str
    names: str


_EDITIONS = (
    _Edition(
        {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        "labels",
        "label_names",
    ),
    _Edition({"train": ("train",), "test": ("test",)}, "meta", "fine_labels", "fine_label_names"),
)


def is_cifar(names: Sequence[str]) -> bool:
    """Whether files of these names are CIFAR-10 or CIFAR-100."""
    return _edition(names) is not None


def _edition(names: Sequence[str]) -> _Edition | None:
    return next((e for e in _EDITIONS if {e.meta, *e.files["train"], *e.files["test"]} <= set(names)), None)


def is_source(path: Path) -> bool:
    """Whether a path is the archive, or a folder of the files."""
    if path.is_dir():
        return is_cifar([entry.name for entry in path.iterdir() if entry.is_file()])
    return path.name.lower().endswith(TAR)


def load(path: Path, split: Split) -> Arrays:
    """Images, labels and class names of a split.

    Raises:
        DataError: not CIFAR, damaged, or a pickle with instructions that CIFAR does not need.
    """
    if path.is_dir():
        return _arrays(path, split, [entry.name for entry in path.iterdir()], lambda name: _content(path / name))
    try:
        with open_regular(path) as file, tarfile.open(fileobj=_checked(file, path)) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}

            def read(name: str) -> bytes:
                if members[name].size > MAX_BYTES:
                    raise DataError(f"data: {path}: {name} is larger than {MAX_BYTES} bytes")
                member = archive.extractfile(members[name])
                return b"" if member is None else member.read()

            return _arrays(path, split, list(members), read)
    except DataError:
        raise
    except tarfile.ReadError:
        raise DataError(f"data: {path} is no tar archive, or a damaged one; {_ALLOWED}") from None
    except (tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise DataError(f"data: {path} is not readable ({error})") from None


def _checked(file: IO[bytes], path: Path) -> IO[bytes]:
    if is_lfs_pointer(file):
        raise DataError(f"data: {path} is {LFS_POINTER}")
    return file


def _content(path: Path) -> bytes:
    try:
        with open_regular(path, MAX_BYTES) as file:
            return _checked(file, path).read()
    except OSError as error:
        raise DataError(f"data: {path} is not readable ({error.strerror})") from None


def _arrays(path: Path, split: Split, names: Sequence[str], read: Callable[[str], bytes]) -> Arrays:
    edition = _edition(names)
    if edition is None:
        raise DataError(f"data: {path} holds no CIFAR (python version); {_ALLOWED}")

    def part(name: str) -> dict[str, Any]:
        try:
            found = parsed(read(name))
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"data: {path}: {name} is not a part of CIFAR: {error}") from None
        if not isinstance(found, dict):
            raise DataError(f"data: {path}: {name} holds {type(found).__name__}; allowed: a dictionary")
        return {_text(key): getattr(value, "values", value) for key, value in found.items()}

    where = f"{path}: {edition.meta}"
    classes = _entry(part(edition.meta), edition.names, list, where)
    images, labels = [], []
    for name in edition.files[split]:
        where, found = f"{path}: {name}", part(name)
        pixels = _entry(found, "data", np.ndarray, where)
        numbers = _entry(found, edition.labels, list, where)
        if pixels.shape != (len(numbers), 3 * _SIDE**2):
            allowed = f"{(len(numbers), 3 * _SIDE**2)} as its labels"
            raise DataError(f"data: {where}: data is of shape {pixels.shape}; allowed: {allowed}")
        if not all(type(number) is int and 0 <= number < len(classes) for number in numbers):
            raise DataError(f"data: {where}: labels; allowed: whole numbers from 0 to {len(classes) - 1}")
        images.append(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        labels += numbers
    if not labels:
        raise DataError(f"data: {path}: no images of {split}")
    return np.concatenate(images), np.array(labels, dtype=np.int64), np.array([_text(name) for name in classes])


def _entry(content: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        raise DataError(f"data: {where}: {key} is {type(value).__name__}; allowed: {kind.__name__}")
    return value


def _text(value: object) -> str:
    """Of a file that Python 2 or Python 3 wrote; "" for what is no text."""
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
