"""Parts of the samples, and running one of them."""

from pathlib import Path

import numpy as np
import pytest

from deploy.compare.compare import run_part
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from nqlava import netx
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import random_layer


@pytest.mark.parametrize(("count", "parts", "sizes"), [(10, 3, [3, 3, 4]), (2, 5, [1, 1]), (7, 1, [7])])
def test_split(count: int, parts: int, sizes: list[int]) -> None:
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    pieces = Part(5, images, np.arange(count)).split(parts)
    assert [len(piece.images) for piece in pieces] == sizes
    for piece in pieces:
        expected = np.arange(piece.start - 5, piece.start - 5 + len(piece.images))
        np.testing.assert_array_equal(piece.images.ravel(), expected)
        np.testing.assert_array_equal(piece.labels, expected)
    assert str(pieces[-1]).endswith(f"..{5 + count - 1}")


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = IntegerNetwork((1, 4, 4), (random_layer(rng, "out", (1, 4, 4), outputs=2, readout=True),))
    netx.write(network, tmp_path / "net.h5")
    part = Part(0, np.zeros((1, 1, 4, 4), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=rf"net\.h5: network {network.digest()[:16]}; allowed: 0{{16}}, as at the"):
        run_part(Settings(tmp_path / "net.h5", steps=4, digest="0" * 64), part)
