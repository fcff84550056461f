"""Decoded images, kept in the user's cache folder under a key of all that they were made from."""

import hashlib
import sys
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from platformdirs import user_cache_path

from nqlava.command.files import open_regular, replacing, write_npz
from nqlava.errors import InputError, shown

VERSION = 2
"""Of the meaning of the pixels: to be raised when an image is decoded to other values than before."""


def folder() -> Path | None:
    """The user's cache folder; None where the user has no home, which is said once."""
    try:
        return user_cache_path("nq-lava")
    except RuntimeError as error:  # neither HOME nor an entry in the list of users
        _say(f"data: decoded images are not cached ({error}); set XDG_CACHE_HOME to a folder")
        return None


@lru_cache
def _say(text: str) -> None:
    print(shown(text, 500), file=sys.stderr)


def key(what: Iterable[bytes], files: Iterable[Path]) -> str:
    """SHA-256, as text, over the version of the decoder, ``what`` and the content of files.

    Content, not times of change: those of a copy, or behind a link, may be equal where the content is not.

    Raises:
        OSError: a file cannot be read; with its name.
    """
    sha = hashlib.sha256(f"{VERSION} {PIL.__version__}\0".encode())
    for part in what:
        sha.update(len(part).to_bytes(8, "little") + part)
    for path in files:
        sha.update(_digest(path))
    return sha.hexdigest()


def _digest(path: Path) -> bytes:
    try:
        sha = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(2**20):
                sha.update(block)
        return sha.digest()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read(name: str) -> dict[str, NDArray[Any]] | None:
    """The arrays that ``write`` kept under a name; None where there are none, or damaged ones."""
    cache = folder()
    if cache is None:
        return None
    try:
        with (cache / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in ("images", "labels", "classes")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write(name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keeps arrays; where that cannot be done, which is said once, the next time is only slower."""
    cache = folder()
    if cache is None:
        return
    try:
        with replacing(cache / f"{name}.npz") as file:
            write_npz(file, arrays)
    except (InputError, OSError) as error:
        _say(f"data: decoded images are not cached ({error})")
