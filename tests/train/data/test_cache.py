"""A cached array is used only if everything it was made from is unchanged."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import image_set, write_folder, write_zip
from train.data import cache
from train.data.images import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", train=image_set(6, classes=2), test=image_set(4, classes=2, seed=1))


def replaced(path: Path, value: int) -> None:
    """Another image in a file's place, of the same size in bytes and with the same times."""
    before = path.stat()
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (value,) * 3).save(path, "BMP")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_content_counts_and_not_size_and_time(folder: Path, tmp_path: Path) -> None:
    file = folder / "train" / "class0" / "0000.png"
    replaced(file, 1)
    sources = [folder, write_zip(tmp_path / "x.zip", folder)]
    for source in sources:
        assert load([str(source)], "train").images[0].unique().tolist() == [1]
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    replaced(file, 2)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (size, time)
    archive = sources[1].stat()
    write_zip(sources[1], folder)
    os.utime(sources[1], ns=(archive.st_atime_ns, archive.st_mtime_ns))
    for source in sources:
        assert load([str(source)], "train").images[0].unique().tolist() == [2]


def test_changes_behind_links_are_seen(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    (folder / "train" / "class0").rename(elsewhere)
    (folder / "train" / "class0").symlink_to(elsewhere)
    before = load([str(folder)], "train")
    replaced(elsewhere / "0000.png", 7)
    after = load([str(folder)], "train")
    assert before.images[0].unique().numel() > 1 and after.images[0].unique().tolist() == [7]
    shutil.copytree(elsewhere, elsewhere.with_name("other"))
    replaced(elsewhere.with_name("other") / "0000.png", 8)
    (folder / "train" / "class0").unlink()
    (folder / "train" / "class0").symlink_to(elsewhere.with_name("other"))
    assert load([str(folder)], "train").images[0].unique().tolist() == [8]


def test_a_copy_of_the_data_comes_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load([str(folder)], "train")
    monkeypatch.setattr("train.data.images.pixels", None)
    assert load([str(folder.rename(folder.with_name("moved")))], "train").digest() == first.digest()


@pytest.mark.parametrize("name", ["VERSION", "PIL.__version__"])
def test_another_decoder_does_not_use_what_was_cached(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    load([str(folder)], "train")
    monkeypatch.setattr(f"train.data.cache.{name}", "another")
    monkeypatch.setattr("train.data.images.pixels", None)
    with pytest.raises(TypeError):
        load([str(folder)], "train")


def test_a_class_that_changes_in_the_other_split_is_seen(folder: Path) -> None:
    load([str(folder)], "train")
    (folder / "test" / "class1").rename(folder / "test" / "class9")
    with pytest.raises(ValueError, match=r"test has classes class0, class9; allowed: class0, class1 as in train"):
        load([str(folder)], "train")


def test_without_a_home_nothing_is_cached_and_that_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home(_name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("train.data.cache.user_cache_path", no_home)
    cache._say.cache_clear()
    for split in ("train", "test", "train"):
        assert len(load([str(folder)], split)) in (4, 6)
    line = "data: decoded images are not cached (Could not determine home directory.); set XDG_CACHE_HOME to a folder\n"
    assert capsys.readouterr().err == line


def test_a_folder_that_cannot_be_written_is_named_once(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file in the way")
    for _ in range(2):
        load([str(folder)], "train")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("data: decoded images are not cached (") and str(cache) in line
