"""NumPy files: inputs that nobody vouches for, and outputs."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from train.files import replacing, write_npz

_ZIP = b"PK\3\4"


def load_array(path: Path) -> NDArray:
    """The array in a .npy file, or the only one in a .npz file; nothing is unpickled.

    Raises:
        ValueError: something else is in the file.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            if not is_zip:
                return np.load(path, mmap_mode="r", allow_pickle=False)  # maps no more than there is
            with np.load(file, allow_pickle=False) as arrays:
                names = arrays.files
                array = arrays[names[0]] if len(names) == 1 else None
        if isinstance(array, np.ndarray):
            return array
        if array is not None:
            raise ValueError
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; allowed: a .npy file, or a .npz file with one array") from None
    except (ValueError, EOFError, BadZipFile, MemoryError, NotImplementedError):
        raise ValueError(
            f"{path}: not an array of numbers in NumPy's format, or damaged; allowed: a .npy file, or a .npz file with "
            "one array"
        ) from None
    raise ValueError(f"{path}: arrays are {', '.join(names[:20]) or 'none'}; allowed: one array")


def whole_numbers(path: Path, values: NDArray) -> NDArray[np.integer]:
    """``values`` as integers; ValueError naming ``path`` where they are none."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f":
        raise ValueError(f"{path}: values are of type {values.dtype}; allowed: numbers")
    bad = ~(np.abs(values) < 2**31) | (values != np.floor(values))
    if bad.any():
        raise ValueError(f"{path}: a value is {values[bad].flat[0]:.6g}; allowed: whole numbers of at most 32 bits")
    return values.astype(np.int32)


def write_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Writes a compressed .npz file all at once; equal arrays give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as file:
        write_npz(file, arrays, compressed=True)
