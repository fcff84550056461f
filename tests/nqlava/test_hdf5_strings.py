"""Strings of variable length cannot end the process that reads a file."""

import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from nqlava import hdf5_strings, netx
from nqlava.hdf5 import NetxError

GOLDEN = Path(__file__).parent.parent / "golden" / "version2.h5"
HEAP = b"GCOL"
"""Begins the place where HDF5 keeps such strings."""


def changed(path: Path, place: int, value: int) -> Path:
    """The golden file with another byte at a place in its heap of strings."""
    content = bytearray(GOLDEN.read_bytes())
    content[content.find(HEAP) + place] = value
    path.write_bytes(content)
    return path


def test_reads_the_strings_of_older_files() -> None:
    assert hdf5_strings.readable(GOLDEN)
    assert netx.read(GOLDEN).info["note"] == "golden"


@pytest.mark.slow
def test_refuses_a_file_on_whose_strings_hdf5_searches_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(tmp_path / "net.h5", 24, 0)  # the size of a string
    monkeypatch.setattr(hdf5_strings, "CPU_SECONDS", 1)
    began = time.process_time()
    with pytest.raises(NetxError) as caught:
        netx.read(path)
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


def test_new_files_hold_no_such_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that reading them takes no process."""
    info = {"note": "größe", "empty": "", "T": 4}
    network = netx.read(GOLDEN)
    netx.write(type(network)(network.input_shape, network.layers, info), tmp_path / "new.h5")
    monkeypatch.setattr(hdf5_strings, "readable", lambda _path: pytest.fail("tried"))
    assert netx.read(tmp_path / "new.h5").info == info
