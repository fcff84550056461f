"""A lowered network computes what its plans say, and its model file is read with care."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import SHAPE
from train.loop.checkpoint import LOWERED, CheckpointError, ModelFile, load, read_model, save, write_model
from train.model.lowered import Lowered
from train.model.plan import Map, Plan

PLANS = (
    Plan("first", (Map("input", (4, 3, 3, 3), padding=(1, 1)),), (4, 8, 6)),
    Plan("pool", (Map("first", (4, 1, 2, 2), stride=(2, 2), groups=4),), (4,), "maximum"),
    Plan(
        "block",
        (
            Map("pool", (4, 2, 3, 1), padding=(2, 0), dilation=(2, 1), groups=2),
            Map("first", (4, 1, 1, 1), window=(2, 2), groups=4, is_identity=True),
        ),
        (4,),
    ),
    Plan("out", (Map("block", (5, 4, 4, 3), is_dense=True),), (5,), "read-out"),
)
CLASSES = tuple(f"class{i}" for i in range(5))


def network() -> Lowered:
    torch.manual_seed(0)
    made = Lowered(PLANS, input_shape=SHAPE, levels=2, mean=(0.5, 0.4, 0.6), std=(0.25, 0.2, 0.3))
    with torch.no_grad():
        for plan, current, _ in made.parts():
            if plan.kind != "maximum":
                current.bias += torch.rand(current.bias.shape) / 5
    return made.eval()


def test_it_computes_what_its_plans_say() -> None:
    made = network()
    images = torch.randint(0, 256, (2, *SHAPE), dtype=torch.uint8)
    found = {name: value.detach() for name, value in made.named_parameters()}

    def weight(layer: int, m: int = 0) -> torch.Tensor:
        return found[f"layers.{layer}.0.maps.{m}.weight"]

    def fire(z: torch.Tensor) -> torch.Tensor:
        return torch.clamp(torch.floor(z * 2 + 0.5) / 2, 0, 1)

    first = fire(F.conv2d(made.layers[0](images), weight(1), padding=1) + found["layers.1.0.bias"])
    pool = F.max_pool2d(first, 2)
    shortcut = weight(3, 1).view(4, 1, 1) * F.avg_pool2d(first, 2)
    z = F.conv2d(pool, weight(3), found["layers.3.0.bias"], 1, (2, 0), (2, 1), 2) + shortcut
    expected = F.linear(fire(z).flatten(1), weight(4).flatten(1), found["layers.4.0.bias"])
    with torch.no_grad():
        torch.testing.assert_close(made(images), expected)


def test_training_leaves_identities_and_maxima() -> None:
    fixed = [name for name, value in network().named_parameters() if not value.requires_grad]
    assert fixed == ["layers.2.0.bias", "layers.2.0.maps.0.weight", "layers.3.0.maps.1.weight"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_model(tmp_path / "model.pt", ModelFile(network(), LOWERED, CLASSES))
    return tmp_path / "model.pt"


def test_its_model_file(path: Path) -> None:
    found, images = read_model(path), torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    assert found.architecture == LOWERED and found.network.input_shape == SHAPE
    with torch.no_grad():
        assert torch.equal(found.network(images), network()(images))


CHANGES: dict[str, tuple[list[Any], Any]] = {
    "layers is no list of 1 to": (["layers"], {}),
    "layer 0 is no layer (": (["layers", 0], {"name": "a"}),
    "layer 2 is no layer (groups": (["layers", 2, "maps", 0, "groups"], 3),
    "layer 1 is no layer (sizes": (["layers", 1, "maps", 0, "stride"], (0, 1)),
    "layer 3 has a name or sources": (["layers", 3, "maps", 0, "source"], "nowhere"),
    "layer 1 has a name or sources": (["layers", 1, "name"], "first"),
    "layer 3 is neurons; allowed: a read-out at the end": (["layers", 3, "kind"], "neurons"),
    "layer 0 is read-out; allowed: a read-out at the end": (["layers", 0, "kind"], "read-out"),
    "layers do not fit each other (": (["layers", 2, "maps", 0, "padding"], (1, 0)),
    "layers give (5,) scores; allowed: 4": (["classes"], list(CLASSES[:4])),
    "input_shape is no list of three": (["input_shape"], [3, 8]),
    "state does not hold the tensors": (["state", "layers.1.0.bias"], torch.zeros(1).expand(4, 8, 6)),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_changed_file_is_refused(path: Path, message: str) -> None:
    content = load(path)
    (*keys, last), value = CHANGES[message]
    place = content
    for key in keys:
        place = place[key]
    place[last] = value
    save(path, content)
    with pytest.raises(CheckpointError, match=rf"^{path}: ") as caught:
        read_model(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
