"""NumPy files that come in and go out."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

import deploy.arrays
from deploy.arrays import load_array, whole_numbers, write_arrays
from nqlava.errors import InputError

ALLOWED = "allowed: a .npy file, or a .npz file with one array"


def test_loads_an_array_alone_or_the_only_one_in_an_archive(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", spikes=values)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(load_array(tmp_path / name), values)


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], object), allow_pickle=True)
    return stream.getvalue()


def archive(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.npy", content)
    return stream.getvalue()


def huge() -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<i4", "fortran_order": False, "shape": (2**40, 2**20)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


NO_ARRAYS = {
    "empty": b"",
    "text": b"text",
    "pickle": pickled(),
    "pickle in an archive": archive(pickled()),
    "larger than the file": huge(),
    "larger than the archive": archive(huge()),
    "text in an archive": archive(b"text"),
    "part of an archive": archive(b"")[:40],
    "header of many lines": b"\x93NUMPY\1\0\6\0{'a':\n",
    "damaged archive": archive(b"\x93NUMPY")[:30] + b"\xff" * 300,
}


@pytest.mark.parametrize("content", NO_ARRAYS.values(), ids=NO_ARRAYS.keys())
def test_refuses_what_is_no_array(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not an array of numbers in NumPy's format") as error:
        whole_numbers(path, load_array(path))
    assert str(error.value).startswith(f"{path}: ") and str(error.value).endswith(ALLOWED)


def test_refuses_archives_that_are_too_large_when_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros(2**20))
    monkeypatch.setattr(deploy.arrays, "MAX_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"a.npz: 8388736 bytes when unpacked; allowed: 1048576, or a .npy file$"):
        load_array(tmp_path / "a.npz")


def test_refuses_several_arrays_a_folder_and_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.zeros(1), two=np.zeros(1))
    with pytest.raises(ValueError, match=r"a.npz: arrays are one, two; allowed: one array$"):
        load_array(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="is a folder"):
        load_array(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_array(tmp_path / "b.npy")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type(dtype: type) -> None:
    values = whole_numbers(Path("a"), np.array([0, 1, 1], dtype))
    assert values.dtype.kind in "iu" and values.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1, 0.5]), "a: a value is 0.5; allowed: whole numbers of at most 32 bits"),
        (np.array([np.inf]), "a: a value is inf; allowed: whole numbers of at most 32 bits"),
        (np.array([np.nan]), "a: a value is nan; allowed: whole numbers of at most 32 bits"),
        (np.array([1j]), "a: values are of type complex128; allowed: numbers"),
        (np.array(["1"]), "a: values are of type <U1; allowed: numbers"),
    ],
)
def test_refuses_other_numbers(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match="value") as error:
        whole_numbers(Path("a"), values)
    assert str(error.value) == message


def test_writes_equal_bytes_all_at_once(tmp_path: Path) -> None:
    arrays = {"spikes": np.eye(3, dtype=np.uint8), "potentials": np.arange(3, dtype=np.int32)}
    write_arrays(tmp_path / "new" / "a.npz", arrays)
    write_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "new" / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "b.npz", allow_pickle=False) as found:
        assert found.files == ["spikes", "potentials"]
        np.testing.assert_array_equal(found["spikes"], arrays["spikes"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.npz", "new"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"before")
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "a.npz", {"a": np.array([None])})
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and (tmp_path / "a.npz").read_bytes() == b"before"


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(InputError, match=r"a.npy: a pointer of Git LFS, not the file itself; git lfs pull fetches it"):
        load_array(tmp_path / "a.npy")
