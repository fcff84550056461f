"""The NIR graph computes what the network computes, by NIR's own equations, and leads back to the same network."""

from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from export.fold.lower import lower
from export.nir import file as nir_file
from export.nir.graph import mistyped, to_graph
from export.nir.reader import to_network
from export.round.quantize import quantize
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for, random_layer
from nqlava.testing.strategies import networks
from tests.export.nir import oracle as nir_oracle
from train.loop.checkpoint import read_model
from train.shipped import model_path


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@settings(max_examples=40, deadline=None)
@given(networks(), st.booleans(), st.integers(1, 4))
def test_graph_computes_every_spike_and_readout(network: IntegerNetwork, fold: bool, steps: int) -> None:
    images = images_for(network, 3)
    graph = to_graph(network, fold_pooling=fold)
    spikes, readout = nir_oracle.simulate(graph, images, steps)
    trace = Engine(network).run(images, steps)
    names = {node.metadata["name"]: name for name, node in graph.nodes.items() if isinstance(node, nir.IF)}
    for index, layer in enumerate(network.layers[:-1]):
        np.testing.assert_array_equal(spikes[names[layer.name]], trace.layer_spikes(index))
    np.testing.assert_array_equal(readout, trace.readout)


@settings(max_examples=20, deadline=None)
@given(networks(extreme=False))
def test_currents_add_up_to_the_readout(network: IntegerNetwork) -> None:
    images = images_for(network, 2)
    _, currents = nir_oracle.simulate(to_graph(network, integrate_readout=False), images, 3)
    trace = Engine(network).run(images, 3)
    assume(not trace.saturations[-1].any())
    np.testing.assert_array_equal(network.layers[-1].v0 + currents.cumsum(1), trace.readout)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(networks(), st.booleans(), st.booleans())
def test_way_back_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, network: IntegerNetwork, fold: bool, integrate: bool
) -> None:
    folder = tmp_path_factory.mktemp("nir")
    nir_file.write(to_graph(network, fold_pooling=fold, integrate_readout=integrate), folder / "net.nir")
    found = to_network(nir_file.read(folder / "net.nir"))
    assert found.own
    assert not found.changed
    assert found.network.digest() == network.digest()
    netx.write(network, folder / "before.h5")
    netx.write(found.network, folder / "after.h5")
    assert (folder / "before.h5").read_bytes() == (folder / "after.h5").read_bytes()


@settings(max_examples=15, deadline=None)
@given(networks())
def test_type_check_of_nir_accepts_all_but_the_named_nodes(
    tmp_path_factory: pytest.TempPathFactory, network: IntegerNetwork
) -> None:
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    graph = to_graph(network)
    nir_file.write(graph, path)
    assume(not mistyped(graph))
    nir.read(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg_small", "resnet20"])
def test_shipped_networks_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    model = read_model(model_path(None, name)).network
    network, _ = quantize(lower(model, model.input_shape))
    network = IntegerNetwork(network.input_shape, network.layers, {"T": 4, "calibration_ann_accuracy": 91.1})
    assert netx.version_of(network) == {"vgg_small": 1, "resnet20": 2}[name]
    nir_file.write(to_graph(network), tmp_path / "net.nir")
    graph = nir.read(tmp_path / "net.nir")  # with nir's type check
    assert {"IF", "Conv2d", "SumPool2d"} <= {type(node).__name__ for node in graph.nodes.values()}
    found = to_network(nir_file.read(tmp_path / "net.nir"))
    netx.write(network, tmp_path / "before.h5")
    netx.write(found.network, tmp_path / "after.h5")
    assert (tmp_path / "before.h5").read_bytes() == (tmp_path / "after.h5").read_bytes()


def test_by_hand() -> None:
    """A pixel is weighed with 3 · 2^2 = 12, and the neuron counts for -5 in the read-out."""
    pixel = Connection(IMAGE, np.full((1, 1, 1, 1), 3, np.int8), exponent=2, stride=(2, 2))
    layers = (
        Layer("if", (pixel,), bias=int32(7), threshold=int32(100), v0=int32(50)),
        Layer("out", (Connection("if", np.full((1, 1), -5, np.int8)),), bias=int32(1), threshold=None, v0=int32(0)),
    )
    graph = to_graph(IntegerNetwork((1, 2, 2), layers))
    assert graph.edges == [
        ("input", "if_in0"),
        ("if_in0", "if"),
        ("if", "out_in0_flatten"),
        ("out_in0_flatten", "out_in0"),
        ("out_in0", "out"),
        ("out", "output"),
    ]
    convolution, neurons, affine = (graph.nodes[name] for name in ("if_in0", "if", "out_in0"))
    assert convolution.weight.tolist() == [[[[12.0]]]]
    assert convolution.bias.tolist() == [7.0]
    assert neurons.v_threshold.tolist() == [[[100.0]]]
    assert neurons.metadata["v_initial"].tolist() == [50]
    assert (affine.weight.tolist(), affine.bias.tolist()) == ([[-5.0]], [1.0])
    assert isinstance(graph.nodes["out"], nir.I)


def test_a_hard_reset_threshold_lies_between_integers() -> None:
    """NIR fires at v > v_threshold, other readers at v >= v_threshold: half below θ both are v >= θ."""
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (1, 2, 2), outputs=3, reset="hard")
    readout = random_layer(rng, "readout", (3,), source="hidden", outputs=2, readout=True)
    node = to_graph(IntegerNetwork((1, 2, 2), (hidden, readout))).nodes["hidden"]
    assert hidden.threshold is not None
    np.testing.assert_array_equal(node.v_threshold, hidden.threshold - 0.5)
    assert not node.v_reset.any()


def test_names_that_hdf5_or_pytorch_cannot_hold_are_kept_in_the_metadata() -> None:
    rng = np.random.default_rng(0)
    first = random_layer(rng, "a/b", (1, 2, 2), outputs=3)
    second = random_layer(rng, "a.b", (3,), source="a/b", outputs=3)
    readout = random_layer(rng, "output", (3,), source="a.b", outputs=2, readout=True)
    network = IntegerNetwork((1, 2, 2), (first, second, readout))
    graph = to_graph(network)
    assert [name for name, node in graph.nodes.items() if isinstance(node, nir.IF)] == ["a_b", "a_b_2"]
    assert [layer.name for layer in to_network(graph).network.layers] == ["a/b", "a.b", "output"]
