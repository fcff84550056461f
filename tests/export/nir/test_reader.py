"""Graphs made elsewhere become integer networks where they are some, and are refused by node and reason where not."""

from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest

from export.nir.graph import to_graph
from export.nir.reader import GraphError, Reading, to_network
from nqlava.engine.integer import Engine
from nqlava.network import NetworkError
from tests.export.nir.test_readers import small_network


def neurons(shape: tuple[int, ...], threshold: float = 5.0, **changes: Any) -> nir.IF:
    values = {"r": np.ones(shape), "v_threshold": np.full(shape, threshold), "v_reset": np.zeros(shape)}
    return nir.IF(**values | changes)


def convolution(**changes: Any) -> nir.Conv2d:
    values = {
        "input_shape": (4, 4),
        "weight": np.arange(-9, 9, dtype=float).reshape(2, 1, 3, 3),
        "stride": 1,
        "padding": (1, 1),
        "dilation": 1,
        "groups": 1,
        "bias": np.array([3.0, -2.0]),
    }
    return nir.Conv2d(**values | changes)


def pooling(kind: type = nir.SumPool2d, size: int = 2, stride: int = 2, padding: int = 0) -> nir.NIRNode:
    return kind(np.full(2, size), np.full(2, stride), np.full(2, padding))


def flatten(*shape: int) -> nir.Flatten:
    return nir.Flatten({"input": np.array(shape)}, start_dim=0)


def chain(*nodes: nir.NIRNode) -> nir.NIRGraph:
    """A sequence between Input (1, 4, 4) and Output (3,); nodes are named n0, n1, ..."""
    named = {"in": nir.Input(np.array([1, 4, 4]))} | {f"n{i}": node for i, node in enumerate(nodes)}
    named["out"] = nir.Output(np.array([3]))
    names = list(named)
    return nir.NIRGraph(named, list(pairwise(names)), type_check=False)


def dense(inputs: int, value: float = 2.0) -> nir.Linear:
    return nir.Linear(np.full((3, inputs), value))


def network_with(*changed: nir.NIRNode) -> nir.NIRGraph:
    """Convolution, neurons, flatten and linear layer; with the nodes given in place of the first two."""
    return chain(*(changed or (convolution(), neurons((2, 4, 4)))), flatten(2, 4, 4), dense(32))


def test_convolution_neurons_and_linear_layer_become_two_layers() -> None:
    found = to_network(network_with())
    assert not found.own
    first, readout = found.network.layers
    assert (first.name, readout.name) == ("n1", "out")
    assert first.connections[0].weight.reshape(-1).tolist() == list(range(-9, 9))
    assert first.bias.tolist() == [3, -2]
    assert readout.connections[0].weight.tolist() == [[2] * 32] * 3


@pytest.mark.parametrize(
    ("reading", "threshold", "expected"),
    [
        (Reading(), 5.0, (6, "hard", 0)),  # v > 5 is v >= 6 for integers
        (Reading(), 4.5, (5, "hard", 0)),
        (Reading(spike=">="), 4.5, (5, "hard", 0)),
        (Reading(spike=">="), 5.0, (5, "hard", 0)),
        (Reading(spike=">=", reset="soft"), 5.0, (5, "soft", 0)),
        (Reading(spike=">", reset="soft"), 5.0, (5, "soft", -1)),  # v > 5, minus 5, is v - 1 >= 5, minus 5
    ],
)
def test_neurons_are_read_as_asked(reading: Reading, threshold: float, expected: tuple[int, str, int]) -> None:
    layer = to_network(network_with(convolution(), neurons((2, 4, 4), threshold)), reading).network.layers[0]
    assert layer.threshold is not None
    assert (layer.threshold[0], layer.reset, layer.v0[0]) == expected


@pytest.mark.parametrize("spike", [">", ">="])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_neurons_spike_as_the_reading_says(spike: Any, reset: Any) -> None:
    """One pixel of 2, weight 3 and bias -1: 5 more at every step, threshold 10."""
    one = nir.Conv2d((1, 1), np.full((1, 1, 1, 1), 3.0), 1, 0, 1, 1, np.array([-1.0]))
    nodes = {
        "in": nir.Input(np.array([1, 1, 1])),
        "w": one,
        "if": neurons((1, 1, 1), 10.0),
        "r": dense(1, 1.0),
        "out": nir.Output(np.array([3])),
    }
    graph = nir.NIRGraph(nodes, [("in", "w"), ("w", "if"), ("if", "r"), ("r", "out")], type_check=False)
    network = to_network(graph, Reading(spike, reset)).network
    trace = Engine(network).run(np.full((1, 1, 1, 1), 2, np.uint8), 7)
    v, expected = 0, []
    for _ in range(7):
        v += 5
        fires = v > 10 if spike == ">" else v >= 10
        expected.append(fires)
        v = (v - 10 if reset == "soft" else 0) if fires else v
    assert trace.layer_spikes(0).reshape(-1).tolist() == expected


def test_pooling_goes_into_the_kernels() -> None:
    summed = chain(
        convolution(), neurons((2, 4, 4)), pooling(), flatten(2, 2, 2), nir.Linear(np.arange(24.0).reshape(3, 8))
    )
    averaged = chain(
        convolution(),
        neurons((2, 4, 4)),
        pooling(nir.AvgPool2d),
        flatten(2, 2, 2),
        nir.Linear(4 * np.arange(24.0).reshape(3, 8)),
    )
    one, two = to_network(summed).network, to_network(averaged).network
    assert one.digest() == two.digest()
    assert one.layers[1].connections[0].weight[0].reshape(2, 4, 4)[0].tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [2, 2, 3, 3],
    ]


def test_averages_are_divided_exactly() -> None:
    """127 · 9 / 9 = 127 for all integers, where 127 · 9 · (1 / 9) may not be."""
    values = np.arange(-127.0, 128.0)
    graph = chain(pooling(nir.AvgPool2d, 3, 3), flatten(1, 1, 1), nir.Linear(9 * values[:, None]))
    graph.nodes["out"] = nir.Output(np.array([255]))
    graph.nodes["in"] = nir.Input(np.array([1, 3, 3]))
    (readout,) = to_network(graph).network.layers
    np.testing.assert_array_equal(readout.connections[0].weight, values[:, None].repeat(9, 1))


def test_edges_without_weights_are_identities() -> None:
    nodes = {
        "in": nir.Input(np.array([1, 4, 4])),
        "a": neurons((1, 4, 4), 100.0),
        "b": neurons((1, 4, 4), 1.0),
        "flat": flatten(1, 4, 4),
        "w": dense(16),
        "out": nir.Output(np.array([3])),
    }
    edges = [("in", "a"), ("a", "b"), ("b", "flat"), ("flat", "w"), ("w", "out")]
    layers = to_network(nir.NIRGraph(nodes, edges, type_check=False)).network.layers
    assert [layer.connections[0].weight.tolist() for layer in layers[:2]] == [[[[[1]]]]] * 2


def test_two_ways_into_the_same_neurons_add_up() -> None:
    nodes = {
        "in": nir.Input(np.array([1, 4, 4])),
        "w": convolution(),
        "a": neurons((2, 4, 4)),
        "v": convolution(weight=np.ones((2, 2, 3, 3))),
        "shortcut": nir.Scale(np.full((2, 4, 4), 640.0)),
        "b": neurons((2, 4, 4)),
        "flat": flatten(2, 4, 4),
        "r": dense(32),
        "out": nir.Output(np.array([3])),
    }
    edges = [("in", "w"), ("w", "a"), ("a", "v"), ("a", "shortcut"), ("v", "b"), ("shortcut", "b"), ("b", "flat")]
    network = to_network(nir.NIRGraph(nodes, [*edges, ("flat", "r"), ("r", "out")], type_check=False)).network
    identity = network.layers[1].connections[1]
    assert (identity.groups, int(identity.weight[0, 0, 0, 0]) << identity.exponent) == (2, 640)
    assert network.layers[1].bias.tolist() == [3, -2]


LIF = nir.LIF(np.ones((2, 4, 4)), np.ones((2, 4, 4)), np.zeros((2, 4, 4)), np.ones((2, 4, 4)))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (network_with(convolution(), LIF), r"node n1 \(LIF\): type is LIF; allowed: Input, Conv2d"),
        (
            network_with(convolution(weight=np.full((2, 1, 3, 3), 0.3)), neurons((2, 4, 4))),
            r"node n0 \(Conv2d\): weight is 0.3; allowed: integers; .* export.to_netx",
        ),
        (network_with(convolution(weight=np.full((2, 1, 3, 3), 301.0)), neurons((2, 4, 4))), "n0 .*weight is 301"),
        (network_with(convolution(weight=np.full((2, 1, 3, 3), np.nan)), neurons((2, 4, 4))), "n0 .*not finite"),
        (network_with(convolution(bias=np.array([0.5, 0])), neurons((2, 4, 4))), "n1 .*bias is 0.5; allowed: integers"),
        (network_with(convolution(bias=np.array([1e9, 0])), neurons((2, 4, 4))), "bias is 10+.0; allowed: integers of"),
        (network_with(convolution(groups=0), neurons((2, 4, 4))), "n0 .*groups is 0"),
        (network_with(convolution(stride=(1.5, 1)), neurons((2, 4, 4))), "n0 .*stride is"),
        (network_with(convolution(input_shape=(5, 4)), neurons((2, 4, 4))), "n0 .*input_shape is"),
        (network_with(convolution(), neurons((2, 4, 5))), r"n1 .*v_threshold is of shape \(2, 4, 5\)"),
        (network_with(convolution(), neurons((2, 4, 4), -1.5)), "threshold"),
        (
            network_with(convolution(), neurons((2, 4, 4), v_threshold=np.arange(32.0).reshape(2, 4, 4))),
            "n1 .*v_threshold is different within a channel",
        ),
        (network_with(convolution(), neurons((2, 4, 4), v_reset=np.full((2, 4, 4), 1.0))), "n1 .*v_reset is 1"),
        (network_with(convolution(), neurons((2, 4, 4), r=np.full((2, 4, 4), 2.0))), "n1 .*r is not 1"),
        (network_with(convolution(), convolution(), neurons((2, 4, 4))), "n1 .*place is behind other weights"),
        (chain(convolution(), neurons((2, 4, 4)), dense(16)), "n2 .*allowed: Flatten between"),
        (chain(convolution(), neurons((2, 4, 4)), flatten(2, 4, 4), dense(31)), r"layer out|weight is shape"),
        (chain(convolution(), neurons((2, 4, 4)), pooling(stride=1), flatten(2, 3, 3), dense(18)), "n2 .*kernel_size"),
        (
            chain(convolution(), neurons((2, 4, 4)), flatten(2, 4, 4), dense(32), neurons((3,))),
            r"node out \(Output\): source is n4 \(IF\); allowed: I",
        ),
        (chain(convolution(), neurons((2, 4, 4))), "out"),
        (
            chain(convolution(), neurons((2, 4, 4)), flatten(2, 4, 4), nir.I(np.ones(32)), dense(32)),
            r"node n3 \(I\): place is between other nodes; allowed: I directly before the Output only",
        ),
    ],
)
def test_other_graphs_are_refused_by_node_and_reason(graph: nir.NIRGraph, message: str) -> None:
    with pytest.raises((GraphError, NetworkError), match=message) as caught:
        to_network(graph)
    assert "\n" not in str(caught.value)


def changed(node: nir.NIRNode, **values: Any) -> nir.NIRNode:
    """A node as only a file can hold it: NIR's own constructor would not take it."""
    for key, value in values.items():
        setattr(node, key, value)
    return node


BEHIND_FLATTEN = "place is behind Flatten; allowed: Affine or Linear there"
TWO = neurons((2, 4, 4))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((convolution(), flatten(2, 4, 4), neurons((32,))), "n1 .*place is behind weights; allowed: between neurons"),
        ((flatten(1, 4, 4), neurons((16,)), dense(16)), "n0 .*target is neurons; allowed: Affine or Linear behind"),
        ((convolution(), pooling(), neurons((2, 2, 2))), "n1 .*place is behind weights or Flatten; allowed: between"),
        ((pooling(size=8, stride=8), convolution()), r"n0 .*kernel_size is .*; allowed: windows within \(1, 4, 4\)"),
        ((pooling(padding=1), convolution()), "n0 .*kernel_size is .*padding.*; allowed: windows that do not overlap"),
        (
            (changed(convolution(), weight=np.ones((2, 9))), TWO),
            r"weight is of shape \(2, 9\); allowed: \(O, I, k",
        ),
        ((flatten(1, 4, 4), changed(dense(16), weight=np.ones((3, 16, 1)))), r"weight is of shape .*allowed: \(O, N\)"),
        ((changed(convolution(), bias=np.ones(3)), TWO), r"n0 .*bias is of shape \(3,\); allowed: \(2,\)"),
        ((flatten(1, 4, 4), convolution(), TWO), f"n1 .*{BEHIND_FLATTEN}"),
        ((flatten(1, 4, 4), nir.Scale(np.ones(16)), dense(16)), f"n1 .*{BEHIND_FLATTEN}"),
        (
            (nir.Scale(np.ones((1, 4, 5))), convolution(), TWO),
            r"n0 .*scale is of shape \(1, 4, 5\); allowed: \(1, 4",
        ),
        ((convolution(), nir.Scale(np.ones((3, 1, 1))), TWO), r"scale is of shape \(3, 1, 1\); allowed: \(2, ...\)"),
        (
            (convolution(), nir.Scale(np.arange(32.0).reshape(2, 4, 4)), TWO),
            "n1 .*scale is different within a channel; allowed: one factor per channel behind weights",
        ),
        (
            (changed(convolution(), padding="same", stride=(2, 2)), TWO),
            "padding is same; allowed: integers, 'valid'",
        ),
        ((changed(convolution(), padding=b"wide"), TWO), "padding is wide; allowed: integers, 'valid', or 'same' of"),
        ((pooling(), flatten(1, 2, 2), dense(5)), r"n2 .*weight is of shape \(3, 5\); allowed: \(O, 4\)"),
        (
            (pooling(), convolution(input_shape=(2, 2), dilation=2, padding=(2, 2)), neurons((2, 2, 2))),
            r"n1 .*dilation is \(2, 2\); allowed: \(1, 1\) behind pooling",
        ),
        (
            (pooling(size=3, stride=3), convolution(input_shape=(1, 1)), neurons((2, 1, 1))),
            r"n1 .*padding is \(1, 1\); allowed: 0 behind pooling of 4 by 3",
        ),
    ],
)
def test_nodes_between_neurons_are_refused_by_node_and_reason(nodes: tuple[nir.NIRNode, ...], message: str) -> None:
    end = () if isinstance(nodes[-1], nir.Linear) else (flatten(2, 4, 4), dense(32))
    with pytest.raises((GraphError, NetworkError), match=message) as caught:
        to_network(chain(*nodes, *end))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("padding", "pair"), [("same", (1, 1)), (b"same", (1, 1)), ("valid", (0, 0)), (b"valid", (0, 0))]
)
def test_padding_by_name(padding: str | bytes, pair: tuple[int, int]) -> None:
    size = 2 + 2 * pair[0]

    def graph(**changes: Any) -> nir.NIRGraph:
        nodes = changed(convolution(), **changes), neurons((2, size, size)), flatten(2, size, size), dense(2 * size**2)
        return chain(*nodes)

    assert to_network(graph(padding=padding)).network.digest() == to_network(graph(padding=pair)).network.digest()


def test_scales_multiply_what_comes_before() -> None:
    """Weights and bias of each channel behind weights; spikes of each channel, or neuron, behind neurons."""
    factors = np.array([2.0, -1.0]).reshape(2, 1, 1) * np.ones((2, 4, 4))
    plain = convolution()
    scaled = convolution(weight=plain.weight * factors[:, :1, :1, None], bias=plain.bias * factors[:, 0, 0])
    behind = chain(plain, nir.Scale(factors), neurons((2, 4, 4)), flatten(2, 4, 4), dense(32))
    assert to_network(behind).network.digest() == to_network(network_with(scaled, TWO)).network.digest()
    linear = nir.Linear(np.arange(48.0).reshape(3, 16))
    twice = chain(flatten(1, 4, 4), linear, nir.Scale(np.full(3, 2.0)))
    expected = chain(flatten(1, 4, 4), nir.Linear(2 * linear.weight))
    assert to_network(twice).network.digest() == to_network(expected).network.digest()


def test_factors_of_neurons_without_places_are_a_diagonal() -> None:
    """As edges without weights are; several in a row are multiplied."""
    ways = (nir.Scale(np.array([2.0, 3.0, 4.0])), nir.Scale(np.array([1.0, -1.0, 5.0])))
    start = flatten(1, 4, 4), dense(16), neurons((3,))
    for scales, factors in (((), [1, 1, 1]), (ways[:1], [2, 3, 4]), (ways, [2, -3, 20])):
        layer = to_network(chain(*start, *scales, neurons((3,)), dense(3))).network.layers[1]
        np.testing.assert_array_equal(layer.connections[0].weight, np.diag(factors))
    many = chain(flatten(1, 4, 4), nir.Linear(np.ones((2**14 + 1, 16))), neurons((2**14 + 1,)), nir.I(np.ones(1)))
    with pytest.raises(GraphError, match=r"^graph: factors for 16385 neurons; allowed: 16384$"):
        to_network(many)


def test_what_is_at_the_ends() -> None:
    graph = network_with()
    graph.nodes["in"] = nir.Input(np.array([4, 4]))
    with pytest.raises(GraphError, match=r"^node in \(Input\): shape is \[4 4\]; allowed: \(C, H, W\), or \(N,\)$"):
        to_network(graph)
    graph = network_with()
    graph.nodes["out"] = nir.Output(np.array([4]))
    with pytest.raises(GraphError, match=r"^node out \(Output\): shape is \[4\]; allowed: \(3,\)$"):
        to_network(graph)
    graph.nodes["out"] = nir.Flatten({"input": np.array([3])}, start_dim=0)
    with pytest.raises(GraphError, match=r"^graph: Output nodes are none; allowed: one$"):
        to_network(graph)
    graph = network_with()
    graph.edges.remove(("n0", "n1"))
    with pytest.raises(GraphError, match=r"^node n1 \(IF\): sources is none; allowed: at least one with weights$"):
        to_network(graph)


def test_biases_of_other_channels_are_refused() -> None:
    graph = network_with()
    graph.nodes["more"] = convolution(weight=np.ones((4, 1, 3, 3)), bias=np.ones(4))
    graph.edges += [("in", "more"), ("more", "n1")]
    with pytest.raises(GraphError, match=r"^node n1 \(IF\): bias is of shape \(4,\); allowed: \(2,\) or \(2, 4, 4\)$"):
        to_network(graph)


def test_layers_in_another_order_than_their_edges_are_refused() -> None:
    graph = to_graph(small_network())
    for name, number in (("conv1", 1), ("conv2", 0)):
        graph.nodes[name].metadata["layer"] = number
    with pytest.raises(GraphError, match=r"^node conv2 \(IF\): source is conv1; allowed: nodes that come before$"):
        to_network(graph)


def test_loops_and_loose_ends_are_refused() -> None:
    graph = network_with()
    graph.nodes["back"] = convolution(weight=np.ones((2, 2, 3, 3)))
    graph.edges += [("n1", "back"), ("back", "n1")]
    with pytest.raises(GraphError, match="in a loop of edges"):
        to_network(graph)
    graph = network_with()
    graph.nodes["loose"] = neurons((1, 4, 4))
    graph.edges.append(("in", "loose"))
    with pytest.raises(GraphError, match=r"node loose \(IF\): target is none"):
        to_network(graph)
    graph = network_with()
    graph.edges.append(("n1", "nowhere"))
    with pytest.raises(GraphError, match="there is no node nowhere"):
        to_network(graph)
    graph = network_with()
    graph.edges.append(graph.edges[-1])
    with pytest.raises(GraphError, match="edge n3 to out: it is there twice"):
        to_network(graph)


def test_hostile_graphs_are_refused_at_once() -> None:
    """2^60 ways through a ladder of nodes; and a window that would become 2^40 weights."""
    nodes: dict[str, nir.NIRNode] = {"in": nir.Input(np.array([1, 4, 4])), "out": nir.Output(np.array([3]))}
    steps = [[f"{side}{n}" for side in "ab"] for n in range(60)]
    nodes |= {name: pooling() for pair in steps for name in pair}
    edges = [(one, two) for low, high in pairwise(steps) for one in low for two in high]
    edges += [("in", name) for name in steps[0]] + [(name, "out") for name in steps[-1]]
    with pytest.raises(GraphError, match="number of sources is 2"):
        to_network(nir.NIRGraph(nodes, edges, type_check=False))
    graph = chain(pooling(size=2**20, stride=2**20), flatten(1, 1, 1), dense(1))
    graph.nodes["in"] = nir.Input(np.array([1, 2**20, 2**20]))
    with pytest.raises(GraphError, match="windows of 1048576 x 1048576; allowed: at most"):
        to_network(graph)


def test_a_changed_graph_loses_what_was_said_of_the_network() -> None:
    network = small_network()
    graph = to_graph(network)
    graph.nodes["conv1_in0"].bias = graph.nodes["conv1_in0"].bias + 1
    found = to_network(graph)
    assert found.changed
    assert found.network.layers[0].bias.tolist() == (network.layers[0].bias + 1).tolist()
    assert not found.network.info


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("v_initial", None, "v_initial"),
        ("v_initial", np.array([0.5]), "v_initial is 0.5"),
        ("reset", "explode", "metadata reset is explode"),
        ("reset", np.zeros((2, 2)), "metadata reset is "),
        ("layer", 99, "metadata layer is 99"),
        ("layer", "first", "metadata layer is first"),
        ("name", 7, "metadata name is 7"),
    ],
)
def test_damaged_metadata_are_refused(key: str, value: Any, message: str) -> None:
    graph = to_graph(small_network())
    graph.nodes["conv1"].metadata[key] = value
    with pytest.raises(GraphError, match=message):
        to_network(graph)


def test_arrays_in_the_place_of_metadata() -> None:
    """A graph whose format is no text is one of another writer; a digest that is none is that of another network."""
    graph = to_graph(small_network())
    graph.metadata["digest"] = np.zeros(3)
    assert to_network(graph).changed
    graph.metadata["version"] = np.zeros(3)
    with pytest.raises(GraphError, match=r"metadata version is \[0. 0. 0.\]; allowed: 1"):
        to_network(graph)
    graph.metadata["format"] = np.zeros(3)
    assert not to_network(graph).own


def test_a_newer_version_is_refused() -> None:
    graph = to_graph(small_network())
    graph.metadata["version"] = 2
    with pytest.raises(GraphError, match="metadata version is 2; allowed: 1"):
        to_network(graph)
