"""A prepared network computes what the user's does, and has an activation of its own in every place."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.fold.activations import Activation, recognised
from export.fold.folded import ExportError
from export.fold.lower import lower
from export.fold.prepare import activations, prepare
from nqlava.errors import InputError
from tests.export.fold.test_architectures import CASES, QCFS, Fn, behind_spikes, conv, head
from train.loop.calibrate import balance_thresholds, calibrate_potentials
from train.model.activation import NQ, RateReLU

IMAGE = (2, 9, 8)
IMAGES = torch.randint(0, 256, (5, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", ["functional ReLU", "QCFS's own module", "Hardtanh", "a dense block", "view by len"])
def test_scores_stay_the_same_for_any_number_of_images(case: str) -> None:
    model = CASES[case]()
    prepared = prepare(model, IMAGE)
    channels_last = IMAGES.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1], channels_last):
            torch.testing.assert_close(prepared(images), model(images.contiguous()), rtol=1e-4, atol=1e-4)


def test_every_place_has_an_activation_of_its_own() -> None:
    model = CASES["one ReLU in several places"]()
    found = activations(prepare(model, IMAGE))
    assert [type(neuron) for neuron in found] == [NQ, RateReLU, RateReLU] and len(set(found)) == 3
    assert sum(isinstance(m, nn.ReLU) for m in model.modules()) == 1, "the user's own network is left as it was"


def test_a_shared_neuron_is_divided_too() -> None:
    model = behind_spikes(Fn(lambda x, a, c: a(c(a(c(x)))), NQ(4, 1.5), conv(6, 6)), *head())
    one, two, three = activations(prepare(model, IMAGE))
    assert two is not three and two.threshold.item() == three.threshold.item() != one.threshold.item()


@pytest.mark.parametrize("calibrate", [calibrate_potentials, balance_thresholds])
def test_calibration_of_a_shared_activation_is_refused(calibrate: object) -> None:
    """One value cannot serve two places; it was taken from the first of them without a word."""
    model = behind_spikes(Fn(lambda x, a, c: a(c(a(c(x)))), RateReLU(), conv(6, 6)), *head())
    with pytest.raises(InputError, match=r"^activation 1: is used 2 times; allowed: once, with a module of its own"):
        calibrate(model, IMAGES, 4)  # type: ignore[operator]
    calibrate(prepare(model, IMAGE), IMAGES, 4)  # type: ignore[operator]


class Wrapped(nn.Module):
    """An activation inside a module with a helper that does nothing."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function, self.helper = function, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.helper(x))  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (QCFS(), Activation(2.0, 8)),
        (Wrapped(lambda x: x.clamp(min=0)), Activation()),
        (Wrapped(lambda x: (x + x.abs()) / 2), Activation()),
        (Wrapped(lambda x: x.clamp(0, 3.5)), Activation(3.5)),
        (Wrapped(lambda x: (x.clamp(0, 1) * 16).round() / 16), Activation(1.0, 16)),
        (Wrapped(lambda x: x), None),
        (Wrapped(torch.ones_like), None),
        (Wrapped(lambda x: x.clamp(-1, 1)), None),
        (Wrapped(lambda x: F.leaky_relu(x, 0.1)), None),
        (Wrapped(lambda x: torch.sigmoid(x)), None),
        (Wrapped(lambda x: x.clamp(min=0).flip(1)), None),
        (Wrapped(lambda x: x.relu().mean((2, 3))), None),
        (Wrapped(lambda x: (x > 0.5).float()), Activation(1.0, 1)),
        (Wrapped(lambda x: (x > 0.7).float()), None),
        (nn.Linear(2, 2), None),
    ],
)
def test_activations_are_recognised_by_what_they_compute(module: nn.Module, expected: Activation | None) -> None:
    assert recognised(module) == expected


def test_a_maximum_with_its_places_is_left_to_be_refused() -> None:
    model = behind_spikes(nn.MaxPool2d(2, return_indices=True), lambda x: x[0], *head())
    with pytest.raises(ExportError, match=r"^3 MaxPool2d: max_pool2d_with_indices: max_pool2d_with_indices is no oper"):
        lower(prepare(model, IMAGE), IMAGE)


@pytest.mark.parametrize("zero", [lambda x: torch.maximum(x, torch.tensor(0.0)), lambda x: F.threshold(x, 0, 0)])
def test_other_ways_to_write_relu_are_refused(zero: Callable[[Tensor], Tensor]) -> None:
    """Each is one in a module of its own, which is recognised by what it computes; beside others it has no neurons."""
    alone, beside = Fn(zero), Fn(lambda x, c: zero(c(x)), conv(6, 6))
    assert len(activations(prepare(behind_spikes(conv(6, 6), alone, *head()), IMAGE))) == 2
    with pytest.raises(ExportError, match=r"(maximum|threshold) is no operation that can be exported; .* ReLU or NQ$"):
        lower(behind_spikes(beside, *head()), IMAGE)


def test_what_changes_with_the_image_is_refused() -> None:
    model = behind_spikes(conv(6, 6), lambda x: x * torch.rand(1), nn.ReLU(), *head())
    with pytest.raises(ExportError, match=r"^Sequential: computes something else than what was traced"):
        prepare(model, IMAGE)
