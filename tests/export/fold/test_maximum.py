"""MaximumOfRates is max pooling, and as an SNN comes to it; the maximum of spikes does not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.calibrate.calibrate import calibrate
from export.convert import convert, lowered
from export.fold.lower import lower
from export.fold.maximum import MaximumOfRates
from export.fold.operations import pool_of
from export.fold.prepare import activations, prepare
from export.round.quantize import quantize
from nqlava.engine.integer import Engine
from tests.export.fold.oracle import assert_same_currents
from tests.export.fold.test_architectures import IMAGE, Fn, behind_spikes, conv, head
from tests.tiny import image_set, randomise
from train.model.activation import NQ, RateReLU
from train.model.models import Normalize

IMAGES = torch.randint(0, 256, (6, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
POOLS = [
    (2,), (3, 2), (3, 2, 1), ((3, 2), (2, 3), (1, 1)), (2, 1), (2, 2, 0, 2), (3, 2, 0, 1, True), (2, 3, 1, 1, True),
    (4, 3, 2, 1, True), (1, 2),
]  # fmt: skip


@pytest.mark.parametrize("arguments", POOLS)
def test_it_is_max_pooling(arguments: tuple[object, ...]) -> None:
    x = torch.rand((2, 3, 9, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MaximumOfRates(pool_of(*arguments))(x), F.max_pool2d(x, *arguments))


NETWORKS = {
    "of spikes": lambda: behind_spikes(nn.MaxPool2d(3, 2, 1), conv(6, 6), nn.ReLU(), *head()),
    "of currents": lambda: behind_spikes(conv(6, 6), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU(), *head()),
    "of overlapping windows before padding": lambda: behind_spikes(nn.MaxPool2d(3, 2), conv(6, 6), nn.ReLU(), *head()),
    "of a concatenation of maxima": lambda: behind_spikes(
        Fn(
            lambda x, a: F.max_pool2d(torch.cat([F.max_pool2d(x, 2), a(x)], 1), 3, 1, 1),
            nn.Sequential(conv(6, 2, 2, stride=2, padding=0), NQ(4)),
        ),
        conv(8, 6, 1),
        nn.ReLU(),
        *head(),
    ),
    "before a matrix": lambda: behind_spikes(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 5)),
    "global": lambda: behind_spikes(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_a_prepared_network_has_it(case: str) -> None:
    """prepare itself compares the scores; the layers receive what its activations receive."""
    model = prepare(NETWORKS[case](), IMAGE)
    assert any(isinstance(m, MaximumOfRates) for m in model.modules())
    folded = assert_same_currents(model, IMAGE)
    assert not any(layer.is_maximum for layer in folded.layers)
    assert len(folded.layers[-1].connections) == 1 or case == "global"


def test_padded_pooling_of_currents_stays_a_maximum_of_spikes() -> None:
    """Currents may be negative, and the zeros of a padding would be larger than all of them."""
    model = behind_spikes(conv(6, 6), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), *head())
    assert not any(isinstance(m, MaximumOfRates) for m in prepare(model, IMAGE).modules())


def test_with_more_steps_it_comes_to_the_maximum() -> None:
    model = behind_spikes(conv(6, 6), nn.ReLU(), nn.MaxPool2d(3, 2), conv(6, 6), nn.ReLU(), *head())
    errors = {}
    for maximum in ("rates", "steps"):
        _, folded, caps = lowered(model, IMAGES, maximum)  # type: ignore[arg-type]
        found = [calibrate(folded, caps, IMAGES, steps) for steps in (8, 256)]
        errors[maximum] = [float((made.snn[-1] / len(made.snn) - made.relu).abs().mean()) for made in found]
    assert errors["rates"][1] < 0.4 * errors["rates"][0]
    assert errors["steps"][1] > 3 * errors["rates"][1]


def test_convert_offers_both() -> None:
    model = nn.Sequential(
        Normalize((0.5,) * 3, (0.25,) * 3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24, 5),
    )  # fmt: skip
    randomise(model, 0)
    rates, _ = convert(model, image_set(20), steps=4)
    steps, _ = convert(model, image_set(20), steps=4, maximum="steps")
    assert [layer.reset for layer in rates.layers] == ["soft"] * 5
    assert [layer.reset for layer in steps.layers] == ["soft", "hard", "soft"]


def test_a_pool_in_two_places_becomes_two() -> None:
    model = behind_spikes(Fn(lambda x, p, c: p(c(p(x)).relu()), nn.MaxPool2d(2), conv(6, 6)), *head())
    prepared = prepare(model, IMAGE)
    assert sum(isinstance(m, MaximumOfRates) for m in prepared.modules()) == 2
    # NQ, a ReLU, and 2 and 2 differences; the first pool leaves a row, which a padded convolution must not see: a sum
    assert len(activations(prepared)) == 7 and len(lower(prepared, IMAGE).calls) == 7
    assert_same_currents(prepared, IMAGE)


def test_a_depthwise_layer_with_hard_reset_is_the_maximum_of_every_step() -> None:
    """What the maximum by steps is made of: weights 1, θ = 1, v(0) = 0."""
    ones = nn.Conv2d(6, 6, 2, 2, groups=6, bias=False)
    model = behind_spikes(ones, RateReLU(1.0, "hard"), *head())
    with torch.no_grad():
        ones.weight.fill_(1.0)
        model[2].threshold.fill_(1.0)  # type: ignore[union-attr]
        model[4].threshold.fill_(1.0)  # type: ignore[union-attr]
    trace = Engine(quantize(lower(model, IMAGE))[0]).run(IMAGES, 6)
    spikes, maxima = (torch.from_numpy(trace.layer_spikes(index)).float() for index in (0, 1))
    assert torch.equal(F.max_pool2d(spikes.flatten(0, 1), 2), maxima.flatten(0, 1)) and 0 < maxima.mean() < 1
