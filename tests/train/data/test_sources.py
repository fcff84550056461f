"""Folders and archives as people have them: links, wrappers, either slash, names in several encodings."""

import zipfile
from pathlib import Path

import pytest

from tests.tiny import image_set, write_folder, write_zip
from train.data.image_set import DataError
from train.data.images import load
from train.data.sources import Archive, Folder, named


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", train=image_set(6, classes=2), test=image_set(4, classes=2, seed=1))


def renamed(archive: Path, change: dict[str, str]) -> Path:
    """The archive with parts of its members' names replaced."""
    made = archive.with_name(f"renamed-{archive.name}")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            text = name
            for part, other in change.items():
                text = text.replace(part, other)
            new.writestr(text, old.read(name))
    return made


@pytest.mark.parametrize(
    "change",
    [{"/": "\\"}, {"train": "Photos/Train", "test": "Photos/Test"}, {"train": "x/y/training", "test": "x/y/val"}],
    ids=["backslashes", "a folder around", "two"],
)
def test_archives_of_other_programs(folder: Path, tmp_path: Path, change: dict[str, str]) -> None:
    archive = renamed(write_zip(tmp_path / "x.zip", folder), change)
    for split in ("train", "test"):
        found, expected = load([str(archive)], split), load([str(folder)], split)
        assert found.classes == expected.classes and found.digest() == expected.digest()


def test_a_folder_around_everything(folder: Path, tmp_path: Path) -> None:
    around = tmp_path / "around" / "it"
    around.mkdir(parents=True)
    folder.rename(around / "images")
    (tmp_path / "around" / "readme.txt").write_text("of somebody")
    (tmp_path / "around" / ".git").mkdir()
    assert named(tmp_path / "around") == [around / "images"]
    assert len(load([str(tmp_path / "around")], "train")) == 6


def test_names_in_utf_8_of_an_archiver_that_does_not_say_so(tmp_path: Path) -> None:
    """As macOS writes them: the flag is missing, and Python takes the bytes for code page 437."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train/猫/1.png", b"x")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    for start in (b"PK\3\4", b"PK\1\2"):
        data[data.index(start) + (7 if start == b"PK\3\4" else 9)] &= ~8
    (tmp_path / "x.zip").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() != ["train/猫/1.png"]
    archive_source = Archive(tmp_path / "x.zip")
    assert archive_source.names == ["train/猫/1.png"] and archive_source.read("train/猫/1.png") == b"x"
    archive_source.close()


def test_links_are_followed_and_loops_are_not(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    (folder / "train" / "class0").rename(elsewhere)
    (folder / "train" / "class0").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(folder / "train")
    names = Folder(folder).names
    assert sum(name.startswith("train/class0/0") for name in names) == 3
    assert len(load([str(folder)], "train")) == 6


def test_what_is_there_is_named(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        DataError, match=r"holds cats, dogs; allowed: a folder or zip archive with train/<class>/<image>"
    ):
        named(tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(DataError, match=r"x.zip is a pointer of Git LFS, not the file itself; git lfs pull fetches it"):
        load([str(tmp_path / "x.zip")], "train")


@pytest.mark.parametrize("name", ["photo.png", "labels.csv", "half.zip"])
def test_a_file_that_is_no_archive_is_named_with_what_is_allowed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4 and so on")
    message = rf"{name} is no zip archive, or a damaged one; allowed: a folder or zip archive with train/<class>/"
    with pytest.raises(DataError, match=message):
        load([str(tmp_path / name)], "train")
