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

NET = Path("net.h5")


def network(input_shape: tuple[int, int, int] = (3, 8, 6)) -> IntegerNetwork:
    rng = np.random.default_rng(0)
    return IntegerNetwork(input_shape, (random_layer(rng, "readout", input_shape, outputs=5, readout=True),))


def test_images_have_the_size_of_the_network(tmp_path: Path) -> None:
    written = image_set(10)
    folder = str(write_folder(tmp_path / "images", test=written))
    data = load_for(NET, network(), [folder])
    images = data.pixels
    assert images.shape == (10, 3, 8, 6) and images.dtype == np.uint8
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), data.images.numpy())
    message = "data: images are (3, 8, 6); allowed: (3, 6, 8) as the network in net.h5, or none"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_for(NET, network((3, 6, 8)), [folder], ", or none")


def test_a_network_for_grey_images_gets_grey_ones(tmp_path: Path) -> None:
    """As Pillow makes them, so that images that are grey already stay as they are."""
    folder = str(write_folder(tmp_path / "images", test=image_set(10)))
    coloured, found = (load_for(NET, network((channels, 8, 6)), [folder]) for channels in (3, 1))
    for image, grey in zip(coloured.images.numpy(), found.images.numpy(), strict=True):
        np.testing.assert_array_equal(grey[:, :, 0], np.asarray(Image.fromarray(image).convert("L")))
