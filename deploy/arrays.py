"""NumPy files: inputs from anywhere, which are checked, and outputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nqlava.command.files import LFS_POINTER, is_lfs_pointer, open_regular, reading, replacing, write_npz
from nqlava.errors import InputError, MissingFileError

MAX_BYTES = 2**32
"""Largest size of what is unpacked from a .npz file; .npy files are mapped, not read."""
_ZIP = b"PK\3\4"


def load_array(path: Path) -> NDArray:
    """The array in a .npy file, or the only one in a .npz file; nothing is unpickled.

    Raises:
        InputError: something else is in the file.
        MissingFileError, FileError: there is no such file, or a folder on the way cannot be read.
    """
    with reading(path):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; allowed: a .npy file, or a .npz file with one array")
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; allowed: a .npy file, or a .npz file with one array") from None
    with file:
        if is_lfs_pointer(file):
            raise InputError(f"{path}: {LFS_POINTER}")
        try:
            return _load(path, file)
        except InputError:
            raise
        except Exception:  # NumPy and zipfile raise all kinds on damaged files
            raise InputError(
                f"{path}: not an array of numbers in NumPy's format, or damaged; allowed: a .npy file, or a .npz file "
                "with one array"
            ) from None


def _load(path: Path, file: IO[bytes]) -> NDArray:
    is_zip = file.read(len(_ZIP)) == _ZIP
    file.seek(0)
    if not is_zip:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # maps no more than there is
    with np.load(file, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise InputError(f"{path}: arrays are {', '.join(arrays.files[:20]) or 'none'}; allowed: one array")
        (member,) = arrays.zip.infolist()
        if member.file_size > MAX_BYTES:
            raise InputError(f"{path}: {member.file_size} bytes when unpacked; allowed: {MAX_BYTES}, or a .npy file")
        array = arrays[arrays.files[0]]
    if not isinstance(array, np.ndarray):
        raise TypeError
    return array


def whole_numbers(path: Path, values: NDArray) -> NDArray[np.integer]:
    """``values`` as integers; InputError naming ``path`` where they are none."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f":
        raise InputError(f"{path}: values are of type {values.dtype}; allowed: numbers")
    bad = ~(np.abs(values) < 2**31) | (values != np.floor(values))
    if bad.any():
        raise InputError(f"{path}: a value is {values[bad].flat[0]:.6g}; allowed: whole numbers of at most 32 bits")
    return values.astype(np.int32)


def write_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Writes a compressed .npz file all at once; equal arrays give equal bytes.

    Raises:
        FileError: the file cannot be written.
    """
    with replacing(path) as file:
        write_npz(file, arrays, compressed=True)
