"""Files that the commands write: complete, or as they were."""

import errno
import os
import secrets
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nqlava.errors import FileError, InputError, MissingFileError

LFS_POINTER = "a pointer of Git LFS, not the file itself; git lfs pull fetches it"
_LFS = b"version https://git-lfs"


def is_lfs_pointer(file: IO[bytes]) -> bool:
    """Whether a file at its beginning, where it is left, is a pointer of Git LFS; the message says LFS_POINTER."""
    start = file.read(len(_LFS))
    file.seek(0)
    return start == _LFS


def open_regular(path: Path, limit: int | None = None) -> IO[bytes]:
    """A file to read.

    Raises:
        OSError: there is none; a folder, or a pipe or device, on which reading could wait or go on for ever; one longer
            than ``limit`` bytes. Without the name of the file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    found = os.fstat(handle)
    wrong = "not a regular file" if not stat.S_ISREG(found.st_mode) else ""
    if stat.S_ISDIR(found.st_mode):
        wrong = os.strerror(errno.EISDIR)
    if limit is not None and found.st_size > limit:
        wrong = f"{found.st_size} bytes; allowed: {limit}"
    if wrong:
        os.close(handle)
        raise OSError(errno.EINVAL, wrong)
    return os.fdopen(handle, "rb")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While it is active, the system's errors are about ``path``, which the user named.

    Raises:
        MissingFileError, FileError: in place of FileNotFoundError and any other OSError; the message names ``path``.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_output(path: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Checks before the work that a file can be written after it.

    Raises:
        FileError: ``path`` cannot be written, or is one of the inputs.
    """
    try:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir() or not path.name:
            raise IsADirectoryError
        path.resolve()
        found = path.exists()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        raise FileError(f"{path} cannot be written; choose a file in a folder that you can write to") from None
    for other in inputs:
        if other is not None and found:
            with reading(other):
                same = other.exists() and path.samefile(other)
            if same:
                raise FileError(f"{path} is also an input; choose another output")


def check_folder(path: Path) -> None:
    """FileError where the folder of a file to write does not exist."""
    with reading(path.parent):
        found = path.absolute().parent.is_dir()
    if not found:
        raise FileError(f"{path.parent}: no such folder")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which at the end replaces ``path``, in a new folder where that names one.

    It is flushed to disk first, and a failure leaves what was there. Until then it has no name, where the file system
    can do that, so that nothing is left of it when the process is killed. A link stays, and the file that it names is
    replaced; a device or a pipe is written to. A new file has the mode that the umask leaves, another keeps its own.

    Raises:
        FileError: the file cannot be written; the message names it.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with _replacing(path.resolve()) as file:
                yield file
    except (InputError, BrokenPipeError):
        raise
    except RuntimeError as error:
        if "Symlink loop" not in str(error):
            raise
        raise FileError(f"{path}: cannot be written: a loop of links") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False) -> None:
    """Writes an .npz file; equal arrays give equal bytes.

    As np.savez, which leaves an archive behind where the disk is full, whose destructor complains.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    temporary = target.with_name(f".{target.name[:60]}.{secrets.token_hex(4)}.tmp")
    try:
        handle = _open_unnamed(target.parent)
        unnamed = handle is not None
        with os.fdopen(_open_named(temporary) if handle is None else handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            if unnamed:
                _name(file.fileno(), temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_named(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _open_unnamed(folder: Path) -> int | None:
    """A file without a name, None where the system or the file system of the folder has none."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):
        return None


def _name(handle: int, path: Path) -> None:
    """Gives the file a name; only with a folder's descriptor does os.link follow the link in /proc."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _umask() -> int:
    """The umask of this process. The system gives it only to those who set it."""
    found = os.umask(0o022)
    os.umask(found)
    return found
