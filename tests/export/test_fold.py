"""Folding keeps what the network computes: batch norm, spike amplitude and pooling end up in the linear layers."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.fold import ExportError, FoldedLayer, fold
from tests.tiny import random_tiny, randomise
from train.activation import NQ
from train.models import Network, Normalize


def build(layers: list[nn.Module], shape: tuple[int, int, int] = (2, 12, 8), seed: int = 0) -> Network:
    """The layers behind Normalize, with random parameters."""
    normalize = Normalize([0.3 + 0.1 * c for c in range(shape[0])], [0.5 + 0.1 * c for c in range(shape[0])])
    network = Network([normalize, *layers], input_shape=shape, levels=4)
    randomise(network, seed)
    return network


def apply(layer: FoldedLayer, x: Tensor) -> Tensor:
    """The folded layer on inputs (n, ...) in float64."""
    weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    if weight.dim() == 2:
        return F.linear(x.flatten(1), weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def assert_folded_equals_float(network: Network) -> None:
    """Between two NQ layers: spikes times λ through the float modules, against the bare spikes through one layer."""
    folded = fold(network)
    generator = torch.Generator().manual_seed(1)
    modules = iter(copy.deepcopy(network).double().layers)
    normalize = next(modules)
    x = torch.rand(3, *network.input_shape, dtype=torch.float64, generator=generator)
    inputs, x = x, x * 1.0
    for layer in folded.layers:
        activation = None
        for module in modules:
            if isinstance(module, NQ):
                activation = module
                break
            x = module(x)
        found = apply(layer, inputs)
        assert found.shape == x.shape
        torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)
        if activation is None:
            assert layer.threshold is None
        else:
            assert layer.threshold == float(activation.threshold)
            inputs = (torch.rand(x.shape, generator=generator) < 0.4).double()
            x = inputs * activation.threshold.detach()
    assert next(modules, None) is None
    np.testing.assert_array_equal(folded.mean, normalize.mean.flatten().numpy())
    np.testing.assert_array_equal(folded.std, normalize.std.flatten().numpy())


NETWORKS: dict[str, Callable[[], Network]] = {
    "tiny": lambda: random_tiny(0),
    "linear only": lambda: build([nn.Flatten(), nn.Linear(192, 3)]),
    "plain batch norm": lambda: build(
        [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False, eps=0.3), NQ(4), nn.Flatten(), nn.Linear(180, 3)]
    ),
    "two batch norms": lambda: build(
        [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3), NQ(4), nn.Flatten(), nn.Linear(180, 3)]
    ),
    "pooling before convolution": lambda: build(
        [
            nn.Conv2d(2, 3, 3, padding=1, bias=False),
            NQ(4),
            nn.AvgPool2d(2),
            nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 1)),
            nn.BatchNorm2d(4),
            NQ(4),
            nn.Flatten(),
            nn.Linear(60, 3, bias=False),
        ]
    ),
    "several poolings": lambda: build(
        [
            nn.Conv2d(2, 3, 1),
            NQ(4),
            nn.AvgPool2d((2, 2)),
            nn.Dropout(),
            nn.AvgPool2d(2),
            nn.Conv2d(3, 4, 2),
            NQ(4),
            nn.Flatten(),
            nn.Linear(8, 3),
        ]
    ),
    "poolings before dense": lambda: build(
        [
            nn.Conv2d(2, 3, 1),
            NQ(4),
            nn.AvgPool2d(2),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(18, 4),
            NQ(4),
            nn.Linear(4, 3),
        ]
    ),
    "groups behind pooling": lambda: build(
        [
            nn.Conv2d(2, 4, 3, padding=1, groups=2),
            NQ(4),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), groups=2),
            NQ(4),
            nn.Flatten(),
            nn.Linear(6 * 4 * 2, 3),
        ]
    ),
    "dilation": lambda: build(
        [
            nn.Conv2d(2, 3, 3, dilation=(2, 1)),
            NQ(4),
            nn.Conv2d(3, 2, 2, dilation=(1, 3), padding=(0, 1)),
            NQ(4),
            nn.Flatten(),
            nn.Linear(2 * 7 * 5, 3),
        ]
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_folded_layers_equal_the_float_network(case: str) -> None:
    assert_folded_equals_float(NETWORKS[case]())


def test_names_say_where_a_layer_stood() -> None:
    names = [layer.name for layer in fold(random_tiny(0)).layers]
    assert names == ["layers.1 Conv2d", "layers.5 Conv2d", "layers.10 Linear", "layers.12 Linear"]


def end(inputs: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(inputs, 3)]


def changed(change: Callable[[Network], object]) -> Callable[[], Network]:
    def make() -> Network:
        network = random_tiny(0)
        with torch.no_grad():
            change(network)
        return network

    return make


BAD: dict[str, tuple[Callable[[], Network], str]] = {
    "no normalize": (
        lambda: Network([nn.Flatten(), nn.Linear(4, 2)], input_shape=(1, 2, 2), levels=4),
        "layers.0: the network does not start with Normalize; allowed: Normalize first",
    ),
    "empty": (lambda: Network([], input_shape=(1, 2, 2), levels=4), "layers.0: the network does not start with Norm"),
    "max pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.MaxPool2d(2), *end(72)]),
        "layers.3 MaxPool2d: cannot be exported; allowed: Conv2d, BatchNorm2d, NQ, AvgPool2d, Dropout, Flatten, Linear",
    ),
    "relu": (lambda: build([nn.Conv2d(2, 3, 1), nn.ReLU(), *end(288)]), "layers.2 ReLU: cannot be exported; allowed: "),
    "normalize twice": (
        lambda: build([Normalize((0.5, 0.5), (1.0, 1.0)), *end(192)]),
        "layers.1 Normalize: cannot be exported; allowed: Conv2d",
    ),
    "no activation": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), NQ(4), *end(288)]),
        "layers.2 Conv2d: follows a linear layer; allowed: NQ between two linear layers",
    ),
    "flatten before activation": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.Flatten(), NQ(4), nn.Linear(288, 3)]),
        "layers.2 Flatten: follows a linear layer; allowed: behind NQ or pooling",
    ),
    "batch norm first": (
        lambda: build([nn.BatchNorm2d(2), *end(192)]),
        "layers.1 BatchNorm2d: follows no convolution; allowed: directly behind Conv2d",
    ),
    "batch norm behind activation": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.BatchNorm2d(3), *end(288)]),
        "layers.3 BatchNorm2d: follows no convolution; allowed: directly behind Conv2d",
    ),
    "activation first": (
        lambda: build([NQ(4), *end(192)]),
        "layers.1 NQ: follows no linear layer; allowed: behind Conv2d, BatchNorm2d or Linear",
    ),
    "pooled image": (
        lambda: build([nn.AvgPool2d(2), *end(48)]),
        "layers.1 AvgPool2d: is not behind NQ; allowed: pooling of spikes, behind NQ",
    ),
    "pooled current": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.AvgPool2d(2), NQ(4), *end(72)]),
        "layers.2 AvgPool2d: is not behind NQ; allowed: pooling of spikes, behind NQ",
    ),
    "uneven pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(3), *end(24)]),
        "layers.3 AvgPool2d: pools an output of (3, 12, 8); allowed: sizes that 3 divides",
    ),
    "overlapping pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2, stride=1), *end(231)]),
        "layers.3 AvgPool2d: is AvgPool2d(kernel_size=2, stride=1, padding=0); allowed: square windows, stride equal",
    ),
    "oblong pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d((2, 1)), *end(144)]),
        "layers.3 AvgPool2d: is AvgPool2d(kernel_size=(2, 1), stride=(2, 1), padding=0); allowed: square windows",
    ),
    "dilation behind pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2), nn.Conv2d(3, 2, 2, dilation=2), NQ(4), *end(16)]),
        "layers.4 Conv2d: dilation is (2, 2) behind pooling; allowed: (1, 1) behind pooling",
    ),
    "padding mode": (
        lambda: build([nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), NQ(4), *end(288)]),
        "layers.1 Conv2d: padding_mode is reflect; allowed: zeros",
    ),
    "padding name": (
        lambda: build([nn.Conv2d(2, 3, 3, padding="same"), NQ(4), *end(288)]),
        "layers.1 Conv2d: padding is 'same'; allowed: integers",
    ),
    "no statistics": (
        changed(lambda n: n.layers[2]._buffers.update(running_mean=None, running_var=None)),
        "layers.1 Conv2d: has batch norm without running statistics; allowed: with them",
    ),
    "inputs": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), *end(287)]),
        "layers.4 Linear: takes 287 inputs; allowed: 288 behind an output of (3, 12, 8)",
    ),
    "convolution behind linear": (
        lambda: build([nn.Flatten(), nn.Linear(192, 4), NQ(4), nn.Conv2d(4, 3, 1), NQ(4), *end(3)]),
        "layers.4 Conv2d: follows an output of (4,); allowed: outputs (C, H, W)",
    ),
    "activation at the end": (
        lambda: build([*end(192), NQ(4)]),
        "network: does not end with Linear; allowed: a Linear layer without NQ at the end",
    ),
    "convolution at the end": (
        lambda: build([nn.Conv2d(2, 3, 1)]),
        "network: does not end with Linear; allowed: a Linear layer without NQ at the end",
    ),
    "nan weight": (
        changed(lambda n: n.layers[5].weight[0, 0, 0, 0].fill_(float("nan"))),
        "layers.5 Conv2d: weight is not finite; allowed: finite numbers",
    ),
    "infinite bias": (
        changed(lambda n: n.layers[12].bias[0].fill_(float("inf"))),
        "layers.12 Linear: bias is not finite; allowed: finite numbers",
    ),
    "nan threshold": (
        changed(lambda n: n.layers[11].threshold.fill_(float("nan"))),
        "layers.10 Linear: threshold is nan; allowed: positive numbers",
    ),
    "negative threshold": (
        changed(lambda n: n.layers[3].threshold.fill_(-1.0)),
        "layers.1 Conv2d: threshold is -1.0; allowed: positive numbers",
    ),
    "negative variance": (
        changed(lambda n: n.layers[2].running_var[1].fill_(-1.0)),
        "layers.2 BatchNorm2d: variance is -1.0; allowed: numbers of at least 0",
    ),
    "zero deviation": (
        changed(lambda n: n.layers[0].std[0, 1].fill_(0.0)),
        "layers.0 Normalize: std is 0.0; allowed: positive numbers",
    ),
    "nan mean": (
        changed(lambda n: n.layers[0].mean[0, 1].fill_(float("nan"))),
        "layers.0 Normalize: mean is not finite; allowed: finite numbers",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_networks(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ExportError) as caught:
        fold(make())
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
