"""Better rounding lowers the error of the input currents: on matrices by hand, and in every kind of layer."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.fold.folded import FoldedNetwork
from export.fold.lower import lower
from export.round.calibration import IntegerPrefix, output_errors, run_float
from export.round.least_error import ErrorForm, nearest_integers
from export.round.quantize import Precision, effective, integer_layer, learned, quantize
from export.round.rounding import NEAREST, CalibratedRounding, Method
from nqlava.engine.integer import Engine
from tests.tiny import SHAPE, image_set, random_residual, random_tiny, randomise
from train.model.activation import NQ
from train.model.models import Network, Normalize
from train.model.snn import simulate

IMAGES = image_set(24).images.permute(0, 3, 1, 2).contiguous()
STEPS = 4


def grouped(seed: int) -> Network:
    """Pooling behind the image, a strided grouped convolution, a depthwise dilated one, pooling before the read-out."""
    layers = [
        Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3)),
        nn.Conv2d(3, 4, 3, padding=1),
        NQ(4),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2),
        NQ(4),
        nn.Conv2d(6, 6, (2, 1), dilation=(2, 1), groups=6),
        NQ(4),
        nn.AvgPool2d((3, 3)),
        nn.Flatten(),
        nn.Linear(12, 5),
    ]
    network = Network(layers, input_shape=SHAPE, levels=4)
    randomise(network, seed)
    return network


NETWORKS = {"sequence": random_tiny, "grouped": grouped, "residual": random_residual}


def folded_network(name: str, seed: int = 0) -> FoldedNetwork:
    return lower(NETWORKS[name](seed), SHAPE)


def best_by_search(weight: np.ndarray, step: float, limit: int, moments: np.ndarray) -> float:
    """Least e C e^T of all integers, one by one."""
    errors = [np.array(q) * step - weight for q in product(range(-limit, limit + 1), repeat=len(weight))]
    return min(float(e @ moments @ e) for e in errors)


def test_by_hand() -> None:
    """Two inputs that are always equal: 0.4 + 0.4 is best as 1 + 0, where the nearest integers give 0 + 0."""
    form = ErrorForm(torch.ones(2, 2, dtype=torch.float64))
    weight, step = torch.full((1, 2), 0.4, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    assert nearest_integers(weight, step, 3).tolist() == [[0, 0]]
    assert sorted(form.integers(weight, step, 3)[0].tolist()) == [0, 1]
    assert form.error(weight, form.integers(weight, step, 3), step).item() == pytest.approx(0.04)
    independent = ErrorForm(torch.eye(2, dtype=torch.float64))
    assert independent.integers(weight, step, 3).tolist() == [[0, 0]]


def test_nearest_integers_round_half_to_even_and_stop_at_the_limit() -> None:
    weight = torch.tensor([[0.5, 1.5, 2.5, -9.0]])
    assert nearest_integers(weight, torch.ones(1, 4), 3).tolist() == [[0, 2, 2, -3]]


def test_inputs_that_are_always_zero_round_to_the_nearest() -> None:
    weight, step = torch.tensor([[0.4, 1.6, -2.7]], dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    assert ErrorForm(torch.zeros(3, 3, dtype=torch.float64)).integers(weight, step, 3).tolist() == [[0, 2, -3]]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([1, 3]))
def test_never_worse_than_nearest_and_close_to_the_best(seed: int, inputs: int, limit: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(50, inputs, generator=generator, dtype=torch.float64) @ torch.rand(
        inputs, inputs, generator=generator, dtype=torch.float64
    )
    moments = torch.cov(x.T).reshape(inputs, inputs)
    weight = torch.randn(3, inputs, generator=generator, dtype=torch.float64)
    step = weight.abs().amax(1, keepdim=True).expand_as(weight) / limit
    form = ErrorForm(moments)
    found = form.integers(weight, step, limit)
    assert torch.equal(found, found.round()) and float(found.abs().max()) <= limit
    error = form.error(weight, found, step)
    assert (error <= form.error(weight, nearest_integers(weight, step, limit), step) + 1e-12).all()
    for row in range(3):
        best = best_by_search(weight[row].numpy(), float(step[row, 0]), limit, moments.numpy())
        assert best <= float(error[row]) * (1 + 1e-9) + 1e-12


def test_close_to_the_best_on_average() -> None:
    """On 30 random rows of six correlated inputs: within 10 % of the least error there is; nearest has 2.5 times it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100, 6, generator=generator, dtype=torch.float64)
    x = x + 2 * torch.rand(100, 1, generator=generator, dtype=torch.float64)
    form = ErrorForm(torch.cov(x.T))
    weight = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    step = weight.abs().amax(1, keepdim=True).expand_as(weight)
    best = sum(
        best_by_search(w.numpy(), float(s[0]), 1, form.moments.numpy()) for w, s in zip(weight, step, strict=True)
    )
    found = float(form.error(weight, form.integers(weight, step, 1), step).sum())
    plain = float(form.error(weight, nearest_integers(weight, step, 1), step).sum())
    assert found < 1.1 * best and plain > 2.5 * best


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_coordinate_descent_never_increases_the_error(seed: int) -> None:
    """Over more columns than one block holds."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 150, generator=generator, dtype=torch.float64)
    form = ErrorForm(x.T @ x / 80 + torch.eye(150, dtype=torch.float64))
    weight = torch.randn(2, 150, generator=generator, dtype=torch.float64)
    step = torch.full_like(weight, 0.7)
    start = torch.randint(-3, 4, (2, 150), generator=generator).double()
    found = form.descend(weight, start, step, 3)
    before, after = (i * step - weight for i in (start, found))
    damped = [((error @ form._damped) * error).sum(1) for error in (before, after)]
    assert (damped[1] <= damped[0]).all() and (damped[1] < 0.9 * damped[0]).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_folded_float_network_is_the_float_snn(name: str) -> None:
    model = NETWORKS[name](1)
    rates: list[Tensor] = []
    scores = simulate(model, IMAGES, STEPS, lambda _, rate: rates.append(rate))
    found: list[tuple[Tensor, Tensor]] = []
    run_float(lower(model, SHAPE), IMAGES, STEPS, lambda _name, current, rate: found.append((current, rate)))
    for (_, rate), expected, activation in zip(found, rates, model.activations, strict=False):
        assert (rate - expected / activation.threshold).abs().mean() < 1e-3  # a spike may move by float rounding
    torch.testing.assert_close(found[-1][0], scores[-1], atol=0.02, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_prefix_delivers_the_spikes_of_the_engine(name: str) -> None:
    folded = folded_network(name)
    images = torch.cat([IMAGES, IMAGES])  # more than one part
    network, _ = quantize(folded)
    trace = Engine(network).run(images, STEPS)
    prefix = IntegerPrefix(folded, images, STEPS)
    for index, layer in enumerate(network.layers):
        prefix.advance(layer)
        if not layer.is_readout and layer.name in prefix.sources:
            counts = torch.cat(list(prefix.counts(layer.name))).numpy()
            np.testing.assert_array_equal(counts, trace.layer_spikes(index).sum(1).reshape(counts.shape))
    assert prefix.sources == (), "nothing is kept that no layer needs"


def current_of(folded: FoldedNetwork, index: int, weights: list[np.ndarray], counts: dict[str, Tensor]) -> Tensor:
    """What weights per window sum make of mean inputs, by other means than the code under test: (O, samples)."""
    layer, total = folded.layers[index], None
    for connection, weight in zip(learned(layer), weights, strict=True):
        x = counts[connection.source].double()
        kernel = torch.from_numpy(connection.expand(weight)).double()
        if connection.is_dense:
            part = x.flatten(1) @ kernel.flatten(1).T
        else:
            (py, px), (sy, sx), (my, mx) = connection.window, connection.stride, connection.padding
            geometry = ((py * sy, px * sx), (py * my, px * mx), connection.dilation, connection.groups)
            part = F.conv2d(x, kernel, None, *geometry)
        total = part if total is None else total + part
    assert total is not None
    return total.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_current_of_every_layer_is_no_worse_than_with_the_nearest_integers(name: str, bits: int) -> None:
    """On the same grid, with the same inputs, its mean set aside: the joint error of all connections of the layer."""
    folded, precision = folded_network(name), Precision(bits)
    rounding = CalibratedRounding(folded, IMAGES, STEPS, Method(scale_search=False))
    for index, layer in enumerate(folded.layers):
        prefix = rounding.prefix
        counts = {}
        for c in layer.connections:
            per_step = 1 if c.source == "input" else STEPS
            counts[c.source] = torch.cat([part.double() for part in prefix.counts(c.source)]) / per_step
        rounded = rounding(layer, precision)
        steps = [rounded.grid.steps(i) for i in range(len(rounded.weights))]
        exact = [effective(c, folded) for c in learned(layer)]
        wanted = current_of(folded, index, exact, counts)
        plain = [
            np.clip(np.rint(w / s), -rounded.grid.limit, rounded.grid.limit) for w, s in zip(exact, steps, strict=True)
        ]
        variances = []
        for weights in (list(rounded.weights), plain):
            assert all(np.abs(w).max() <= rounded.grid.limit for w in weights)
            made = current_of(folded, index, [w * s for w, s in zip(weights, steps, strict=True)], counts)
            variances.append((made - wanted).var(1, unbiased=False))
        assert (variances[0] <= variances[1] * (1 + 1e-6) + 1e-12).all()
        if plain[0][0].size > 2:  # of the depthwise layer's two weights the nearest are the best
            assert float(variances[0].sum()) < float(variances[1].sum())
        rounding.finished(integer_layer(layer, folded, rounded.grid, rounded.weights, rounded.bias))


@pytest.mark.parametrize("name", NETWORKS)
def test_bias_correction_keeps_the_mean_current_of_every_channel(name: str) -> None:
    """Up to the rounding of the bias to integers."""
    folded = folded_network(name)
    network, units = quantize(
        folded, precision=Precision(3), rounding=CalibratedRounding(folded, IMAGES, STEPS, Method())
    )
    wanted: list[Tensor] = []
    run_float(folded, IMAGES, STEPS, lambda _n, current, _r: wanted.append(current.double()))
    prefix = IntegerPrefix(folded, IMAGES, STEPS)
    for layer, unit, expected in zip(network.layers, units, wanted, strict=True):
        means: list[Tensor] = []
        prefix.advance(layer, lambda _part, mean, means=means: means.append(mean))
        found = torch.cat(means).transpose(0, 1).flatten(1).mean(1) * torch.from_numpy(unit)
        difference = (found - expected.transpose(0, 1).flatten(1).mean(1)).abs()
        assert (difference <= 0.5 * torch.from_numpy(unit) + 1e-4).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_part_of_the_method_lowers_the_errors(name: str) -> None:
    """Measured on three networks of fixed seeds, as the sum over the layers, at three bits."""

    def error(method: Method) -> float:
        total = 0.0
        for seed in range(3):
            folded = folded_network(name, seed)
            rounding = CalibratedRounding(folded, IMAGES, STEPS, method)
            network, units = quantize(folded, precision=Precision(3), rounding=rounding)
            total += sum(output_errors(folded, network, units, IMAGES, STEPS))
        return total

    plain, feedback = error(NEAREST), error(Method(scale_search=False, bias_correction=False))
    corrected, everything = error(Method(scale_search=False)), error(Method())
    assert everything < corrected < feedback < plain


def test_scale_search_narrows_the_range_for_an_outlier() -> None:
    """At two bits the largest weight alone would leave nothing of a row of small ones."""
    network = grouped(0)
    with torch.no_grad():
        network.layers[3].weight[:, 0, 0, 0] *= 2
    folded = lower(network, SHAPE)
    plain, searched = (
        quantize(folded, precision=Precision(2), rounding=CalibratedRounding(folded, IMAGES, STEPS, method))
        for method in (Method(scale_search=False), Method())
    )
    assert (searched[1][1] <= plain[1][1]).all() and (searched[1][1] < plain[1][1]).any()
    assert len(set(searched[1][-1].tolist())) == 1, "the read-out has one scale"
    one = Precision(2, granularity="layer")
    layers = quantize(folded, precision=one, rounding=CalibratedRounding(folded, IMAGES, STEPS, Method()))[1]
    assert all(len(set(unit.tolist())) == 1 for unit in layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_same_images_same_network(name: str) -> None:
    folded = folded_network(name)
    first, second, other = (
        quantize(folded, precision=Precision(3), rounding=CalibratedRounding(folded, images, STEPS, Method()))[0]
        for images in (IMAGES, IMAGES.clone(), IMAGES[:12])
    )
    assert first.digest() == second.digest() != other.digest()


def test_errors_are_small_at_eight_bits_and_large_in_the_wrong_unit() -> None:
    folded = folded_network("sequence")
    network, units = quantize(folded)
    errors = output_errors(folded, network, units, IMAGES, STEPS)
    assert max(errors) < 0.5 and errors[0] < 0.01
    doubled = tuple(2 * unit for unit in units)
    assert output_errors(folded, network, doubled, IMAGES, STEPS)[0] > 0.9


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (Method(), "error, scale search, bias correction"),
        (NEAREST, "nearest"),
        (Method(feedback=False, bias_correction=False), "nearest, scale search"),
        (Method(scale_search=False), "error, bias correction"),
    ],
)
def test_methods_say_what_they_do(method: Method, name: str) -> None:
    assert str(method) == name and method.is_calibrated is (method is not NEAREST)


@pytest.mark.parametrize("outputs", [1, 2])
def test_layers_of_one_neuron(outputs: int) -> None:
    layers = [Normalize((0.5,), (0.25,)), nn.Flatten(), nn.Linear(6, outputs), NQ(4), nn.Linear(outputs, 1)]
    network = Network(layers, input_shape=(1, 2, 3), levels=4)
    randomise(network, 0)
    folded, images = lower(network, (1, 2, 3)), IMAGES[:, :1, :2, :3].contiguous()
    found, _ = quantize(folded, precision=Precision(3), rounding=CalibratedRounding(folded, images, STEPS, Method()))
    assert [layer.outputs for layer in found.layers] == [outputs, 1]
    assert all(np.abs(c.weight).max() == 3 for c in found.layers[0].connections)
