"""Strings of variable length cannot end the process that reads a file."""

import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from nqlava import hdf5_strings
from nqlava.hdf5 import CheckedFile, NetxError

HEAP = b"GCOL"
"""Begins the place where HDF5 keeps such strings."""


def attribute_of(path: Path) -> object:
    with h5py.File(path, "r") as file:
        return CheckedFile(path).attribute("file", file, "note")


def written(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["note"] = "größe"
    return path


def test_reads_a_string(tmp_path: Path) -> None:
    path = written(tmp_path / "one.h5")
    assert hdf5_strings.readable(path)
    assert attribute_of(path) == "größe"


@pytest.mark.slow
def test_refuses_a_file_on_whose_strings_hdf5_searches_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "damaged.h5")
    content = bytearray(path.read_bytes())
    content[content.find(HEAP) + 24] = 0  # the size of the string
    path.write_bytes(content)
    monkeypatch.setattr(hdf5_strings, "CPU_SECONDS", 1)
    began = time.process_time()
    with pytest.raises(NetxError) as caught:
        attribute_of(path)
    assert str(caught.value) == f"{path}: strings of variable length are damaged, or too many or too long"
    assert time.process_time() - began < 1  # the other process has its own time


def test_too_many_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["x"] = ["a", "b", "c"]
        file.attrs["y"] = ["d", "e"]
    assert hdf5_strings.readable(tmp_path / "many.h5")
    monkeypatch.setattr(hdf5_strings, "MAX_STRINGS", 4)
    assert not hdf5_strings.readable(tmp_path / "many.h5")


def test_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file["x"] = np.array(["a" * 2**26], h5py.string_dtype())
    assert hdf5_strings.readable(tmp_path / "long.h5")
    monkeypatch.setattr(hdf5_strings, "MEMORY", 2**20)
    assert not hdf5_strings.readable(tmp_path / "long.h5")
