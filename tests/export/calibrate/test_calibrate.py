"""A ReLU network becomes an SNN that comes to it with more steps; corrections do not change what has no error."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from export.calibrate.calibrate import Calibrated, calibrate
from export.calibrate.forward import quantized_scores
from export.convert import lowered
from export.round.quantize import quantize
from nqlava import reference
from nqlava.engine.integer import Engine
from nqlava.testing.engines import assert_same
from tests.export.fold.test_architectures import IMAGE, Fn, conv, head, network

IMAGES = torch.randint(0, 256, (40, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RELU = nn.ReLU

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a sequence": lambda: network(conv(2, 6), RELU(), conv(6, 6), RELU(), *head()),
    "a residual block": lambda: network(
        conv(2, 6), RELU(), Fn(lambda x, a, b: (x + b(a(x).relu())).relu(), conv(6, 6), conv(6, 6)), *head()
    ),
    "depthwise, and average pooling": lambda: network(
        conv(2, 6), RELU(), nn.AvgPool2d((3, 2)), conv(6, 6, groups=6), RELU(), *head()
    ),
    "a concatenation": lambda: network(
        conv(2, 6), RELU(), Fn(lambda x, a: torch.cat([x, a(x).relu()], 1), conv(6, 2)), conv(8, 4), RELU(), *head(4)
    ),
    "vectors": lambda: network(
        conv(2, 6), RELU(), nn.Flatten(), nn.Linear(432, 9), RELU(), nn.Linear(9, 7), RELU(), nn.Linear(7, 5)
    ),
    "caps": lambda: network(conv(2, 6), nn.ReLU6(), conv(6, 6), nn.Hardtanh(0, 0.5), *head()),
    "max pooling": lambda: network(conv(2, 6), RELU(), nn.MaxPool2d(3, 2, 1), conv(6, 6), RELU(), *head()),
    "max pooling of currents": lambda: network(
        conv(2, 6), RELU(), conv(6, 6), nn.MaxPool2d(3, 2, 1), RELU(), *head()
    ),
}  # fmt: skip


def calibrated(model: nn.Module, steps: int) -> Calibrated:
    _, folded, caps = lowered(model, IMAGES, "rates")
    return calibrate(folded, caps, IMAGES, steps)


def error(found: Calibrated) -> float:
    steps = len(found.snn)
    return float((found.snn[-1] / steps - found.relu).abs().mean() / found.relu.std())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "max pooling of currents"])
def test_scores_come_to_those_of_the_network(name: str) -> None:
    """Its ReLU side is the network itself."""
    model = NETWORKS[name]()
    few, many = calibrated(model, 4), calibrated(model, 64)
    with torch.no_grad():
        torch.testing.assert_close(many.relu, model(IMAGES), rtol=1e-4, atol=1e-4)
    assert error(many) < 0.12 and error(many) < error(few)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_integer_network_is_exact_and_close_to_the_float_one(name: str) -> None:
    found = calibrated(NETWORKS[name](), 16)
    made, units = quantize(found.folded)
    got = Engine(made).run(IMAGES[:2], 16)
    assert_same([reference.run(made, image.numpy(), 16) for image in IMAGES[:2]], got)
    scores = got.readout[:, -1] * units[-1]
    assert np.corrcoef(scores.ravel(), found.snn[-1, :2].numpy().ravel())[0, 1] > 0.98


def test_every_channel_has_its_own_threshold_below_the_cap() -> None:
    found = calibrated(NETWORKS["caps"](), 8)
    first, second = (np.asarray(layer.threshold) for layer in found.folded.layers[:2])
    assert first.shape == (6,) and len(set(first)) > 1
    assert (first <= 6).all() and (second <= 0.5).all() and (second > 0).all()


def test_the_losses_tell_levels_from_uneven_spikes() -> None:
    """The first layer has a constant current: all that it loses are levels."""
    found = calibrated(NETWORKS["a sequence"](), 4)
    first, second = found.losses
    assert first.quantized == pytest.approx(first.spikes, rel=1e-3) and 0 < first.quantized < 0.5
    assert second.quantized != second.spikes
    torch.testing.assert_close(quantized_scores(found.folded, IMAGES, 4), found.quantized, rtol=1e-4, atol=1e-4)


def test_the_same_images_give_the_same_network() -> None:
    one, two = (quantize(calibrated(NETWORKS["a residual block"](), 4).folded)[0].digest() for _ in range(2))
    assert one == two
