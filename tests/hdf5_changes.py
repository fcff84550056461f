"""Changes to HDF5 files, for tests of the reader."""

from collections.abc import Callable

import h5py

Change = Callable[[h5py.File], object]


def replace(key: str, value: object) -> Change:
    """Deletes a key, and stores another value there unless it is None."""

    def change(file: h5py.File) -> None:
        del file[key]
        if value is not None:
            file[key] = value

    return change


def attribute(where: str, key: str, value: object) -> Change:
    """Sets an attribute, or deletes it where the value is None."""

    def change(file: h5py.File) -> None:
        if value is None:
            del file[where].attrs[key]
        else:
            file[where].attrs[key] = value

    return change
