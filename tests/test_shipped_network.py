"""The integer network that ships is the one on its card, and Lava computes it exactly."""

import re
from pathlib import Path

import numpy as np
import pytest

from deploy import api
from nqlava import netx
from nqlava.network import IntegerNetwork

CARD = Path("deploy/pretrained/README.md")
FILE = Path("deploy/pretrained/vgg16.h5")


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    return netx.read(FILE)


def test_the_card_names_the_network(network: IntegerNetwork) -> None:
    card = CARD.read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", card, re.MULTILINE) == [path.stem for path in FILE.parent.glob("*.h5")]
    assert f"`{network.digest()[:16]}`" in card


@pytest.mark.slow
def test_accuracy_is_that_of_the_card(network: IntegerNetwork) -> None:
    """On 100 test images, within three standard deviations of what the card says of all."""
    told = re.search(r"^\| \*\*integer SNN = Lava\*\* \|(.*)\|$", CARD.read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    expected = np.array([float(cell) for cell in told[1].split("|")[1:4]])  # T = 1, 2 and 4, after the ANN's
    images, labels = api.images("sample", count=100, seed=0)
    got = np.array(api.run(network, images, labels, steps=4).accuracy)[[0, 1, 3]]
    assert np.all(np.abs(got - expected) < 3 * np.sqrt(expected * (100 - expected) / 100)), (got, expected)


@pytest.mark.slow
def test_lava_computes_it(network: IntegerNetwork) -> None:
    images, labels = api.images("sample", count=4, seed=1)
    verdict = api.run_lava(FILE, images, labels, steps=2, batch=2)
    assert verdict.exact and verdict.samples == 4
