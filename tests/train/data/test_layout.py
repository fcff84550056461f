"""Which files are images of which class; whatever is not read is counted, by reason."""

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.image_set import DataError
from train.data.layout import arrange, class_name, united


def unread(name: str) -> bytes:
    raise AssertionError(f"{name} was read")


def images(names: Sequence[str], split: str) -> list[tuple[str, str]]:
    return arrange(names, unread, "data")[split].images  # type: ignore[index]


@pytest.mark.parametrize("test", ["test", "valid", "val", "validation", "testing", "Test", "VAL", "Validation"])
@pytest.mark.parametrize("train", ["train", "training", "Train", "TRAINING"])
def test_names_of_splits(train: str, test: str) -> None:
    names = [f"{train}/cat/1.png", f"{test}/cat/2.png"]
    assert images(names, "train") == [("cat", names[0])] and images(names, "test") == [("cat", names[1])]


@pytest.mark.parametrize("top", ["", "photos/", "archive/photos/"])
def test_folders_around_everything_do_not_matter(top: str) -> None:
    names = [f"{top}train/cat/1.png", f"{top}test/cat/2.png", f"{top}readme.txt", "__MACOSX/x/train/cat/._1.png"]
    assert images(names, "train") == [("cat", f"{top}train/cat/1.png")]
    assert images(names, "test") == [("cat", f"{top}test/cat/2.png")]


def test_a_class_may_be_called_train() -> None:
    names = ["train/train/1.png", "train/test/2.png", "test/train/3.png", "test/test/4.png"]
    assert images(names, "train") == [("train", names[0]), ("test", names[1])]


def test_what_systems_and_editors_leave_is_neither_class_nor_image() -> None:
    litter = ["._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/1-checkpoint.png", "@eaDir/1.png"]
    names = ["train/cat/1.png", *(f"train/cat/{name}" for name in litter)]
    names += [f"train/{name}/1.png" for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git")]
    listed = arrange(names, unread, "data")["train"]
    assert listed.images == [("cat", "train/cat/1.png")] and listed.classes == {"cat"}
    assert listed.reasons() == "10 hidden"


def test_what_is_left_out_is_counted_by_reason() -> None:
    names = ["train/cat/1.png", "train/cat/2.xyz", "train/cat/3.xyz", "train/cat/readme", "train/cat/deep/4.png"]
    names += ["train/labels.csv", "train/cat/", "test/cat/1.png", "val/cat/2.png", "val/cat/3.png"]
    parts = arrange(names, unread, "data")
    reasons = "2 .xyz, 1 in folders of a class folder, 1 outside of class folders, 1 without a suffix"
    assert parts["train"].reasons() == reasons
    assert parts["test"].reasons() == "2 in val/, as test/ counts"


def test_a_class_of_which_nothing_is_left_is_refused() -> None:
    cases = {"1.xyz": " (1 .xyz left out)", "camera/1.png": " (1 in folders of a class folder left out)", "": ""}
    for name, left in cases.items():
        parts = arrange(["train/cat/1.png", f"train/dog/{name}", "test/cat/1.png", "test/dog/1.png"], unread, "data")
        with pytest.raises(DataError) as caught:
            united([parts], "train", ["data"], "")
        assert str(caught.value).startswith(f"data: data: train: class dog has no images{left}; allowed: .bmp, ")
        assert united([parts], "test", ["data"], "") == ["cat", "dog"]


def test_a_class_may_be_empty_in_one_of_several_sources() -> None:
    parts = [arrange([name], unread, "data") for name in ("train/cat/1.png", "train/cat/", "train/dog/1.png")]
    assert united(parts, "train", ["a", "b", "c"], "") == ["cat", "dog"]


def test_what_was_found_is_named_beside_what_is_allowed() -> None:
    message = (
        r"no images of test in data \(train/, evaluation/\); allowed: <class>/<image> in test/, testing/, val/, valid/"
    )
    with pytest.raises(DataError, match=message):
        united([arrange(["train/cat/1.png"], unread, "data")], "test", ["data"], "train/, evaluation/")


def test_equal_letters_are_one_class_in_whatever_form() -> None:
    """macOS decomposes what Linux does not."""
    composed, decomposed = "ñandú", unicodedata.normalize("NFD", "ñandú")
    parts = arrange([f"train/{composed}/1.png", f"test/{decomposed}/1.png"], unread, "data")
    assert united([parts], "train", ["data"], "") == [composed] == united([parts], "test", ["data"], "")


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert class_name("caf\udce9") == "caf\\xe9"
    assert class_name("caf\udce9").encode() and class_name("猫") == "猫"


NAMES = st.sampled_from(["train", "Test", "val", "cat", "dog", ".git", "__MACOSX", "1.png", "2.JPG", "3.txt", "..", ""])


@given(st.lists(st.lists(NAMES, min_size=1, max_size=5).map("/".join), max_size=8))
def test_every_image_is_one_file_of_a_class_folder(names: list[str]) -> None:
    """Of whatever names: nothing raises, nothing is read twice, and nothing from outside."""
    for listed in arrange(names, unread, "data").values():
        members = [member for _, member in listed.images]
        assert set(members) <= set(names)
        for label, member in listed.images:
            *_, top, folder, name = member.split("/")
            assert label == folder and name.lower().endswith((".png", ".jpg")) and ".." not in member.split("/")
            assert top.lower() in ("train", "test", "val") and not folder.startswith((".", "__"))
