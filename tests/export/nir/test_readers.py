"""Readers of other projects load the graph and, set as docs/nir.md says, emit the same spikes at every step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import nirtorch
import numpy as np
import pytest
import torch
from snntorch.import_nir import import_from_nir
from torch import nn

from export.fold.lower import lower
from export.nir import file as nir_file
from export.nir.graph import to_graph
from export.nir.reader import Reading, to_network
from export.round.quantize import quantize
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork, Layer
from nqlava.testing.networks import images_for, random_layer
from nqlava.trace import Trace
from train.data.images import load
from train.loop.checkpoint import read_model
from train.shipped import model_path

STEPS = 4
Spikes = dict[str, list[np.ndarray]]


def small_network() -> IntegerNetwork:
    """Two convolutions, the second padded and behind 2x2 pooling, and a hidden dense layer: one threshold per layer."""
    rng = np.random.default_rng(3)

    def same_threshold(layer: Layer) -> Layer:
        assert layer.threshold is not None
        shared = np.full_like(layer.threshold, int(layer.threshold.min()))
        return Layer(layer.name, layer.connections, layer.bias, shared, layer.v0)

    layers = (
        same_threshold(random_layer(rng, "conv1", (3, 8, 10), outputs=4, kernel=(3, 3))),
        same_threshold(
            random_layer(rng, "conv2", (4, 6, 8), source="conv1", outputs=6, kernel=(3, 3), padding=(1, 1), window=2)
        ),
        same_threshold(random_layer(rng, "dense", (6, 3, 4), source="conv2", outputs=7)),
        random_layer(rng, "readout", (7,), source="dense", outputs=5, readout=True),
    )
    return IntegerNetwork((3, 8, 10), layers)


@pytest.fixture
def network() -> IntegerNetwork:
    return small_network()


@pytest.fixture
def reference(network: IntegerNetwork) -> Trace:
    trace = Engine(network).run(images_for(network, 4), STEPS)
    assert all(0.05 < trace.layer_spikes(index).mean() < 0.95 for index in range(3))
    return trace


def written(network: IntegerNetwork, path: Path, **options: bool) -> nir.NIRGraph:
    nir_file.write(to_graph(network, **options), path)
    return nir.read(path)


def recorded(model: nn.Module, names: list[str]) -> Spikes:
    """Lists that fill up with the spikes that the modules of these names return, alone or before their state."""
    found: Spikes = {name: [] for name in names}

    def record(into: list[np.ndarray]) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
            into.append((output[0] if isinstance(output, tuple) else output).detach().numpy().copy())

        return hook

    for name in names:
        model.get_submodule(name).register_forward_hook(record(found[name]))
    return found


def v_initial(graph: nir.NIRGraph, name: str) -> torch.Tensor:
    """(1, *shape), what the metadata say of v before the first step."""
    node = graph.nodes[name]
    value = torch.tensor(node.metadata["v_initial"], dtype=torch.float32)
    return value.reshape(1, -1, *(1,) * (node.r.ndim - 1)).expand(1, *node.r.shape)


def test_snntorch(network: IntegerNetwork, reference: Trace, tmp_path: Path) -> None:
    """snnTorch reads no SumPool2d and no I, flattens the batch too, and makes of IF a neuron that leaks (beta 0.9),

    fires at v > threshold and returns its potential beside the spikes, with which the next layer fails.
    """
    graph = written(network, tmp_path / "net.nir", fold_pooling=True, integrate_readout=False)
    model = import_from_nir(graph)
    names = ["conv1", "conv2", "dense"]
    spikes = recorded(model, names)
    scores = []
    for image in images_for(network, 4):
        for name in names:
            neuron = model.get_submodule(name)
            neuron.beta.fill_(1)
            neuron.init_hidden = True
            neuron.mem_reset = torch.zeros_like  # no second reset of what is still above the threshold
            # For integers v + 1/2 > threshold is v >= threshold.
            shape = neuron_shape(graph, name)
            neuron.mem = v_initial(graph, name).reshape(shape) + 0.5
        total = torch.tensor(network.layers[-1].v0).float()
        state: Any = None
        for _ in range(STEPS):
            current, state = model(torch.from_numpy(image)[None].float(), state)
            total = total + current.detach()
            scores.append(total.numpy().reshape(-1))
    for index, name in enumerate(names):
        shape = (4, STEPS, *graph.nodes[name].r.shape)
        np.testing.assert_array_equal(np.concatenate(spikes[name]).reshape(shape), reference.layer_spikes(index))
    np.testing.assert_array_equal(np.stack(scores).reshape(reference.readout.shape), reference.readout)


def neuron_shape(graph: nir.NIRGraph, name: str) -> tuple[int, ...]:
    """Of snnTorch's membrane potential: Flatten has removed the batch of 1 in front of dense layers."""
    shape = graph.nodes[name].r.shape
    return shape if len(shape) == 1 else (1, *shape)


class Neurons(nn.Module):
    """The module of docs/nir.md for IF and I nodes."""

    def __init__(self, node: nir.IF | nir.I) -> None:
        super().__init__()
        self.v = torch.tensor(node.metadata["v_initial"]).float().reshape(-1, *(1,) * (node.r.ndim - 1))
        self.threshold = torch.from_numpy(node.v_threshold) if isinstance(node, nir.IF) else None

    def forward(self, current: torch.Tensor) -> torch.Tensor:
        v = self.v + current
        if self.threshold is None:
            self.v = v
            return v
        spikes = (v >= self.threshold).float()
        self.v = v - spikes * self.threshold
        return spikes


class Factor(nn.Module):
    """The module of docs/nir.md for Scale nodes."""

    def __init__(self, node: nir.Scale) -> None:
        super().__init__()
        self.scale = torch.from_numpy(node.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def linear(node: nir.Affine) -> nn.Linear:
    """nirtorch's own leaves the bias at PyTorch's random values."""
    module = nn.Linear(*node.weight.shape[::-1])
    module.weight.data, module.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return module


@pytest.mark.slow
def test_nirtorch_with_shortcuts_and_biases_at_borders(tmp_path: Path) -> None:
    """The shipped ResNet-20 in the graph executor behind most readers; which flattens the batch too."""
    model = read_model(model_path(None, "resnet20")).network
    network, _ = quantize(lower(model, model.input_shape))
    graph = written(network, tmp_path / "net.nir")
    own = {nir.IF: Neurons, nir.I: Neurons, nir.Scale: Factor, nir.Flatten: lambda _: nn.Flatten(), nir.Affine: linear}
    reader = nirtorch.nir_to_torch(graph, own)
    nodes = {node.metadata["name"]: name for name, node in graph.nodes.items() if isinstance(node, nir.IF)}
    spikes = recorded(reader, list(nodes.values()))
    images = load(["sample"], "test").pixels[:2]
    scores, state = [], None
    with torch.no_grad():
        for _ in range(STEPS):
            found, state = reader(torch.from_numpy(images).float(), state)
            scores.append(found.numpy())
    expected = Engine(network).run(images, STEPS)
    for index, layer in enumerate(network.layers[:-1]):
        np.testing.assert_array_equal(np.stack(spikes[nodes[layer.name]], 1), expected.layer_spikes(index))
    np.testing.assert_array_equal(np.stack(scores, 1), expected.readout)


def test_a_graph_that_sinabs_made() -> None:
    """Integer weights; one spike per step; in memory, since nir 1.0.8 cannot write a Conv2d without input_shape."""
    sinabs = pytest.importorskip("sinabs.nir")
    from sinabs.activation import SingleSpike
    from sinabs.layers import IAFSqueeze, SumPool2d

    torch.manual_seed(0)
    neurons = IAFSqueeze(batch_size=1, spike_threshold=torch.tensor(3000.0), spike_fn=SingleSpike, min_v_mem=None)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), neurons, SumPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    with torch.no_grad():
        for parameter in [*model[0].parameters(), *model[-1].parameters()]:
            parameter.copy_(torch.randint(-9, 10, parameter.shape))
        image = torch.randint(0, 256, (1, 2, 4, 4))
        spikes = recorded(model, ["1"])
        currents = model(image.repeat(STEPS, 1, 1, 1).float()).numpy()
        with pytest.warns(DeprecationWarning, match="extract_nir_graph"):
            graph = sinabs.to_nir(model, image.float())
    network = to_network(graph, Reading(spike=">=", reset="soft")).network
    trace = Engine(network).run(image.to(torch.uint8), STEPS)
    assert 0.1 < trace.layer_spikes(0).mean() < 0.9
    np.testing.assert_array_equal(spikes["1"][0], trace.layer_spikes(0)[0])
    np.testing.assert_array_equal(currents.cumsum(0), trace.readout[0])


def test_sinabs(network: IntegerNetwork, reference: Trace, tmp_path: Path) -> None:
    """sinabs subtracts and fires at v >= threshold, but several times per step, and clips v at -threshold."""
    sinabs = pytest.importorskip("sinabs.nir")
    from sinabs.activation import SingleSpike

    graph = written(network, tmp_path / "net.nir", integrate_readout=False)
    with pytest.warns(DeprecationWarning, match=r"nirtorch\.load"):
        model = sinabs.from_nir(graph, num_timesteps=STEPS)
    names = ["conv1", "conv2", "dense"]
    spikes = recorded(model, names)
    images = images_for(network, 4)
    for name in names:
        neuron = model.get_submodule(name)
        neuron.spike_fn, neuron.min_v_mem = SingleSpike, None
        neuron.spike_threshold = torch.as_tensor(neuron.spike_threshold)
        shape = (len(images), *graph.nodes[name].r.shape)
        neuron.init_state_with_shape(shape)
        neuron.v_mem = v_initial(graph, name).expand(shape).clone()
    inputs = torch.from_numpy(images.repeat(STEPS, axis=0)).float()  # samples and steps in one axis
    currents, _ = model(inputs)
    for index, name in enumerate(names):
        found = np.concatenate(spikes[name]).reshape(4, STEPS, *graph.nodes[name].r.shape)
        np.testing.assert_array_equal(found, reference.layer_spikes(index))
    scores = network.layers[-1].v0 + currents.detach().numpy().reshape(4, STEPS, -1).cumsum(1)
    np.testing.assert_array_equal(scores, reference.readout)
