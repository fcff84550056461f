"""Weights rounded in training are on the exporter's grid, and the exporter finds exactly the same integers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from export.fold.lower import lower
from export.round.quantize import Precision, effective, quantize
from export.round.rounding import CalibratedRounding, Method
from tests.tiny import SHAPE, image_set, random_residual, random_tiny
from train.model.fake_quantize import FakeQuantize, attach, bake, matrices
from train.model.models import Network


def integers_of_training(network: Network) -> dict[str, Tensor]:
    """round(ŵ / Δ) of every rounded layer, by path."""
    found = {}
    for name, module in matrices(network).items():
        rounding = module.parametrizations.weight[0]
        unit = 1 if rounding.deviation is None else rounding.deviation
        weight = module.parametrizations.weight.original / unit
        ratio = module.weight / unit / rounding.step(weight)
        assert float((ratio - ratio.round()).abs().max()) < 1e-4
        found[name] = ratio.round().detach()
    return found


def test_by_hand() -> None:
    """Three bits, integers up to 3: Δ = 1.953 √mean(w²) / 3 in the first channel, max|w| / 3 in the second."""
    weight = torch.tensor([[4.0, 0.2, 0.0, -0.3], [0.3, -0.14, 0.16, 0.3]])
    step = 1.953 * (16.13 / 4) ** 0.5 / 3
    assert FakeQuantize(3, shared=False).step(weight).flatten().tolist() == pytest.approx([step, 0.1])
    assert FakeQuantize(3, shared=True).step(weight).flatten().tolist() == pytest.approx(
        [1.953 * (16.3552 / 8) ** 0.5 / 3]
    )
    rounded = FakeQuantize(3, shared=False)(weight)
    torch.testing.assert_close(rounded, torch.tensor([[3 * step, 0, 0, 0], [0.3, -0.1, 0.2, 0.3]]))
    assert torch.equal(FakeQuantize(2, shared=False)(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_gradient_passes_straight_through() -> None:
    weight = torch.tensor([[0.5, -0.2], [0.1, 3.0]], requires_grad=True)
    deviation = torch.tensor([[0.5, 2.0]])
    for rounding in (FakeQuantize(2, shared=False), FakeQuantize(4, shared=True, deviation=deviation)):
        weight.grad = None
        (rounding(weight) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
        torch.testing.assert_close(weight.grad, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("method", [None, Method()], ids=["nearest", "error"])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("seed", range(3))
def test_export_recovers_the_integers_of_a_sequence(seed: int, bits: int, method: Method | None) -> None:
    """With the nearest integers; those of the least error are the same, since the error is zero."""
    network, layers = random_tiny(seed), {"layers.1": 8, "layers.10": 5}
    attach(network, bits, layers)
    expected = integers_of_training(network)
    bake(network)
    folded = lower(network, SHAPE)
    images = image_set(20).images.permute(0, 3, 1, 2).contiguous()
    rounding = None if method is None else CalibratedRounding(folded, images, 4, method)
    made = quantize(folded, precision=Precision(bits, layers), rounding=rounding)[0]
    assert [layer.name for layer in made.layers] == list(expected)
    for layer in made.layers:
        weight = layer.connections[0].weight.astype(np.float32)
        wanted = expected[layer.name].numpy()
        if layer.name == "layers.5":  # average pooling is folded in
            wanted = wanted.repeat(2, 2).repeat(2, 3)
        np.testing.assert_array_equal(weight.reshape(wanted.shape), wanted)
        assert np.abs(weight).max() == 2 ** (layers.get(layer.name, bits) - 1) - 1


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_export_recovers_residual_blocks_but_for_projections(seed: int, bits: int) -> None:
    """Identity shortcuts are rounded apart. Two convolutions into one layer share Δ: one of them is rounded again."""
    network = random_residual(seed)
    attach(network, bits)
    expected = integers_of_training(network)
    bake(network)
    folded = lower(network, SHAPE)
    made, units = quantize(folded, precision=Precision(bits))
    for layer, float_layer, unit in zip(made.layers, folded.layers, units, strict=True):
        if layer.name == "layers.5.conv2":
            errors = []
            for connection, exact in zip(layer.connections, float_layer.connections, strict=True):
                step = unit.reshape(-1, 1, 1, 1) * 2.0**connection.exponent
                error = connection.weight * step - effective(exact, folded)
                assert np.abs(error / step).max() <= 0.5 + 1e-6
                errors.append(np.abs(error / step).reshape(len(unit), -1).max(axis=1))
            # Per channel one of the two keeps its integers.
            assert np.minimum(*errors).max() < 1e-4
            continue
        wanted = expected[layer.name].numpy()
        if layer.is_readout:  # behind global average pooling
            wanted = wanted.repeat(12, axis=1)
        np.testing.assert_array_equal(layer.connections[0].weight.reshape(wanted.shape), wanted)


def test_forward_is_the_same_before_and_after_baking() -> None:
    network = random_tiny(1)
    images = image_set(8).images.permute(0, 3, 1, 2)
    with torch.no_grad():
        exact = network(images)
        attach(network, 3)
        rounded = network(images)
        keys = set(random_tiny(1).state_dict())
        bake(network)
        assert set(network.state_dict()) == keys
        assert torch.equal(network(images), rounded) and not torch.equal(exact, rounded)
    bake(network)  # nothing left to do


def test_bits_of_a_missing_layer_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^bits of layers\.2: no such layer; allowed: layers\.1, layers\.5, "):
        attach(random_tiny(0), 4, {"layers.2": 8})
