"""A tree is listed by class and name, and what is wrong with it is named before anything is decoded."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.train.data.pictures import picture
from train.data.image_set import DataError
from train.data.tree import look_at, open_tree


def test_a_tree_is_listed_by_class_and_name(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=0)
    assert len(data) == 12 and data.shape == (3, 16, 16)
    assert data.classes == ("a cat", "dog", "ñandú")
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    names = [os.fsdecode(name) for name in data.paths[:4].tolist()]
    assert names == ["a cat/photo 0.png", "a cat/ü1.png", "a cat/ü2.png", "a cat/ü3.png"]
    assert len(open_tree(str(tree), "test", 16, workers=0)) == 6


def no_class_folders(tree: Path) -> None:
    for file in sorted((tree / "val").rglob("*")):
        if file.is_file():
            file.rename(tree / "val" / f"{file.parent.name}-{file.name}")
    for folder in [entry for entry in (tree / "val").iterdir() if entry.is_dir()]:
        folder.rmdir()


def empty_class(tree: Path) -> None:
    for split in ("train", "val"):
        (tree / split / "eel").mkdir()
    (tree / "val" / "eel" / "readme.txt").write_text("no image")


def class_of_val(tree: Path) -> None:
    (tree / "val" / "eel").mkdir()
    picture((20, 20)).save(tree / "val" / "eel" / "1.png")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "flat": (
        no_class_folders,
        "data: no images of test in {f} (train/, val/); allowed: <class>/<image> in test/, testing/, val/, valid/, ",
    ),
    "empty class": (empty_class, "data: {f}: test: class eel has no images (1 .txt left out); allowed: .bmp, .gif, "),
    "class of val only": (
        class_of_val,
        "data: {f}: test has classes a cat, dog, eel, ñandú; allowed: a cat, dog, ñandú as in train (eel is in one",
    ),
    "broken link": (
        lambda f: (f / "val" / "dog" / "1.png").symlink_to("nowhere"),
        "data: {f}/val/dog/1.png is not readable (No such file",
    ),
    "an empty file": (
        lambda f: (f / "val" / "dog" / "1.png").write_bytes(b""),
        "data: {f}/val/dog/1.png is not a readable image; allowed: WEBP, PNG",
    ),
    "a pointer": (
        lambda f: (f / "val" / "dog" / "1.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "data: {f}/val/dog/1.png is a pointer of Git LFS, not the file itself; git lfs pull fetches it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_trees(tree: Path, case: str) -> None:
    change, message = BAD[case]
    change(tree)
    with pytest.raises(DataError) as caught:
        open_tree(tree, "test", workers=0)
    assert str(caught.value).startswith(message.format(f=tree)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"size is 0; allowed: 1\.\.4096"),
        ({"workers": -1}, r"workers is -1; allowed: 0\.\.256"),
        ({"workers": 257}, r"workers is 257; allowed: 0\.\.256"),
        ({"path": "nowhere"}, "data: nowhere does not exist; allowed: a folder"),
    ],
)
def test_bad_arguments(tree: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_tree(**{"path": tree, "split": "train"} | options)


def test_unlabelled_test_images_are_passed_over(tree: Path) -> None:
    (tree / "test").mkdir()
    picture((20, 20)).save(tree / "test" / "1.png")
    assert open_tree(tree, "test", workers=0).folder == tree / "val"


@pytest.mark.parametrize(("values", "found"), [((7, 7), "one value, 7"), ((2, 13), "from 2 to 13; scale them to 0")])
def test_images_without_contrast_are_named(
    tree: Path, values: tuple[int, int], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, file in enumerate(sorted((tree / "val").rglob("*.png"))):
        Image.new("RGB", (20, 20), (values[index % 2],) * 3).save(file)
    for split in ("train", "test"):
        look_at(open_tree(tree, split, 16, workers=0))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"data: {tree}/val: all pixels of 6 images that were looked at are {found}")


def test_a_few_images_are_decoded_before_the_training(tree: Path) -> None:
    file = tree / "val" / "dog" / "ü1.png"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"val/dog/ü1.png is not a readable image"):
        look_at(open_tree(tree, "test", 16, workers=0))
