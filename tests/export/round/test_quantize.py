"""Quantization rounds as docs/semantics.md says, and the bias absorbs the normalisation exactly up to its rounding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.fold.folded import ExportError, FoldedConnection, FoldedLayer, FoldedNetwork
from export.round.quantize import Granularity, Precision, Rounded, choose_grid, effective, learned, quantize
from nqlava.network import IMAGE, Layer
from nqlava.reference import synaptic_sum

STD = 1 / 255  # with mean 0 the network sees the pixels as they are
GRANULARITIES: tuple[Granularity, ...] = ("channel", "layer")


def plain(*layers: FoldedLayer, shape: tuple[int, int, int] = (1, 2, 2)) -> FoldedNetwork:
    return FoldedNetwork(shape, layers, np.zeros(shape[0]), np.full(shape[0], STD))


def matrix(weight: Any, source: str = IMAGE, shape: tuple[int, ...] = (1, 2, 2)) -> FoldedConnection:
    """A dense connection from a source (C, H, W) or (N,)."""
    weight = np.array(weight, np.float64)
    kernel = shape if len(shape) == 3 else (*shape, 1, 1)
    return FoldedConnection(source, shape, weight.reshape(len(weight), *kernel), is_dense=True)


def dense(
    weight: Any,
    bias: Any = None,
    threshold: float | None = None,
    *,
    name: str = "dense",
    source: str = IMAGE,
    shape: tuple[int, ...] = (1, 2, 2),
    initial: float = 0.5,
) -> FoldedLayer:
    bias = np.zeros(len(weight)) if bias is None else np.array(bias, np.float64)
    return FoldedLayer(name, (matrix(weight, source, shape),), bias, threshold, initial)


def readout(weight: Any, bias: Any = None, source: str = "dense") -> FoldedLayer:
    return dense(weight, bias, name="out", source=source, shape=(np.shape(weight)[1],))


def weight_of(layer: Layer, index: int = 0) -> list[Any]:
    return layer.connections[index].weight.tolist()


def test_by_hand_per_channel() -> None:
    """Weights of 127 and 63.5 at most give Δ = 1 and 0.5; halves go to the even neighbour."""
    folded = plain(
        dense([[127, 0.5, 1.5, -2.5], [-63.5, 0.25, 0.75, 1.3]], [2.5, -1.25], 9.0),
        readout([[12.7, 0.04], [0.16, -3.0]], [1.0, 0.04]),
    )
    network, units = quantize(folded, info={"T": 4})
    first, last = network.layers
    assert weight_of(first) == [[127, 0, 2, -2], [-127, 0, 2, 3]] and first.connections[0].exponent == 0
    assert first.threshold is not None
    assert first.bias.tolist() == [2, -2] and first.threshold.tolist() == [9, 18] and first.v0.tolist() == [4, 9]
    np.testing.assert_allclose(units[0], [1, 0.5])
    assert weight_of(last) == [[127, 0], [2, -30]]  # one Δ of 0.1 for the whole read-out
    assert last.bias.tolist() == [10, 0] and last.threshold is None and last.v0.tolist() == [0, 0]
    np.testing.assert_allclose(units[1], [0.1, 0.1])
    assert (first.name, network.info) == ("dense", {"T": 4})


def test_by_hand_per_layer() -> None:
    folded = plain(dense([[127, 1, 0, 0], [-63.5, 2.5, 0, 0]], [0, 3.5], 9.0), readout([[1, 1]]))
    network, units = quantize(folded, precision=Precision(granularity="layer"))
    assert weight_of(network.layers[0]) == [[127, 1, 0, 0], [-64, 2, 0, 0]]
    assert network.layers[0].bias.tolist() == [0, 4] and network.layers[0].threshold.tolist() == [9, 9]
    assert units[0].tolist() == pytest.approx([1, 1])


def test_by_hand_with_few_bits() -> None:
    """Three bits are −3 … 3 in steps of 1, in units of 2⁻⁵, in which bias and threshold are rounded."""
    folded = plain(dense([[3, 0.5, 1.5, -2.6]], [1 / 64 + 1 / 32], 2.0), readout([[7.0], [0.4]]))
    network, units = quantize(folded, precision=Precision(3, {"out": 4}))
    first, last = network.layers
    assert weight_of(first) == [[3, 0, 2, -3]] and (first.connections[0].exponent, first.connections[0].bits) == (5, 3)
    assert units[0].tolist() == [1 / 32] and first.threshold.tolist() == [64] and first.bias.tolist() == [2]
    assert weight_of(last) == [[7], [0]] and (last.connections[0].exponent, last.connections[0].bits) == (4, 4)


def test_initial_potential_is_a_share_of_the_threshold() -> None:
    for initial, v0 in ((0.5, [4]), (0.0, [0]), (0.25, [2])):
        layer = dense([[127, 0, 0, 0]], None, 9.0, initial=initial)
        assert quantize(plain(layer, readout([[1]])))[0].layers[0].v0.tolist() == v0


def test_a_channel_without_weights_keeps_its_bias_and_threshold() -> None:
    """A pruned channel fires from its bias alone: 20 bits for the larger of the two."""
    folded = plain(dense([[0] * 4, [127, 0, 0, 0]], [0.2, 0], 0.5), readout([[0, 0]], [0.0]))
    network, units = quantize(folded)
    first, last = network.layers
    assert weight_of(first) == [[0] * 4, [127, 0, 0, 0]]
    assert first.threshold.tolist() == [2**20, 1] and first.bias.tolist() == [round(0.4 * 2**20), 0]
    assert units[1].tolist() == [1] and last.bias.tolist() == [0], "a layer of zeros has scale 1"


@pytest.mark.parametrize("bias", [-5.0, 5.0])
def test_a_large_bias_or_threshold_enlarges_the_scale(bias: float) -> None:
    first = dense([[1e-9], [1000.0], [1e-9]], [0, 0, bias], 2.0, shape=(1, 1, 1))
    made, last = quantize(plain(first, readout([[1e-9] * 3], [bias]), shape=(1, 1, 1)))[0].layers
    assert made.threshold.tolist() == [2**20, 1, round(2 / 5 * 2**20)] and weight_of(made) == [[0], [127], [0]]
    assert made.bias.tolist() == [0, 0, np.sign(bias) * 2**20]
    assert made.v0.tolist() == [2**19, 0, round(2 / 5 * 2**20) // 2]
    assert last.bias.tolist() == [np.sign(bias) * 2**20]


def test_a_bias_beyond_24_bits_is_refused() -> None:
    """It can only come from the mean of the image: here 300 inputs of weight 127 and mean 255."""
    layer = dense([[1.0] * 300], name="layers.2", shape=(1, 1, 300))
    with pytest.raises(ExportError, match=r"^layers\.2: bias is -9715500; allowed: ±8388607$"):
        quantize(FoldedNetwork((1, 1, 300), (layer,), np.ones(1), np.ones(1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "bits: is 1; allowed: 2..8"),
        ((9,), "bits: is 9; allowed: 2..8"),
        ((8, {"a": 0}), "bits of a: is 0; allowed: 2..8"),
    ],
)
def test_precision_outside_its_range_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ExportError) as caught:
        Precision(*arguments)
    assert str(caught.value) == message


def test_bits_of_a_missing_layer_are_refused() -> None:
    with pytest.raises(ExportError, match=r"^bits of x: no such layer; allowed: dense, out$"):
        quantize(plain(dense([[1.0] * 4], None, 1.0), readout([[1.0]])), precision=Precision(8, {"x": 4}))


def test_a_rounding_decides_grid_weights_and_bias_and_is_told_every_layer() -> None:
    class Opposite:
        def __init__(self) -> None:
            self.made: list[Layer] = []

        def __call__(self, layer: FoldedLayer, precision: Precision) -> Rounded:
            grid = choose_grid(layer, folded, precision, [np.full(len(layer.bias), 127.0)])
            weights = [-np.rint(c.weight).astype(np.int8) for c in learned(layer)]
            return Rounded(grid, weights, layer.bias + 3 if layer.threshold else None)

        def finished(self, layer: Layer) -> None:
            self.made.append(layer)

    folded = plain(dense([[2, 0, 0, 1]], [5], 9.0), readout([[7]], [1.0]))
    rounding = Opposite()
    network, units = quantize(folded, rounding=rounding)
    assert rounding.made == list(network.layers) and [u.tolist() for u in units] == [[1], [1]]
    assert weight_of(network.layers[0]) == [[-2, 0, 0, -1]] and network.layers[0].bias.tolist() == [8]
    assert weight_of(network.layers[1]) == [[-7]] and network.layers[1].bias.tolist() == [1]


def two_connections(large: float, bits: int = 8) -> tuple[FoldedLayer, FoldedNetwork]:
    """Weights of 1 and ``large`` at most, from the same layer."""
    shape = (2,)
    first = dense([[1.0] * 4, [1.0] * 4], None, 1.0, name="a")
    connections = (matrix([[1.0, 0.5], [1.0, 0.25]], "a", shape), matrix([[large, 0.0], [large / 2, 0.01]], "a", shape))
    layer = FoldedLayer("sum", connections, np.zeros(2), 0.1)
    return layer, plain(first, layer, readout([[1.0, 1.0]], source="sum"))


@pytest.mark.parametrize(("large", "exponents"), [(1.0, (0, 0)), (1.5, (0, 0)), (8.0, (0, 2)), (1 / 8, (4, 0))])
def test_connections_with_larger_weights_get_larger_exponents(large: float, exponents: tuple[int, int]) -> None:
    """The mean over the two channels of log2 of the ratio, rounded: log2 8 and log2 4 give 2.5, to even 2.

    1/8 and 1/16 give 3.5, to even 4.
    """
    layer, folded = two_connections(large)
    grid = choose_grid(layer, folded, Precision())
    assert grid.exponents == exponents and grid.limit == 127
    for index, connection in enumerate(layer.connections):
        largest = np.abs(connection.weight).reshape(2, -1).max(axis=1)
        assert (largest / grid.steps(index).ravel() <= 127 * (1 + 1e-9)).all()


def test_steps_grow_with_fewer_bits_and_units_do_not() -> None:
    layer, folded = two_connections(8.0)
    fine, coarse = (choose_grid(layer, folded, Precision(bits)) for bits in (8, 4))
    assert [e - f for e, f in zip(coarse.exponents, fine.exponents, strict=True)] == [4, 4]
    np.testing.assert_allclose(coarse.unit / fine.unit, 127 / (7 * 16))


SHAPES: dict[str, dict[str, Any]] = {
    "padded": {"weight": (4, 3, 3, 3), "padding": (1, 1)},
    "uneven": {"weight": (4, 3, 3, 2), "padding": (2, 0), "stride": (2, 1)},
    "unpadded": {"weight": (4, 3, 2, 3)},
    "dilated": {"weight": (4, 3, 3, 2), "padding": (1, 2), "dilation": (2, 3)},
    "grouped": {"weight": (6, 1, 3, 3), "padding": (1, 1), "groups": 3},
    "pooled": {"weight": (4, 3, 2, 2), "padding": (1, 0), "window": (1, 3), "stride": (1, 1)},
    "dense": {"weight": (5, 3, 7, 6), "is_dense": True},
    "dense, pooled": {"weight": (5, 3, 7, 2), "window": (1, 3), "is_dense": True},
}
SIZE = (3, 7, 6)


def first_connection(case: str, rng: np.random.Generator) -> FoldedConnection:
    options = dict(SHAPES[case])
    return FoldedConnection(IMAGE, SIZE, rng.normal(size=options.pop("weight")), **options)


def linear(connection: FoldedConnection, weight: NDArray, inputs: torch.Tensor) -> NDArray[np.float64]:
    """What float64 weights of the folded shape make of the sums over the windows of inputs (n, C, H, W)."""
    (py, px), (sy, sx), (my, mx) = connection.window, connection.stride, connection.padding
    kernel = torch.from_numpy(connection.expand(weight).astype(np.float64))
    if connection.is_dense:
        return F.linear(inputs.flatten(1), kernel.flatten(1)).numpy()
    geometry = ((py * sy, px * sx), (py * my, px * mx), connection.dilation, connection.groups)
    return F.conv2d(inputs, kernel, None, *geometry).numpy()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("case", SHAPES)
def test_first_layer_sees_the_normalised_image(case: str, granularity: Granularity) -> None:
    """I + b = Σ w_int · (x − 255 m), zero outside the image, + b/Δ, up to the rounding of the bias."""
    rng = np.random.default_rng(0)
    connection = first_connection(case, rng)
    mean, std = np.array([0.3, 0.5, 0.9]), np.array([0.2, 0.5, 0.4])
    layer = FoldedLayer("first", (connection,), rng.normal(size=len(connection.weight)), 1.5)
    images = rng.integers(0, 256, (4, *SIZE))
    images[0], images[1] = 0, 255
    x = torch.from_numpy(images - 255 * mean[:, None, None])
    last = dense(np.ones((2, int(np.prod(connection.output_shape)))), name="out", source="first",
                 shape=connection.output_shape)  # fmt: skip
    network, units = quantize(
        FoldedNetwork(SIZE, (layer, last), mean, std), precision=Precision(granularity=granularity)
    )
    made = network.layers[0]
    axes = (slice(None), *[None] * (len(network.shapes[0]) - 1))
    padded = connection.padding != (0, 0)
    assert made.bias.shape == (network.shapes[0] if padded else (len(layer.bias),))
    current = np.stack([synaptic_sum(made.connections[0], image) for image in images])
    current = current + (made.bias if padded else made.bias[axes])
    integers = np.rint(
        effective(connection, FoldedNetwork(SIZE, (layer, last), mean, std)) / units[0].reshape(-1, 1, 1, 1)
    )
    assert np.abs(current - (linear(connection, integers, x) + (layer.bias / units[0])[axes])).max() <= 0.5 + 1e-6
    # In the unit of z it is what the float layer computes, up to the rounding of every weight and of the bias.
    windows = np.prod(connection.window)
    exact = linear(connection, connection.weight, x / torch.from_numpy(255 * std)[:, None, None]) / windows
    bound = 0.5 + 0.5 * linear(connection, np.ones_like(connection.weight), x.abs())
    assert (np.abs(current - (exact + layer.bias[axes]) / units[0][axes]) <= bound + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(GRANULARITIES),
    st.floats(1e-4, 1e4),
    st.integers(2, 8),
    st.integers(2, 8),
)
def test_dequantized_values_are_within_half_a_step(
    seed: int, granularity: Granularity, size: float, bits: int, last_bits: int
) -> None:
    rng = np.random.default_rng(seed)
    connection = FoldedConnection(IMAGE, (1, 3, 3), rng.normal(size=(3, 1, 2, 2)) * size)
    first = FoldedLayer("first", (connection,), rng.normal(size=3) * size, float(rng.uniform(0.1, 3)) * size)
    last = dense(
        rng.normal(size=(4, 12)) * size, rng.normal(size=4) * size, name="out", source="first", shape=(3, 2, 2)
    )
    folded = plain(first, last, shape=(1, 3, 3))
    network, units = quantize(folded, precision=Precision(bits, {"out": last_bits}, granularity))
    for layer, exact, unit, width in zip(network.layers, (first, last), units, (bits, last_bits), strict=True):
        made, limit = layer.connections[0], 2 ** (width - 1) - 1
        half = unit / 2 * (1 + 1e-9)
        weight = made.weight.reshape(len(half), -1) * (unit * 2.0**made.exponent)[:, None]
        error = np.abs(weight - exact.connections[0].weight.reshape(len(half), -1))
        assert (error <= half[:, None] * 2**made.exponent).all()
        assert (np.abs(layer.bias * unit - exact.bias) <= half).all()
        assert made.exponent == 8 - width and np.abs(made.weight.astype(int)).max() == limit
        if granularity == "channel" and not layer.is_readout:
            assert (np.abs(made.weight.astype(int)).reshape(len(half), -1).max(1) == limit).all()
        if layer.is_readout or granularity == "layer":
            assert len(set(unit.tolist())) == 1
        if layer.threshold is not None:
            assert (np.abs(layer.threshold * unit - exact.threshold) <= half).all() or (layer.threshold == 1).any()
            assert (layer.v0 == layer.threshold // 2).all()


def shortcut(factors: Sequence[float], window: tuple[int, int] = (1, 1), bits: int = 8) -> Layer:
    """A layer of one weight of 127 (Δ = 1 at 8 bits) per channel and an identity shortcut with the given factors."""
    count = len(factors)
    source = FoldedConnection(IMAGE, (1, 4, 4), np.ones((count, 1, 1, 1)))
    first = FoldedLayer("a", (source,), np.zeros(count), 1.0)
    own = FoldedConnection("a", (count, 4, 4), 127.0 * np.ones((count, 1, *window)), stride=window, groups=count)
    identity = FoldedConnection(
        "a", (count, 4, 4), np.reshape(np.array(factors, np.float64), (-1, 1, 1, 1)), window=window, groups=count,
        is_identity=True,
    )  # fmt: skip
    layer = FoldedLayer("b", (own, identity), np.zeros(count), 1.0)
    size = count * 16 // (window[0] * window[1])
    last = dense(np.ones((2, size)), name="out", source="b", shape=own.output_shape)
    return quantize(plain(first, layer, last, shape=(1, 4, 4)), precision=Precision(bits))[0].layers[1]


def factor_of(layer: Layer) -> NDArray[np.int64]:
    """Sum of the digits of the shortcut, (O,)."""
    total = np.zeros(layer.outputs, np.int64)
    for digit in layer.connections[1:]:
        total += digit.weight[:, 0, 0, 0].astype(np.int64) << digit.exponent
    return total


@pytest.mark.parametrize(
    ("factor", "digits"),
    [(1, [(1, 0)]), (0, [(0, 0)]), (63, [(63, 0)]), (64, [(-64, 0), (1, 7)]), (-64, [(-64, 0)]), (256, [(2, 7)])],
)
def test_digits_by_hand(factor: int, digits: list[tuple[int, int]]) -> None:
    found = [(int(c.weight.item()), c.exponent) for c in shortcut([factor]).connections[1:]]
    assert found == digits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-(2**20), 2**20), min_size=1, max_size=3))
def test_digits_of_an_identity_shortcut_add_up_to_the_rounded_factor(factors: list[float]) -> None:
    layer = shortcut(factors)
    assert factor_of(layer).tolist() == np.rint(np.array(factors)).astype(int).tolist()
    exponents = [c.exponent for c in layer.connections[1:]]
    assert exponents == sorted(set(exponents)) and set(exponents) <= {0, 7, 14}
    for digit in layer.connections[1:]:
        assert digit.groups == len(factors) and np.abs(digit.weight.astype(int)).max() <= 64


def test_a_pooled_shortcut_is_divided_by_the_window_and_repeats() -> None:
    layer = shortcut([1000.0, -6.0], (2, 2))
    assert factor_of(layer).tolist() == [250, -2]  # 1.5 to even
    for digit in layer.connections[1:]:
        assert digit.weight.shape == (2, 1, 2, 2) and digit.stride == (2, 2)
        assert (digit.weight == digit.weight[:, :, :1, :1]).all()


def test_the_shortcut_keeps_its_precision_with_few_bits() -> None:
    """Three bits: steps of 127/3, units of 127/96; the factor is a multiple of the unit."""
    assert factor_of(shortcut([1000.0], bits=3)).tolist() == [round(1000 * 96 / 127)]


@pytest.mark.parametrize("factor", [2.0**20 + 1, 1e9])
def test_a_large_shortcut_enlarges_the_unit(factor: float) -> None:
    """Weights that are small against the shortcut, or all 0, do not decide Δ alone: the factor becomes 2²⁰ units."""
    assert factor_of(shortcut([factor])).tolist() == [2**20]


@pytest.mark.parametrize("dead", [0, 1, 6, 8])
def test_dead_channels_leave_the_exponents_of_the_others_alone(dead: int) -> None:
    """Two convolutions into one layer, the second with 4 times the weights; in some channels one has only zeros."""
    rng = np.random.default_rng(0)
    small, large = (rng.uniform(0.5, 1, (16, 3, 1, 1)) * size for size in (1.0, 4.0))
    small[:dead], large[8 : 8 + dead] = 0, 1e-12 * large[8 : 8 + dead]
    layer = FoldedLayer("first", tuple(FoldedConnection(IMAGE, SIZE, w) for w in (small, large)), np.zeros(16), 1.0)
    grid = choose_grid(layer, plain(layer, shape=SIZE), Precision())
    assert grid.exponents == ((0, 2) if dead < 8 else grid.exponents)
    for index, weight in enumerate((small, large)):
        alive = np.abs(weight).max(axis=(1, 2, 3)) > 1e-6
        scaled = effective(layer.connections[index], plain(layer, shape=SIZE)) / grid.steps(index)
        assert (np.abs(np.rint(scaled[alive])).max(axis=(1, 2, 3)) >= 30).all()


def test_geometry_is_kept() -> None:
    geometry: dict[str, Any] = {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 3), "groups": 3}
    connection = FoldedConnection(IMAGE, SIZE, np.random.default_rng(0).normal(size=(6, 1, 3, 2)), **geometry)
    first = FoldedLayer("first", (connection,), np.zeros(6), 1.0)
    shape = connection.output_shape
    folded = plain(first, dense(np.ones((2, 6 * 3 * 7)), name="out", source="first", shape=shape), shape=SIZE)
    made = quantize(folded)[0].layers[0].connections[0]
    assert {key: getattr(made, key) for key in geometry} == geometry
