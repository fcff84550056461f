"""What a module itself computes, beside what it was lowered to: random spikes stand for its activations' outputs."""

import copy
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.fold.folded import FoldedConnection, FoldedLayer, FoldedNetwork
from export.fold.lower import lower
from export.fold.prepare import activations, prepare

Shape = tuple[int, int, int]


def apply(connection: FoldedConnection, x: Tensor) -> Tensor:
    """The folded connection on its source (n, ...) in float64."""
    x = F.avg_pool2d(x.reshape(len(x), *x.shape[1:], *[1] * (4 - x.dim())), connection.window)
    c = connection
    out = F.conv2d(x, torch.from_numpy(c.weight), None, c.stride, c.padding, c.dilation, c.groups)
    return out.flatten(1) if c.is_dense else out


def current(layer: FoldedLayer, sources: dict[str, Tensor]) -> Tensor:
    """What a layer receives, with bias."""
    assert len({c.output_shape for c in layer.connections}) == 1
    total = sum(apply(c, sources[c.source]) for c in layer.connections)
    assert isinstance(total, Tensor)
    return total + torch.from_numpy(layer.bias_map)


def assert_same_currents(model: nn.Module, shape: Shape, dtype: torch.dtype = torch.float64) -> FoldedNetwork:
    """Every layer receives what the activation receives, for random spikes of the activations before it.

    Where a maximum stands before the activation, the activation's input is the maximum of what its neurons receive, and
    its spikes are those of the layer behind them.
    """
    model = copy.deepcopy(model).to(dtype)
    folded = lower(model, shape)
    if not folded.is_prepared:
        model = prepare(model, shape)
        folded = lower(model, shape)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    generator = torch.Generator().manual_seed(1)
    received: list[Tensor] = []
    spikes: list[Tensor] = []

    def fire(module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
        received.append(inputs[0].double())
        spikes.append((torch.rand(inputs[0].shape, generator=generator) < 0.4).double())
        return (spikes[-1] * module.threshold.detach()).to(dtype)

    for neuron in set(activations(model)):
        neuron.register_forward_hook(fire)
    images = torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        scores = model(images)
    mean, std = (torch.from_numpy(value).reshape(-1, 1, 1) for value in (folded.mean, folded.std))
    sources = {"input": (images.double() / 255 - mean) / std}
    layers = {layer.name: layer for layer in folded.layers}
    assert len(folded.calls) == len(received)
    for call, expected, fired in zip(folded.calls, received, spikes, strict=True):
        _maxima(folded, sources)
        z = torch.full((3, prod(call.shape)), float("nan"), dtype=torch.float64)
        for name, places in call.layers:
            z[:, torch.from_numpy(places)] = current(layers[name], sources).expand(3, *_shape(layers[name])).flatten(1)
        z = z.unflatten(1, call.shape)
        for p in call.pools:
            z = F.max_pool2d(z, p.kernel, p.stride, p.padding, p.dilation, p.ceil_mode)
        torch.testing.assert_close(z.reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)
        for name, places in call.outputs:
            sources[name] = fired.flatten(1)[:, torch.from_numpy(places)].reshape(3, *_shape(layers[name]))
    _maxima(folded, sources)
    found = current(folded.layers[-1], sources)
    if folded.softmax:
        found = getattr(torch, folded.softmax)(found, 1)
    torch.testing.assert_close(found, scores.double(), rtol=tolerance, atol=tolerance)
    return folded


def _shape(layer: FoldedLayer) -> tuple[int, ...]:
    return layer.connections[0].output_shape


def _maxima(folded: FoldedNetwork, sources: dict[str, Tensor]) -> None:
    """Run the layers that are maxima of known spikes."""
    for layer in folded.layers:
        if layer.is_maximum and layer.name not in sources and all(c.source in sources for c in layer.connections):
            assert {*torch.cat([torch.from_numpy(c.weight).unique() for c in layer.connections]).tolist()} <= {0.0, 1.0}
            sources[layer.name] = (current(layer, sources) >= 1).double()
