"""A tree of pictures of several sizes."""

from pathlib import Path

import pytest

from tests.train.data.pictures import SIZES, picture


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes, one with a space and one beyond ASCII, of four images in train and two in val."""
    for split, count in (("train", 4), ("val", 2)):
        for number, name in enumerate(("a cat", "dog", "ñandú")):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                file = folder / f"{'ü' if index else 'photo '}{index}.png"
                picture(SIZES[index], seed=10 * number + index).save(file)
    return tmp_path / "tree"
