"""Folders and zip archives as names of files and what reads one; nothing is unpacked to disk."""

import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from nqlava.command.files import LFS_POINTER, is_lfs_pointer, open_regular
from train.data.cifar_python import TAR, is_cifar
from train.data.image_set import DataError
from train.data.layout import TOPS, is_litter, some

MAX_FILE_BYTES = 64 * 2**20
MAX_DEPTH = 8
_ALLOWED = "allowed: a folder or zip archive with train/<class>/<image> and test/<class>/<image>"

# What zipfile raises on damaged archives, RuntimeError on encrypted ones, ValueError on names.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


class Source(Protocol):
    """A folder or an archive.

    Attributes:
        path: of it.
        names: of its files, with slashes, and of its folders, which end with one.
        shown: what is in it, for messages.
    """

    path: Path
    names: list[str]
    shown: str

    def read(self, name: str) -> bytes:
        """The content of a file. DataError where it cannot be read or is larger than MAX_FILE_BYTES."""


class Folder:
    """A folder with folders of splits; links are followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with checked(path):
            folders, files = visible(path)
            tops = [name for name in folders if name.casefold() in TOPS]
            self.names = [name for top in tops for name in _below(str(path / top), top, ())]
        self.shown = some([f"{name}/" for name in folders] + files) or "nothing"

    def read(self, name: str) -> bytes:
        path = self.path / name
        try:
            with open_regular(path, MAX_FILE_BYTES) as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise DataError(f"data: {path} is not readable ({error.strerror})") from None


class Archive:
    """A zip archive, open while a ``with`` block runs; names may have either kind of slash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with checked(path):
            self._file = zipfile.ZipFile(path)
            self._entries = {_name(entry): entry for entry in self._file.infolist()}
        self.names = list(self._entries)
        self.shown = some(sorted({name.partition("/")[0] + "/" * ("/" in name) for name in self.names})) or "nothing"

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        if entry.file_size > MAX_FILE_BYTES:
            raise DataError(f"data: {self.path}: {name} is larger than {MAX_FILE_BYTES} bytes")
        with checked(self.path):
            return self._file.read(entry)

    def close(self) -> None:
        self._file.close()


def _name(entry: zipfile.ZipInfo) -> str:
    """With slashes, and read as UTF-8 where an archiver wrote that without saying so, as those of macOS do."""
    name = entry.filename.replace("\\", "/")
    if not entry.flag_bits & 0x800:
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return name


def _below(folder: str, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Names of what is in a folder, in order; a folder that a link leads back to is passed over."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above or len(above) == MAX_DEPTH:
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield f"{name}/{entry.name}/"
                yield from _below(entry.path, f"{name}/{entry.name}", (*above, here))
            else:
                yield f"{name}/{entry.name}"


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The folder or zip archive ``path``."""
    with ExitStack() as stack:
        with checked(path):
            is_folder = path.is_dir()
        if is_folder:
            yield Folder(path)
            return
        with checked(path), open_regular(path) as file:
            if is_lfs_pointer(file):
                raise DataError(f"data: {path} is {LFS_POINTER}")
            if not zipfile.is_zipfile(file):
                raise DataError(f"data: {path} is no zip archive, or a damaged one; {_ALLOWED}")
        archive = Archive(path)
        stack.callback(archive.close)
        yield archive


@contextmanager
def checked(path: Path) -> Iterator[None]:
    """DataError for what the system or zipfile raises while it reads the folder or archive ``path``."""
    try:
        yield
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(f"data: {path} is not readable ({str(error) or type(error).__name__})") from None


def named(path: Path) -> list[Path]:
    """The data sets that a path names: itself or, in a folder, archives or the one folder around everything.

    Raises:
        DataError: there is none.
    """
    with checked(path):
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise DataError(f"data: {path} does not exist; {_ALLOWED}; or 'sample', 'cifar10' or 'cifar100' alone")
        folders, files = visible(path)
    if any(folder.casefold() in TOPS for folder in folders) or is_cifar(files):
        return [path]
    archives = [path / file for file in files if file.lower().endswith((".zip", *TAR))]
    if archives:
        return archives
    if len(folders) == 1:
        return named(path / folders[0])
    raise DataError(f"data: {path} holds {some(folders + files) or 'nothing'}; {_ALLOWED}, or such archives")


def visible(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, without what is hidden."""
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries if not is_litter(entry.name))
    return [name for name, is_dir in found if is_dir], [name for name, is_dir in found if not is_dir]
