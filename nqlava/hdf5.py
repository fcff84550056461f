"""Bounds-checked reading of untrusted HDF5 files."""

import math
import os
from pathlib import Path
from typing import NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from nqlava import hdf5_strings
from nqlava.command.files import LFS_POINTER, is_lfs_pointer, reading
from nqlava.errors import InputError, shown

MAX_SIZE = 2**28
"""Largest number of values in one array: 16 times the largest layer of VGG-16."""
MAX_BYTES = 2**30
"""Largest size of everything read from one file: 32 times VGG-16."""

MAX_CHUNKS = 2**16
"""Largest number of chunks of one array; HDF5 takes 4 KiB for each that it reads, also for one that is not there."""


class NetxError(InputError):
    """A file that does not hold a valid network: one line naming file, layer, key, value and what is allowed."""


def existing(path: str | os.PathLike[str]) -> Path:
    """The path of a file.

    Raises:
        MissingFileError: there is nothing. FileError: a folder on the way cannot be read.
        NetxError: there is a folder or the like, or a pointer of Git LFS.
    """
    where = Path(path)
    with reading(where):
        if not where.exists():
            raise FileNotFoundError
        if not where.is_file():
            raise NetxError(f"{where}: not a file")
        with where.open("rb") as file:
            if is_lfs_pointer(file):
                raise NetxError(f"{where}: {LFS_POINTER}")
    return where


class CheckedFile:
    """What the methods return has been checked; they raise NetxError. ``where`` names the place in messages.

    Attributes:
        value_bytes: that a value takes at least once it is read.
    """

    value_bytes = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = 0
        self._strings_tried = False

    def fail(self, where: str, key: str, value: object, allowed: str) -> NoReturn:
        raise NetxError(f"{self.path}: {where}: {key} is {shown(value, 2000)}; allowed: {allowed}")

    def keys(self, where: str, found: set[str], expected: set[str], what: str) -> None:
        """Refuses unknown and missing keys."""
        if found != expected:
            names = sorted(str(key)[:80] for key in found)  # h5py gives bytes where a name is not UTF-8
            shown = f"{{{', '.join(names[:20])}}}"
            self.fail(where, what, shown, f"{{{', '.join(sorted(expected))}}}")

    def attribute(self, where: str, holder: h5py.Group, key: str) -> object:
        """The value of an attribute, a number or text; None where there is none.

        Strings of fixed length are bytes, others are str.
        """
        if key not in holder.attrs:
            return None
        found = holder.attrs.get_id(key)
        variable = h5py.check_string_dtype(found.dtype)
        if found.shape != () or not (found.dtype.kind in "Sbiuf" or variable):
            self.fail(where, key, f"{found.dtype} of shape {found.shape}", "a number or a string")
        if hdf5_strings.is_variable(found.dtype):
            self.try_strings()
        return holder.attrs[key]

    def try_strings(self) -> None:
        """Comes before a string of variable length is read; NetxError where that would end this process."""
        if not self._strings_tried and not hdf5_strings.readable(self.path):
            raise NetxError(f"{self.path}: strings of variable length are damaged, or too many or too long")
        self._strings_tried = True

    def group(self, where: str, parent: h5py.Group, key: str) -> h5py.Group:
        """A group stored in this file."""
        self._hard_link(where, parent, key)
        if parent.get(key, getclass=True) is not h5py.Group:
            self.fail(where, key, "not a group", "a group")
        return parent[key]

    def numbered(self, where: str, parent: h5py.Group, key: str, what: str, least: int, most: int) -> list[h5py.Group]:
        """The groups 0, 1, … of a group that holds nothing else; their number is that of ``what``."""
        parent = self.group(where, parent, key)
        if not least <= len(parent) <= most:
            self.fail(where, f"number of {what}", len(parent), f"{least}..{most}")
        self.keys(where, set(parent.attrs), set(), f"attributes of {key}")
        names = [str(index) for index in range(len(parent))]
        self.keys(where, set(parent), set(names), f"keys of {key}")
        return [self.group(f"{where}, {key}", parent, name) for name in names]

    def array(self, where: str, parent: h5py.Group, key: str, dtype: type, *shapes: str) -> NDArray[np.generic]:
        """A dataset of exactly this type and of one of these shapes; a letter stands for any size of at least 1."""
        dataset = self._dataset(where, parent, key)
        if dataset.dtype.newbyteorder("=") != np.dtype(dtype):
            self.fail(where, key, f"of type {dataset.dtype}", np.dtype(dtype).name)
        for shape in shapes:
            sizes = [size for size in shape.split(", ") if size]
            if len(sizes) == dataset.ndim and all(
                (int(want) == got) if want.isdigit() else got >= 1
                for want, got in zip(sizes, dataset.shape, strict=True)
            ):
                values: NDArray[np.generic] = dataset[()].astype(dtype, copy=False)
                return values
        allowed = " or ".join(f"({shape})" for shape in shapes)
        self.fail(where, key, f"of shape {dataset.shape}", f"{allowed}, every size at least 1")

    def integer(self, where: str, group: h5py.Group, key: str) -> int:
        """An int64 scalar."""
        return int(self.array(where, group, key, np.int64, "")[()])

    def sizes(self, where: str, group: h5py.Group, key: str, length: int) -> tuple[int, ...]:
        """``length`` int64 values, which may be the shape of an array."""
        values = tuple(int(n) for n in self.array(where, group, key, np.int64, str(length)))
        if not all(0 <= n <= MAX_SIZE for n in values) or math.prod(values) > MAX_SIZE:
            self.fail(where, key, values, f"{length} integers 0..{MAX_SIZE} whose product is at most {MAX_SIZE}")
        return values

    def text(self, where: str, group: h5py.Group, key: str, allowed: set[str]) -> str:
        """A scalar string, one of those allowed."""
        dataset = self._dataset(where, group, key)
        value = None
        if dataset.shape == () and self.is_text(dataset):
            value = bytes(dataset[()]).decode("ascii", "replace")
        if value not in allowed:
            found = f"of type {dataset.dtype}" if value is None else value[:80]
            self.fail(where, key, found, ", ".join(sorted(allowed)))
        return str(value)

    def is_text(self, dataset: h5py.Dataset) -> bool:
        """Whether it holds strings, which can then be read."""
        if hdf5_strings.is_variable(dataset.dtype):
            self.try_strings()
        return dataset.dtype.kind == "S" or h5py.check_string_dtype(dataset.dtype) is not None

    def _hard_link(self, where: str, parent: h5py.Group, key: str) -> None:
        if key not in parent:
            self.fail(where, key, "missing", "present")
        link = parent.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            self.fail(where, key, f"a {type(link).__name__}", "stored in this file")

    def _dataset(self, where: str, parent: h5py.Group, key: str) -> h5py.Dataset:
        self._hard_link(where, parent, key)
        if parent.get(key, getclass=True) is not h5py.Dataset:
            self.fail(where, key, "not a dataset", "a dataset")
        dataset = parent[key]
        if dataset.external or dataset.is_virtual:
            self.fail(where, key, "stored elsewhere", "stored in this file")
        if dataset.shape is None or dataset.size > MAX_SIZE:
            self.fail(where, key, f"of shape {dataset.shape}", f"at most {MAX_SIZE} values")
        if dataset.chunks:
            chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
            if chunks > MAX_CHUNKS:
                self.fail(where, key, f"in {chunks} chunks", f"at most {MAX_CHUNKS}")
        stored = math.prod(dataset.chunks or dataset.shape) * dataset.dtype.itemsize  # a chunk can exceed the array
        self._bytes += max(dataset.nbytes, stored, dataset.size * self.value_bytes)
        if self._bytes > MAX_BYTES:
            self.fail(
                "file", f"size of the values up to {where}: {key}", f"{self._bytes} bytes", f"at most {MAX_BYTES}"
            )
        return dataset
