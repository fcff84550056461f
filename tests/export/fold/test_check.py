"""What tracing does not see is found by comparing currents: nothing is lowered to something else without a word."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from export.fold.check import check
from export.fold.folded import ExportError
from export.fold.lower import lower
from tests.export.fold.test_lower import IMAGE, MODELS
from tests.tiny import SHAPE, random_residual, random_tiny, randomise
from train.model.activation import NQ
from train.model.models import Normalize


def images(shape: tuple[int, int, int]) -> Tensor:
    return torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", MODELS)
def test_what_is_lowered_rightly_passes(case: str) -> None:
    model = MODELS[case]()
    check(model, lower(model, IMAGE), images(IMAGE))


def test_networks_of_the_project_pass() -> None:
    for model in (random_tiny(0), random_residual(0), random_residual(0).double()):
        check(model, lower(model, SHAPE), images(SHAPE))


class Branches(nn.Module):
    """A residual network whose forward is given."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Sequential(Normalize((0.4, 0.5), (0.2, 0.3)), nn.Conv2d(2, 3, 1), NQ(4, 1.5))
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.act1, self.act2, self.head = NQ(4, 1.5), NQ(4, 1.5), nn.Linear(288, 3)
        self.given = forward
        randomise(self, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.given(self, self.stem(image)).flatten(1))


def in_place(model: nn.Module, x: Tensor) -> Tensor:
    kept = x
    x += model.one(x)
    return model.act2(x + kept)


def by_shape(model: nn.Module, x: Tensor) -> Tensor:
    """On symbols ``type`` differs from what it is on tensors."""
    return model.act2(model.one(x)) if type(x) is Tensor else model.act2(model.two(x))


def activation_left_out(model: nn.Module, x: Tensor) -> Tensor:
    x = model.act2(model.one(x))
    return model.act1(model.two(x)) if type(x) is Tensor else x


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            in_place,
            r"^one: receives other currents in the model than in what was traced, by up to [\d.]+ of [\d.]+; allow",
        ),
        (by_shape, r"^two: receives other currents"),
        (activation_left_out, r"^forward: uses 3 activations, and 2 were traced; allowed: a fixed sequence"),
    ],
)
def test_what_tracing_does_not_see_is_refused(forward: Callable[[nn.Module, Tensor], Tensor], message: str) -> None:
    model = Branches(forward)
    with pytest.raises(ExportError, match=message):
        check(model, lower(model, IMAGE), images(IMAGE))


def test_the_model_is_left_as_it_was() -> None:
    model = random_residual(1)
    before = model(images(SHAPE))
    check(model, lower(model, SHAPE), images(SHAPE))
    assert torch.equal(model(images(SHAPE)), before)
    assert not any(m._forward_hooks for m in model.modules())
