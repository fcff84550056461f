"""Test images as the commands take them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.images import load_for
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import random_layer
from tests.tiny import image_set, write_folder
from train.data.views import fitted

NET = Path("net.h5")


def network(input_shape: tuple[int, int, int] = (3, 8, 6)) -> IntegerNetwork:
    rng = np.random.default_rng(0)
    return IntegerNetwork(input_shape, (random_layer(rng, "readout", input_shape, outputs=5, readout=True),))


def test_images_of_the_network_s_size_stay_as_they_are(tmp_path: Path) -> None:
    written = image_set(10)
    folder = str(write_folder(tmp_path / "images", test=written))
    data = load_for(NET, network(), [folder]).sample(10, 0)
    assert data.pixels.shape == (10, 3, 8, 6) and data.pixels.dtype == np.uint8
    order = np.random.default_rng(0).permutation(10)
    assert sorted(map(bytes, data.images.numpy()[order])) == sorted(map(bytes, written.images.numpy()))


def test_images_of_other_sizes_are_resized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the pixels that deploy.classify takes; only those that are drawn are decoded."""
    for number, size in enumerate([(40, 30), (31, 50), (24, 24), (9, 9)]):
        file = tmp_path / "images" / "test" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    data = load_for(NET, network((3, 24, 24)), [str(tmp_path / "images")])
    found = {bytes(image) for image in data.sample(4, 0).images.numpy()}
    assert "images of other sizes are resized to 24x24" in capsys.readouterr().err
    assert found == {bytes(fitted(file, 24, 24)) for file in tmp_path.rglob("*.png")}
    damaged = next(tmp_path.rglob("3.png"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    read = [data.sample(1, seed) for seed in range(30) if _is_read(data, seed)]
    assert 0 < len(read) < 30, "the damaged image only matters where it is drawn"


def _is_read(data: object, seed: int) -> bool:
    try:
        return len(data.sample(1, seed)) == 1  # type: ignore[attr-defined]
    except ValueError as error:
        return "3.png is not a readable image" not in str(error)


def test_the_sample_keeps_its_size() -> None:
    message = "data: images are (3, 32, 32); allowed: (3, 6, 8) as the network in net.h5, or none"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_for(NET, network((3, 6, 8)), ["sample"], ", or none")


def test_a_network_for_grey_images_gets_grey_ones(tmp_path: Path) -> None:
    """As Pillow makes them, so that images that are grey already stay as they are."""
    folder = str(write_folder(tmp_path / "images", test=image_set(10)))
    coloured, found = (load_for(NET, network((channels, 8, 6)), [folder]).sample(10, 0) for channels in (3, 1))
    for image, grey in zip(coloured.images.numpy(), found.images.numpy(), strict=True):
        np.testing.assert_array_equal(grey[:, :, 0], np.asarray(Image.fromarray(image).convert("L")))
