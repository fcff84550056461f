"""The Lava network equals the integer engine: every spike, every read-out, every saturation."""

from dataclasses import replace

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lava.magma.core.run_configs import Loihi2HwCfg

from deploy.errors import Loihi2UnavailableError
from deploy.lava import build, pipeline
from deploy.lava.models import PyIFNeuron, PyIntegrator
from deploy.lava.processes import IFNeuron, Integrator
from deploy.lava.schedule import Schedule
from nqlava.engine.integer import Engine
from nqlava.network import Connection, IntegerNetwork, Layer, NetworkError
from nqlava.testing.networks import images_for, random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from nqlava.trace import Trace, concatenate, first_difference


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    conv = random_layer(rng, "conv", (2, 6, 8), outputs=4, kernel=(3, 3), padding=(1, 1), bias_map=True)
    pooled = random_layer(rng, "pooled", (4, 6, 8), source="conv", outputs=3, kernel=(2, 3), window=2, padding=(1, 0))
    dense = random_layer(rng, "dense", (3, 4, 2), source="pooled", outputs=6)
    readout = random_layer(rng, "readout", (6,), source="dense", outputs=3, readout=True)
    return IntegerNetwork((2, 6, 8), (conv, pooled, dense, readout))


@pytest.fixture(scope="module")
def residual() -> IntegerNetwork:
    """A block with the identity in two digits, one with projections of stride 2 and hard resets, and long shortcuts."""
    rng = np.random.default_rng(1)
    conv = {"kernel": (3, 3), "padding": (1, 1)}
    shapes = {"stem": (4, 6, 8), "down": (6, 3, 4)}
    identity = np.ones((4, 1, 1, 1), np.int8)
    digits = [Connection("stem", identity * np.int8(n), e, groups=4) for n, e in ((30, 4), (-45, 0))]
    projection = {"outputs": 6, "kernel": (1, 1), "stride": (2, 2)}

    def join(name: str, shape: tuple[int, ...], *connections: Connection, **rule: object) -> Layer:
        return random_neurons(rng, name, connections, shape, **rule)

    def connect(source: str, shape: tuple[int, ...], **geometry: object) -> Connection:
        return random_connection(rng, source, shape, **geometry)

    layers = (
        random_layer(rng, "stem", (2, 6, 8), outputs=4, **conv),
        random_layer(rng, "one.1", shapes["stem"], source="stem", outputs=4, bias_map=True, **conv),
        join("one.2", shapes["stem"], connect("one.1", shapes["stem"], outputs=4, **conv), *digits),
        random_layer(
            rng, "two.1", shapes["stem"], source="one.2", outputs=6, stride=(2, 2), exponent=3, reset="hard", **conv
        ),
        join(
            "two.2",
            shapes["down"],
            connect("two.1", shapes["down"], outputs=6, exponent=5, **conv),
            connect("one.2", shapes["stem"], **projection, exponent=7),
            connect("stem", shapes["stem"], **projection, exponent=7),
            connect("input", (2, 6, 8), **projection),
            reset="hard",
        ),
        join(
            "out",
            (3,),
            connect("two.2", shapes["down"], outputs=3),
            connect("one.1", shapes["stem"], outputs=3),
            readout=True,
        ),
    )
    return IntegerNetwork((2, 6, 8), layers)


def assert_equal(network: IntegerNetwork, got: Trace, images: np.ndarray, steps: int) -> None:
    expected = Engine(network).run(images, steps)
    assert first_difference(network, expected, got) is None
    assert got.saturation_counts() == expected.saturation_counts()


@pytest.mark.parametrize(("count", "batch", "gap", "steps"), [(7, 3, 0, 4), (6, 2, 3, 3), (3, 8, 0, 1), (5, 1, 1, 2)])
def test_equals_the_integer_engine(network: IntegerNetwork, count: int, batch: int, gap: int, steps: int) -> None:
    images = images_for(network, count)
    assert_equal(network, concatenate(list(build.run(network, images, steps, batch=batch, gap=gap))), images, steps)


def test_the_network_of_these_tests_spikes(network: IntegerNetwork) -> None:
    assert all(Engine(network).run(images_for(network, 7), 4).spike_counts())


@pytest.mark.parametrize(("count", "batch", "gap", "steps"), [(7, 3, 0, 4), (5, 1, 3, 2), (4, 2, 1, 9), (9, 2, 0, 1)])
def test_shortcuts(residual: IntegerNetwork, count: int, batch: int, gap: int, steps: int) -> None:
    """Their spikes wait for one to four places; with one step per sample several samples wait at once."""
    waits = [
        residual.depth_of[layer.name] - residual.depth_of[s] - 1 for layer in residual.layers for s in layer.sources
    ]
    assert sorted(waits) == [0, 0, 0, 0, 0, 0, 1, 1, 3, 3, 4]
    images = images_for(residual, count)
    assert_equal(residual, concatenate(list(build.run(residual, images, steps, batch=batch, gap=gap))), images, steps)


def test_every_shortcut_and_reset_of_these_tests_matters(residual: IntegerNetwork) -> None:
    images = images_for(residual, 7)
    expected = Engine(residual).run(images, 4)
    assert all(expected.spike_counts())
    for index, layer in enumerate(residual.layers):
        kinds = [replace(layer, reset="soft")] if layer.reset == "hard" else []
        if len(layer.connections) > 1:
            rest = (layer.connections[:i] + layer.connections[i + 1 :] for i in range(len(layer.connections)))
            kinds += [replace(layer, connections=connections) for connections in rest]
        for changed in kinds:
            layers = (*residual.layers[:index], changed, *residual.layers[index + 1 :])
            try:
                other = IntegerNetwork(residual.input_shape, layers)
            except NetworkError:  # the connection was the only one from its source
                continue
            assert first_difference(residual, expected, Engine(other).run(images, 4)) is not None


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(longest=5), st.integers(1, 9), st.integers(0, 3), st.integers(1, 5))
def test_random_networks(network: IntegerNetwork, steps: int, gap: int, batch: int) -> None:
    images = images_for(network, 5)
    assert_equal(network, concatenate(list(build.run(network, images, steps, batch=batch, gap=gap))), images, steps)


def test_saturations_are_counted_per_sample() -> None:
    """In the padded part of the last batch they are not counted."""
    rng = np.random.default_rng(3)
    hidden = random_layer(rng, "hidden", (1, 4, 4), outputs=5, extreme=True)
    out = random_layer(rng, "out", (5,), source="hidden", outputs=2, readout=True, extreme=True)
    network = IntegerNetwork((1, 4, 4), (hidden, out))
    images = images_for(network, 5)
    trace = concatenate(list(build.run(network, images, 6, batch=4)))
    assert trace.saturations.sum() > 0
    assert_equal(network, trace, images, 6)


@pytest.mark.parametrize("gap", [0, 1])
def test_many_small_chunks(network: IntegerNetwork, gap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one batch, shorter than the pipeline, so that results arrive chunks later and slots are reused."""
    monkeypatch.setattr(pipeline, "_CHUNK_BYTES", 1)
    images = images_for(network, 17)
    traces = list(build.run(network, images, 2, batch=2, gap=gap))
    assert len(traces) > 4
    assert_equal(network, concatenate(traces), images, 2)


def test_no_images(network: IntegerNetwork) -> None:
    assert list(build.run(network, images_for(network, 0), 2)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((1, 2, 6, 8))}, r"images are float64 of shape \(1, 2, 6, 8\); allowed: uint8"),
        ({"images": np.zeros((1, 2, 8, 6), np.uint8)}, r"allowed: uint8 of shape \(N, 2, 6, 8\)"),
        ({"steps": 0}, "steps is 0; allowed: at least 1"),
        ({"batch": 0}, "batch is 0; allowed: at least 1"),
        ({"gap": -1}, "gap is -1; allowed: at least 0"),
        ({"backend": "tpu"}, "backend is 'tpu'; allowed: cpu, loihi2"),
    ],
)
def test_bad_arguments(network: IntegerNetwork, arguments: dict, message: str) -> None:
    """They are refused by the call itself, before anything is started."""
    with pytest.raises(ValueError, match=message):
        build.run(network, **{"images": images_for(network, 1), "steps": 1, **arguments})


def test_loihi2_says_what_is_missing(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Loihi2UnavailableError, match="extension of Lava is not installed; join") as caught:
        build.run(network, images_for(network, 1), 1, backend="loihi2")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("lava.utils.loihi.is_installed", lambda: True)
    for models, missing in (({}, "IFNeuron and Integrator"), ({IFNeuron: PyIFNeuron}, "Integrator")):
        with pytest.raises(Loihi2UnavailableError, match=f"microcoded NcProcessModel for {missing}, which"):
            build.run_configuration("loihi2", models)
    with pytest.raises(Loihi2UnavailableError, match="backend cpu runs whole layers"):
        build.run(network, images_for(network, 1), 1, backend="loihi2")


def test_loihi2_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and callbacks reach Lava's configuration for the hardware; a simulation would not call callbacks."""
    monkeypatch.setattr("lava.utils.loihi.is_installed", lambda: True)
    models = {IFNeuron: PyIFNeuron, Integrator: PyIntegrator}
    configuration = build.run_configuration("loihi2", models, callbacks=["profiler"])
    assert isinstance(configuration, Loihi2HwCfg)
    assert configuration.exception_proc_model_map == models
    assert configuration.callback_fxs == ["profiler"]
    with pytest.raises(ValueError, match="callbacks are given; allowed: none with backend cpu"):
        build.run_configuration("cpu", callbacks=["profiler"])


def test_schedule_matches_the_documented_timing() -> None:
    """docs/semantics.md: local step k of sample s is computed at place l at t = s·P + k + l."""
    schedule = Schedule(steps=3, gap=2, batches=2, slots=9)
    for place in range(4):
        expected = {s * 5 + k + place: (s, k) for s in range(2) for k in range(1, 4)}
        assert {t: schedule.local(t, place) for t in range(1, 20) if schedule.local(t, place)} == expected
    assert schedule.total(4) == 2 * 5 - 2 + 4
    assert [schedule.finished(t, 4) for t in (6, 7, 11, 12, 99)] == [0, 1, 1, 2, 2]
