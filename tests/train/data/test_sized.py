"""Files of any size become images of one; only those that are drawn are decoded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import image_set, write_folder, write_zip
from train.data.image_set import DataError, ImageSet, at_once
from train.data.images import load
from train.data.sized import SizedSet, load_sized
from train.data.views import fitted


def photos(folder: Path, *sizes: tuple[int, int]) -> Path:
    """Noise of these widths and heights, in two classes in turn; the folder."""
    for number, (width, height) in enumerate(sizes):
        file = folder / "train" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return folder


@pytest.mark.parametrize("pack", [lambda path: path, lambda path: write_zip(path.with_suffix(".zip"), path)])
def test_images_of_one_small_size_are_those_that_load_reads(tmp_path: Path, pack: object) -> None:
    """The same draws and pixels, so that a command may use either."""
    source = str(pack(write_folder(tmp_path / "data", train=image_set(23))))  # type: ignore[operator]
    read, listed = load([source], "train"), load_sized([source], "train")
    assert isinstance(listed, SizedSet) and listed.shape == read.shape and listed.classes == read.classes
    assert listed.sample(9, 3).digest() == read.sample(9, 3).digest()
    assert listed.whole().digest() == read.digest()
    assert torch.equal(listed.with_channels(1).sample(9, 3).images, read.with_channels(1).sample(9, 3).images)


def test_the_size_is_their_own_or_224(tmp_path: Path) -> None:
    own = photos(tmp_path / "own", (20, 30), (20, 30))
    several = photos(tmp_path / "several", (20, 30), (30, 20))
    large = photos(tmp_path / "large", (225, 20), (225, 20))
    shapes = [load_sized([str(folder)], "train").shape for folder in (own, several, large)]
    assert shapes == [(3, 30, 20), (3, 224, 224), (3, 224, 224)]


def test_others_are_resized_as_pictures_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "data", (40, 30), (16, 16), (31, 60))
    images = load_sized([str(folder)], "train", (16, 16)).whole().images.numpy()
    files = [folder / "train" / name for name in ("a/0.png", "a/2.png", "b/1.png")]
    np.testing.assert_array_equal(images, [fitted(file, 16, 16) for file in files])
    assert "train: images of other sizes are resized to 16x16, from their middle" in capsys.readouterr().err
    load_sized([str(photos(tmp_path / "same", (16, 16), (16, 16)))], "train", (16, 16)).whole()
    assert not capsys.readouterr().err


def test_a_digest_knows_names_labels_and_size(tmp_path: Path) -> None:
    folder = str(photos(tmp_path / "data", (16, 16), (16, 16)))
    found = {load_sized([folder], "train", size).digest() for size in ((16, 16), (16, 16), (8, 8))}
    (tmp_path / "data" / "train" / "a" / "0.png").rename(tmp_path / "data" / "train" / "a" / "9.png")
    assert len(found) == 2 and load_sized([folder], "train", (8, 8)).digest() not in found


def test_the_sample_and_cifar_stay_in_memory() -> None:
    assert isinstance(load_sized(["sample"], "test", (224, 224)), ImageSet)


def test_too_many_for_the_memory(tmp_path: Path) -> None:
    data = load_sized([str(photos(tmp_path, (8, 8), (8, 8)))], "train", (4096, 4096))
    assert isinstance(data, SizedSet)
    files = data.files
    repeated = replace(files, members=files.members * 200, labels=files.labels.repeat(200))
    many = SizedSet(repeated, "train", (4096, 4096))
    with pytest.raises(DataError, match=r"400 images of \(4096, 4096\) are \d+ bytes; allowed: \d+, so fewer"):
        many.sample(400, 0)


def test_larger_images_go_through_a_network_in_smaller_batches() -> None:
    shapes = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224), (3, 4096, 4096))
    assert [at_once(shape) for shape in shapes] == [128, 128, 85, 6, 1]
    assert [at_once((3, 224, 224), steps) for steps in (1, 4, 64)] == [6, 1, 1]
