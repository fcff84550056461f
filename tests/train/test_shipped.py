"""Every model that ships loads, holds its recipe, and is on its card."""

from pathlib import Path

import pytest

from train.loop.checkpoint import read_model
from train.shipped import NAMES, pretrained


@pytest.mark.parametrize("name", NAMES)
def test_ships_with_its_recipe_and_card(name: str) -> None:
    model = read_model(pretrained(name))
    network = model.network
    assert model.recipe["model"] == model.architecture
    assert network.input_shape == (3, 32, 32) and len(model.classes) == 10
    card = (Path("train/pretrained") / "README.md").read_text(encoding="utf-8")
    assert f"## {name}\n" in card
    assert pretrained(name).stat().st_size < 6 * 2**20


def test_every_file_has_a_name() -> None:
    assert {path.stem for path in Path("train/pretrained").glob("*.pt")} == set(NAMES)


def test_another_name() -> None:
    with pytest.raises(ValueError, match="pretrained is 'resnet18'; allowed: vgg_small, resnet20, resnet20_spikes"):
        pretrained("resnet18")
