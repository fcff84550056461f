"""CIFAR-10 and CIFAR-100 as downloaded: the archive, the folder in it, or the folder around that."""

import functools
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.data.cifar import unpacked, write_cifar
from train.data import cifar_python
from train.data.image_set import DataError
from train.data.images import load


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("classes", [10, 100])
def test_every_way_that_people_have_it(tmp_path: Path, classes: int, protocol: int) -> None:
    archive = write_cifar(tmp_path / "data", classes, images=3, protocol=protocol)
    folder = unpacked(archive)
    for split, files in (("train", 1 if classes == 100 else 5), ("test", 1)):
        data = load([str(archive)], split)
        assert data.images.shape == (3 * files, 32, 32, 3) and data.labels.tolist() == [0, 1, 2] * files
        assert data.classes[:2] == ("class000", "class001") and len(data.classes) == classes
        part = pickle.loads((folder / ("test_batch" if classes == 10 else "test")).read_bytes())  # of the test itself
        if split == "test":
            pixels = part[b"data"].reshape(-1, 3, 32, 32)
            assert np.array_equal(data.images.permute(0, 3, 1, 2).numpy(), pixels)
        assert load([str(folder)], split).digest() == data.digest()
    archive.unlink()
    assert len(load([str(tmp_path / "data")], "test")) == 3


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path, 10, images=2)
    folder = unpacked(archive)
    part = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}
    changes = {
        "labels; allowed: whole numbers from 0 to 9": part,
        r"data is of shape \(2, 3000\); allowed: \(2, 3072\) as its labels": part
        | {"data": np.zeros((2, 3000), np.uint8)},
        "data is list; allowed: ndarray": part | {"data": [1]},
        "is not a part of CIFAR: it has an array of type i8": part | {"data": np.zeros((2, 3072), np.int64)},
        "holds list; allowed: a dictionary": [1],
    }
    for message, content in changes.items():
        (folder / "test_batch").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=rf"test_batch:? {message}"):
            load([str(folder)], "test")
    (tmp_path / "other.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"other.tar.gz is no tar archive, or a damaged one; allowed: that of CIFAR"):
        load([str(tmp_path / "other.tar.gz")], "test")
    for pointer in (tmp_path / "other.tar.gz", folder / "test_batch"):
        pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
        with pytest.raises(DataError, match=rf"{pointer.name} is a pointer of Git LFS, not the file itself"):
            load([str(pointer if pointer.suffix else folder)], "test")
    with pytest.raises(DataError, match=r"several with CIFAR; allowed: one of them alone"):
        load([str(archive), str(folder)], "test")


@functools.cache
def archive_content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_cifar(Path(folder), 10, images=1).read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_archives_are_read_or_refused(data: st.DataObject) -> None:
    """No byte changed or cut off raises anything but DataError."""
    content = bytearray(archive_content())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cifar-10-python.tar.gz")
        path.write_bytes(content)
        try:
            images, labels, _ = cifar_python.load(path, "test")
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert len(images) == len(labels)
