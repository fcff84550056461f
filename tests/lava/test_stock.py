"""Networks of Lava's stock processes and models equal the integer engine: every spike and every read-out."""

from collections import Counter

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lava.magma.compiler.compiler_graphs import find_processes
from lava.proc.graded.process import GradedReluVec, GradedVec

from deploy.lava import stock
from deploy.lava.pipeline import Pipeline
from deploy.lava.processes import ImageSource, Probe
from nqlava.engine.integer import Engine
from nqlava.network import MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for, random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from nqlava.trace import concatenate, first_difference


@pytest.fixture(scope="module")
def sequence() -> IntegerNetwork:
    """Strided, grouped and dilated convolutions, a bias per neuron, thresholds of three digits."""
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (2, 6, 7), outputs=4, kernel=(3, 2), padding=(1, 0), bias_map=True)
    second = random_layer(
        rng, "second", (4, 6, 6), source="first", outputs=6, kernel=(2, 3), stride=(2, 1), dilation=(2, 1), groups=2
    )
    out = random_layer(rng, "out", (6, 2, 4), source="second", outputs=3, readout=True)
    return IntegerNetwork((2, 6, 7), (first, second, out))


@pytest.fixture(scope="module")
def graph() -> IntegerNetwork:
    """Hard resets, shortcuts that wait for one to three steps, and exponents of convolutions and dense connections."""
    rng = np.random.default_rng(4)
    shape = (3, 4, 5)
    conv = {"outputs": 3, "kernel": (3, 3), "padding": (1, 1)}
    shortcut = random_connection(rng, "one", shape, exponent=6, outputs=3, kernel=(1, 1))
    image = random_connection(rng, "input", (1, 4, 5), outputs=3, kernel=(1, 1))
    last = random_connection(rng, "three", shape, outputs=4, exponent=5)
    skip = random_connection(rng, "input", (1, 4, 5), outputs=4)
    layers = (
        random_layer(rng, "one", (1, 4, 5), **conv, reset="hard"),
        random_layer(rng, "two", shape, source="one", exponent=2, **{**conv, "padding": (1, 0), "kernel": (3, 1)}),
        random_neurons(
            rng, "three", (random_connection(rng, "two", shape, **conv), shortcut, image), shape, reset="hard"
        ),
        random_neurons(rng, "out", (last, skip), (4,), readout=True),
    )
    return IntegerNetwork((1, 4, 5), layers)


@pytest.mark.slow
@pytest.mark.parametrize(("which", "steps", "gap"), [("sequence", 2, 0), ("graph", 3, 1)])
def test_equals_the_integer_engine(which: str, steps: int, gap: int, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(which)
    images = images_for(network, 3)
    expected = Engine(network).run(images, steps)
    assert all(expected.spike_counts())
    assert not expected.saturations.any()
    got = concatenate(list(stock.run(network, images, steps, gap=gap)))
    assert first_difference(network, expected, got) is None
    assert got.saturation_counts() == expected.saturation_counts()


def test_only_the_ends_are_not_stock(graph: IntegerNetwork) -> None:
    pipeline = Pipeline(graph, images_for(graph, 1), 2)
    source = ImageSource(images=pipeline.buffer, schedule=pipeline.schedule, transpose=True)
    stock.build(graph, source.s_out.flatten(), pipeline.schedule, pipeline.recorders)
    processes = find_processes(source)
    source.compile(stock.configuration(source))
    ours = [type(p) for p in processes if not p.model_class.__module__.startswith("lava.proc.")]
    assert Counter(ours) == {ImageSource: 1, Probe: 4}
    neurons = [p for p in processes if isinstance(p, GradedVec | GradedReluVec)]
    relayed = 60 + 3 * 20  # "one" waits for one step, and the image for up to three
    assert sum(np.prod(p.shape) for p in neurons) == 2 * 3 * 60 + 4 + relayed


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 9))
def test_accepted_networks_do_not_saturate(network: IntegerNetwork, steps: int) -> None:
    try:
        stock.require_buildable(network, steps)
    except ValueError:
        assume(False)
    assert not Engine(network).run(images_for(network, 6), steps).saturations.any()


def one_neuron(weight: int, *, bias: int = 0, threshold: int = 1, exponent: int = 0) -> IntegerNetwork:
    """A neuron over one pixel, and a read-out."""
    connection = Connection("input", np.full((1, 1), weight, np.int8), exponent)
    value = [np.array([n], np.int32) for n in (bias, threshold, 0)]
    out = Layer("out", (Connection("one", np.ones((1, 1), np.int8)),), value[2], None, value[2])
    return IntegerNetwork((1, 1, 1), (Layer("one", (connection,), *value), out))


@pytest.mark.parametrize(
    ("network", "steps", "message"),
    [
        (
            one_neuron(1, bias=MEMBRANE_MAX - 254),
            1,
            r"layer one may reach 8388608 within 1 steps; allowed: 8388607, as",
        ),
        (one_neuron(-1, bias=-4194304 + 128), 2, r"layer one may reach 8388\d\d\d within 2 steps"),
        (one_neuron(127, exponent=15), 1, "layer one may reach 1061191680 within 1 steps"),
    ],
)
def test_refusals(network: IntegerNetwork, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--backend stock: {message}") as caught:
        stock.run(network, images_for(network, 1), steps)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight", "bias", "steps"), [(127, MEMBRANE_MAX - 127 * 255, 1), (-1, (MEMBRANE_MAX - 1) // 2, 2)]
)
def test_the_limit_is_reached_exactly(weight: int, bias: int, steps: int) -> None:
    """u grows to 2²³ − 1 or 2²³ − 2 and just fires; with one step per sample the resets act at every step."""
    network = one_neuron(weight, bias=bias, threshold=MEMBRANE_MAX - 1)
    images = np.array([0, 255, 0], np.uint8).reshape(3, 1, 1, 1)
    expected = Engine(network).run(images, steps)
    assert expected.spike_counts()[0] in (1, 2)
    assert first_difference(network, expected, concatenate(list(stock.run(network, images, steps)))) is None
