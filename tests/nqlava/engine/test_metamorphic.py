"""What must hold between a run and another one of a changed network, or of other samples: no expected values needed."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deploy.lava import build
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.reference import synaptic_sum
from nqlava.testing.engines import kernels
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks
from nqlava.trace import DIGESTS, Trace, concatenate

few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
every_kind = pytest.mark.parametrize("kind", ["fastest", "pytorch"])


def run(kind: str, network: IntegerNetwork, images: np.ndarray, steps: int) -> Trace:
    with kernels(kind) as engine:
        return engine(network).run(images, steps, membranes=True)


def spikes(trace: Trace, network: IntegerNetwork) -> dict[str, np.ndarray]:
    """bool (samples, T, *shape) by layer."""
    return {layer.name: trace.layer_spikes(i) for i, layer in enumerate(network.layers[:-1])}


def changed(network: IntegerNetwork, change: Callable[[Layer], Layer]) -> IntegerNetwork:
    return IntegerNetwork(network.input_shape, tuple(map(change, network.layers)))


def assert_same_spikes(network: IntegerNetwork, one: Trace, other_network: IntegerNetwork, other: Trace) -> None:
    """In all layers of ``network``; the other may have more."""
    found = spikes(other, other_network)
    for name, values in spikes(one, network).items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@every_kind
@few
@given(networks(), st.integers(1, 10), st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_a_sample_does_not_depend_on_the_others(
    kind: str, network: IntegerNetwork, steps: int, chosen: list[int]
) -> None:
    """However samples are chosen, ordered, repeated, appended or split: each gives what it gives alone."""
    images = images_for(network, 4)
    whole, some = run(kind, network, images, steps), run(kind, network, images[chosen], steps)
    for one, other in zip(whole.spikes + whole.membranes, some.spikes + some.membranes, strict=True):
        np.testing.assert_array_equal(other, one[chosen])
    np.testing.assert_array_equal(some.readout, whole.readout[chosen])
    parts = [run(kind, network, part, steps) for part in (images[:1], images[1:])]
    digests = [part.digest(network.digest(), start) for part, start in zip(parts, (0, 1), strict=True)]
    assert whole.digest(network.digest()) == sum(digests) % DIGESTS
    assert whole.saturation_counts() == concatenate(parts).saturation_counts()


@every_kind
@few
@given(networks(), st.integers(1, 10), st.integers(1, 10))
def test_fewer_steps_are_the_first_of_more(kind: str, network: IntegerNetwork, steps: int, more: int) -> None:
    images = images_for(network, 3)
    short, long = run(kind, network, images, steps), run(kind, network, images, steps + more)
    for one, other in zip(short.spikes, long.spikes, strict=True):
        np.testing.assert_array_equal(other[:, :steps], one)
    np.testing.assert_array_equal(long.readout[:, :steps], short.readout)
    assert all(a <= b for a, b in zip(short.saturation_counts(), long.saturation_counts(), strict=True))


def as_dense(network: IntegerNetwork, v0: Mapping[str, np.ndarray] | None = None) -> IntegerNetwork:
    """The same network with the matrix of every convolution, so that each neuron can have its own v(0)."""

    def matrix(c: Connection) -> np.ndarray:
        shape = network.shape_of[c.source]
        units = np.eye(int(np.prod(shape)), dtype=np.int64).reshape(-1, *shape)
        return np.stack([synaptic_sum(replace(c, exponent=0), unit).reshape(-1) for unit in units], axis=1)

    def spread(values: np.ndarray, name: str) -> np.ndarray:
        shape = network.shape_of[name]
        whole = np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)
        return whole.reshape(-1).astype(np.int32)

    def dense(layer: Layer) -> Layer:
        return Layer(
            layer.name,
            tuple(Connection(c.source, matrix(c).astype(np.int8), c.exponent) for c in layer.connections),
            spread(layer.bias, layer.name),
            None if layer.threshold is None else spread(layer.threshold, layer.name),
            spread(layer.v0 if v0 is None else v0[layer.name], layer.name),
            layer.reset,
        )

    return changed(network, dense)


@every_kind
@few
@given(networks(longest=2), st.integers(1, 5), st.integers(1, 9))
def test_a_run_continues_from_its_last_potentials(kind: str, network: IntegerNetwork, steps: int, more: int) -> None:
    """And a convolution is the dense layer with its matrix."""
    images = images_for(network, 1)
    whole, first = run(kind, network, images, steps + more), run(kind, network, images, steps)
    v = {layer.name: first.layer_membranes(i)[0] for i, layer in enumerate(network.layers[:-1])}
    v[network.layers[-1].name] = first.readout[0, -1]
    second = run(kind, as_dense(network, v), images, more)
    for index, values in enumerate(second.spikes):
        continued = np.unpackbits(values, axis=-1)[..., : np.prod(network.shapes[index])].astype(bool)
        np.testing.assert_array_equal(continued, whole.layer_spikes(index)[:, steps:].reshape(1, more, -1))
        np.testing.assert_array_equal(second.membranes[index], whole.layer_membranes(index).reshape(1, -1))
    np.testing.assert_array_equal(second.readout, whole.readout[:, steps:])
    np.testing.assert_array_equal(first.saturations + second.saturations, whole.saturations)


@every_kind
@few
@given(networks(), st.integers(0, 99), st.integers(1, 6))
def test_permuted_channels_give_permuted_spikes(kind: str, network: IntegerNetwork, seed: int, steps: int) -> None:
    """Of the image, of hidden layers and of the classes; not where groups tie channels together."""
    rng = np.random.default_rng(seed)
    tied = {
        name for layer in network.layers for c in layer.connections if c.groups > 1 for name in (layer.name, c.source)
    }
    order = {
        name: np.arange(shape[0]) if name in tied else rng.permutation(shape[0])
        for name, shape in network.shape_of.items()
    }
    assume(any((places != np.arange(len(places))).any() for places in order.values()))

    def permuted(layer: Layer) -> Layer:
        def of_inputs(c: Connection) -> np.ndarray:
            weight = c.weight[order[layer.name]]
            if c.groups > 1:
                return weight
            if c.is_convolution:
                return weight[:, order[c.source]]
            shape = network.shape_of[c.source]
            return weight.reshape(-1, *shape)[:, order[c.source]].reshape(weight.shape)

        mine = order[layer.name]
        return replace(
            layer,
            connections=tuple(replace(c, weight=of_inputs(c)) for c in layer.connections),
            bias=layer.bias[mine],
            threshold=None if layer.threshold is None else layer.threshold[mine],
            v0=layer.v0[mine],
        )

    images = images_for(network, 3)
    other = changed(network, permuted)
    one, two = run(kind, network, images, steps), run(kind, other, images[:, order[IMAGE]], steps)
    found = spikes(two, other)
    for name, values in spikes(one, network).items():
        np.testing.assert_array_equal(found[name], values[:, :, order[name]])
    np.testing.assert_array_equal(two.readout, one.readout[:, :, order[network.layers[-1].name]])
    assert one.saturation_counts() == two.saturation_counts()


@every_kind
@few
@given(networks(extreme=False), st.sampled_from(["exponent", "copies"]), st.integers(1, 3), st.integers(1, 6))
def test_scaled_networks_fire_alike(kind: str, network: IntegerNetwork, how: str, more: int, steps: int) -> None:
    """Weights, biases, thresholds and v(0) times the same number; potentials and read-outs are times that too."""
    factor = 2**more if how == "exponent" else 1 + more
    parameters = [p for layer in network.layers for p in (layer.bias, layer.v0, layer.threshold) if p is not None]
    assume(max(np.abs(p).max() for p in parameters) * factor <= MEMBRANE_MAX)
    assume(all(c.exponent + more <= 15 for layer in network.layers for c in layer.connections))

    def scaled(layer: Layer) -> Layer:
        if how == "exponent":
            connections = tuple(replace(c, exponent=c.exponent + more) for c in layer.connections)
        else:
            connections = layer.connections * factor
        return replace(
            layer,
            connections=connections,
            bias=layer.bias * factor,
            threshold=None if layer.threshold is None else layer.threshold * factor,
            v0=layer.v0 * factor,
        )

    images = images_for(network, 3)
    other = changed(network, scaled)
    one, two = run(kind, network, images, steps), run(kind, other, images, steps)
    assume(not one.saturations.any() and not two.saturations.any())
    assert_same_spikes(network, one, other, two)
    np.testing.assert_array_equal(two.readout, one.readout * factor)
    for a, b in zip(one.membranes, two.membranes, strict=True):
        np.testing.assert_array_equal(b, a * factor)


@every_kind
@few
@given(networks(), st.integers(0, 99), st.integers(1, 6))
def test_weights_may_be_split_over_two_connections(kind: str, network: IntegerNetwork, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)

    def split(layer: Layer) -> Layer:
        parts = []
        for c in layer.connections:
            weight = c.weight.astype(np.int64)
            one = rng.integers(np.maximum(-127, weight - 127), np.minimum(127, weight + 127) + 1)
            parts += [replace(c, weight=w.astype(np.int8)) for w in (one, weight - one)]
        return replace(layer, connections=tuple(parts))

    images = images_for(network, 3)
    other = changed(network, split)
    one, two = run(kind, network, images, steps), run(kind, other, images, steps)
    assert_same_spikes(network, one, other, two)
    np.testing.assert_array_equal(two.readout, one.readout)
    assert one.saturation_counts() == two.saturation_counts()


@every_kind
@few
@given(networks(), st.integers(1, 6))
def test_a_negated_read_out_has_negated_potentials(kind: str, network: IntegerNetwork, steps: int) -> None:
    """Registers are symmetric, ±(2²³ − 1), and so are weights."""
    last = network.layers[-1]
    negated = replace(
        last, connections=tuple(replace(c, weight=-c.weight) for c in last.connections), bias=-last.bias, v0=-last.v0
    )
    images = images_for(network, 3)
    one = run(kind, network, images, steps)
    two = run(kind, IntegerNetwork(network.input_shape, (*network.layers[:-1], negated)), images, steps)
    np.testing.assert_array_equal(two.readout, -one.readout)
    assert one.saturation_counts() == two.saturation_counts()


def with_silent_layer(network: IntegerNetwork) -> IntegerNetwork:
    """A layer of zero weights behind the image, which never fires, and synapses from it to the read-out."""
    pixels, last = int(np.prod(network.input_shape)), network.layers[-1]
    zero = np.zeros(3, np.int32)
    silent = Layer("silent", (Connection(IMAGE, np.zeros((3, pixels), np.int8)),), zero, zero + 1, zero)
    heard = Connection("silent", np.full((last.outputs, 3), 127, np.int8), 3)
    layers = (silent, *network.layers[:-1], replace(last, connections=(*last.connections, heard)))
    return IntegerNetwork(network.input_shape, layers)


def with_relay(network: IntegerNetwork) -> IntegerNetwork:
    """Between the last spiking layer and the read-out a layer with θ = 1 that repeats every spike at the same step."""
    *before, source, last = network.layers
    size = int(np.prod(network.shape_of[source.name]))
    zero = np.zeros(size, np.int32)
    relay = Layer("relay", (Connection(source.name, np.eye(size, dtype=np.int8)),), zero, zero + 1, zero)
    renamed = [replace(c, source="relay") if c.source == source.name else c for c in last.connections]
    return IntegerNetwork(network.input_shape, (*before, source, relay, replace(last, connections=tuple(renamed))))


@every_kind
@pytest.mark.parametrize("add", [with_silent_layer, with_relay])
@few
@given(network=networks(), steps=st.integers(1, 6))
def test_layers_of_no_consequence(
    kind: str, add: Callable[[IntegerNetwork], IntegerNetwork], network: IntegerNetwork, steps: int
) -> None:
    assume(len(network.layers) > 1)
    images = images_for(network, 3)
    other = add(network)
    one, two = run(kind, network, images, steps), run(kind, other, images, steps)
    assert_same_spikes(network, one, other, two)
    np.testing.assert_array_equal(two.readout, one.readout)


@settings(max_examples=2, deadline=None)
@given(networks(longest=2, graph=True), st.integers(2, 5))
def test_a_relay_makes_the_pipeline_of_lava_longer_and_changes_nothing(network: IntegerNetwork, steps: int) -> None:
    assume(len(network.layers) > 1)
    images, other = images_for(network, 3), with_relay(network)
    one = Engine(network).run(images, steps)
    two = concatenate(list(build.run(other, images, steps, batch=2)))
    assert_same_spikes(network, one, other, two)
    np.testing.assert_array_equal(two.readout, one.readout)
