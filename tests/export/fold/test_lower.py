"""Lowering keeps what the network computes: batch norm, amplitude and pooling end up in the connections."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.fold.folded import ExportError, FoldedConnection, FoldedNetwork
from export.fold.lower import lower
from tests.tiny import SHAPE, random_tiny, randomise
from train.model.activation import NQ, RateReLU
from train.model.models import BasicBlock, Form, Network, Normalize, resnet20
from train.model.snn import neurons

IMAGE = (2, 12, 8)


def build(layers: list[nn.Module], seed: int = 0) -> nn.Module:
    """The layers behind Normalize, with random parameters."""
    network = nn.Sequential(Normalize((0.3, 0.4), (0.5, 0.6)), *layers)
    randomise(network, seed)
    return network


def apply(connection: FoldedConnection, x: Tensor) -> Tensor:
    """The folded connection on its source (n, ...) in float64."""
    x = F.avg_pool2d(x.reshape(len(x), *x.shape[1:], *[1] * (4 - x.dim())), connection.window)
    c = connection
    out = F.conv2d(x, torch.from_numpy(c.weight), None, c.stride, c.padding, c.dilation, c.groups)
    return out.flatten(1) if c.is_dense else out


def assert_lowered_equals_float(model: nn.Module, shape: tuple[int, int, int]) -> FoldedNetwork:
    """Random spikes replace what the activations output; every layer must receive what the activation received."""
    folded = lower(model, shape)
    model = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(1)
    received: list[Tensor] = []
    spikes: list[Tensor] = []

    def fire(module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
        received.append(inputs[0])
        spikes.append((torch.rand(inputs[0].shape, generator=generator) < 0.4).double())
        return spikes[-1] * module.threshold.detach()

    for neuron in neurons(model):
        neuron.register_forward_hook(fire)
    images = torch.randint(0, 256, (3, *shape), generator=generator)
    with torch.no_grad():
        received.append(model(images))
    mean, std = (torch.from_numpy(value).reshape(-1, 1, 1) for value in (folded.mean, folded.std))
    sources = {"input": (images.double() / 255 - mean) / std}
    assert len(folded.layers) == len(received)
    for index, (layer, expected) in enumerate(zip(folded.layers, received, strict=True)):
        found = sum(apply(c, sources[c.source]) for c in layer.connections)
        found = found + torch.from_numpy(layer.bias).reshape(-1, *[1] * (expected.dim() - 2))
        assert all(c.output_shape == tuple(expected.shape[1:]) for c in layer.connections)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        if index < len(spikes):
            sources[layer.name] = spikes[index]
    return folded


class Residual(nn.Module):
    """What a user may write: methods and functions, two shortcuts into one addition, a block used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize((0.4, 0.5), (0.2, 0.3))
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.act0, self.act1, self.act2, self.act3 = (NQ(4, 1.5) for _ in range(4))
        self.depthwise = nn.Conv2d(6, 6, (3, 1), padding=(1, 0), groups=6, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.projection = nn.Conv2d(6, 6, 1)
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act0(self.stem(self.normalize(image)))
        y = self.act1(x + self.norm(self.depthwise(x)) + self.projection(x))
        z = self.act2(torch.add(self.shortcut(y), self.down(y)))
        z = F.dropout(z, 0.5, self.training)
        out = self.act3(self.norm(self.projection(y)) + y + x)
        z = z + F.avg_pool2d(self.shortcut[1](out), 2)
        z = self.act3(z)
        return self.head(z.mean((2, 3)))


class Views(nn.Module):
    def __init__(self, flatten: Callable[[Tensor], Tensor], inputs: int = 288) -> None:
        super().__init__()
        self.normalize, self.conv, self.act = Normalize((0.4, 0.5), (0.2, 0.3)), nn.Conv2d(2, 3, 1), NQ(4, 1.5)
        self.flatten, self.head = flatten, nn.Linear(inputs, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.flatten(self.act(self.conv(self.normalize(image)))))


class InPlace(nn.Module):
    """Adds in place to what Dropout, in evaluation mode, passes on; with ``keep`` the old name is used again."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self.normalize, self.stem, self.conv = Normalize((0.4, 0.5), (0.2, 0.3)), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1)
        self.act0, self.act1, self.head = NQ(4, 1.5), NQ(4, 1.5), nn.Linear(288, 3)
        self.dropout, self.keep = nn.Dropout(), keep

    def forward(self, image: Tensor) -> Tensor:
        x = self.act0(self.stem(self.normalize(image)))
        y = self.dropout(x)
        z = y.add_(self.conv(x))
        return self.head(self.act1(z + x if self.keep else z).flatten(1))


IN_PLACE_LINE = InPlace.forward.__code__.co_firstlineno + 3


def flat(inputs: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(inputs, 3)]


def randomised(model: nn.Module) -> nn.Module:
    randomise(model, 3)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear only": lambda: build([nn.Flatten(), nn.Linear(192, 3)]),
    "plain batch norm": lambda: build(
        [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False, eps=0.3), NQ(4), *flat(180)]
    ),
    "two batch norms": lambda: build([nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3), NQ(4), *flat(180)]),
    "batch norm of a linear layer": lambda: build(
        [nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5), NQ(4), nn.Linear(5, 3)]
    ),
    "pooling before convolution": lambda: build(
        [
            nn.Conv2d(2, 3, 3, padding=1, bias=False),
            NQ(4),
            nn.AvgPool2d(2),
            nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 1)),
            nn.BatchNorm2d(4),
            NQ(4),
            *flat(60),
        ]
    ),
    "several poolings": lambda: build(
        [
            nn.Conv2d(2, 3, 1),
            NQ(4),
            nn.AvgPool2d((2, 1)),
            nn.Dropout(),
            nn.AvgPool2d((1, 4)),
            nn.Identity(),
            nn.Conv2d(3, 4, 2),
            NQ(4),
            *flat(20),
        ]
    ),
    "poolings before dense": lambda: build(
        [nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 4), NQ(4), *flat(4)]
    ),
    "pooling of the image": lambda: build([nn.AvgPool2d(2), nn.Conv2d(2, 4, 3), NQ(4), *flat(32)]),
    "pooling of currents": lambda: build(
        [nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=1, dilation=(2, 1)), nn.AvgPool2d((3, 2)), NQ(4), *flat(18)]
    ),
    "global pooling": lambda: build([nn.Conv2d(2, 3, 3), NQ(4), nn.AdaptiveAvgPool2d(1), *flat(3)]),
    "adaptive pooling": lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AdaptiveAvgPool2d((3, 4)), *flat(36)]),
    "groups behind pooling": lambda: build(
        [
            nn.Conv2d(2, 4, 3, padding=1, groups=2),
            NQ(4),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), groups=2),
            NQ(4),
            *flat(6 * 4 * 2),
        ]
    ),
    "dilation": lambda: build(
        [
            nn.Conv2d(2, 3, 3, dilation=(2, 1)),
            NQ(4),
            nn.Conv2d(3, 2, 2, dilation=(1, 3), padding=(0, 1)),
            NQ(4),
            *flat(2 * 7 * 5),
        ]
    ),
    "activation of spikes": lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.BatchNorm2d(3), NQ(4), *flat(288)]),
    "activation of spikes behind a linear layer": lambda: build(
        [nn.Flatten(), nn.Linear(192, 5), NQ(4), nn.BatchNorm1d(5), NQ(4), nn.Linear(5, 3)]
    ),
    "activation of the image": lambda: build([NQ(4), *flat(192)]),
    "basic blocks": lambda: build(
        [nn.Conv2d(2, 4, 3), NQ(4), BasicBlock(4, 4, 1, Form()), BasicBlock(4, 6, 2, Form()), *flat(90)]
    ),
    "addition in place": lambda: randomised(InPlace(keep=False)),
    "a user's residual network": lambda: randomised(Residual()),
    "view": lambda: randomised(Views(lambda x: x.view(x.size(0), -1))),
    "reshape": lambda: randomised(Views(lambda x: x.reshape((x.shape[0], -1)))),
    "torch.flatten": lambda: randomised(Views(lambda x: torch.flatten(x, 1))),
    "arguments by name": lambda: randomised(
        Views(lambda x: torch.flatten(input=F.avg_pool2d(input=x, kernel_size=2, padding=(0, 0)), start_dim=1), 72)
    ),
    "a size that is looked at": lambda: randomised(Views(lambda x: (x.dim(), x.size(), x.flatten(1))[-1])),
    "mean that keeps its dimensions": lambda: randomised(
        Views(lambda x: (torch.mean(x, (2, 3), True) + F.adaptive_avg_pool2d(x, 1)).flatten(1), 3)
    ),
    "mean that keeps its dimensions, by name": lambda: randomised(
        Views(lambda x: x.mean(dim=(-1, -2), keepdim=True).flatten(1), 3)
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_every_layer_receives_what_the_activation_received(case: str) -> None:
    assert_lowered_equals_float(MODELS[case](), IMAGE)


def test_networks_of_the_project() -> None:
    assert_lowered_equals_float(random_tiny(0), SHAPE)
    folded = assert_lowered_equals_float(randomised(resnet20()), (3, 32, 32))
    assert len(folded.layers) == 20
    names = [layer.name for layer in folded.layers]
    assert names[:4] == ["layers.1", "layers.4.conv1", "layers.4.conv2", "layers.5.conv1"] and names[-1] == "layers.15"
    joined = folded.layers[2]
    assert [(c.source, c.is_identity) for c in joined.connections] == [("layers.4.conv1", False), ("layers.1", True)]


def test_what_becomes_of_the_activation() -> None:
    model = build([nn.Conv2d(2, 3, 1), NQ(4, 2.0), nn.Conv2d(3, 3, 1), RateReLU(reset="hard"), *flat(288)])
    with torch.no_grad():
        model[2].threshold.fill_(2.0)
        model[4].threshold.fill_(0.5)
    found = [(layer.threshold, layer.initial, layer.reset) for layer in lower(model, IMAGE).layers]
    assert found == [(2.0, 0.5, "soft"), (0.5, 0.0, "hard"), (None, 0.5, "soft")]


def test_layers_that_share_a_module_get_names_of_their_own() -> None:
    names = [layer.name for layer in lower(randomised(Residual()), IMAGE).layers]
    assert names == ["stem", "depthwise", "shortcut.1", "projection", "shortcut.1.2", "head"]


def test_the_model_is_left_as_it_was() -> None:
    model = random_tiny(0)
    before = copy.deepcopy(model.state_dict())
    lower(model, SHAPE)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training


class Forward(nn.Module):
    """A user's module with the given forward, whose parts are ``conv``, ``act`` and ``head``."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.normalize, self.conv, self.act = Normalize((0.4, 0.5), (0.2, 0.3)), nn.Conv2d(2, 3, 1), NQ(4, 1.5)
        self.head = nn.Linear(288, 3)
        self.weight = nn.Parameter(torch.ones(3))
        self.steps = forward

    def forward(self, image: Tensor) -> Tensor:
        return self.steps(self, image)


def written(forward: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Forward(forward).eval()


def changed(change: Callable[[Network], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = build([nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), NQ(4), *flat(288)])
        with torch.no_grad():
            change(network)
        return network

    return make


PARTS = "Normalize, Conv2d, Linear, BatchNorm1d, BatchNorm2d, NQ, RateReLU, AvgPool2d"
BAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no normalize": (lambda: nn.Sequential(*flat(192)).eval(), "0 Flatten: takes the image; allowed: Normalize first"),
    "nothing": (
        lambda: nn.Sequential().eval(),
        "forward: does not return the output of Linear; allowed: one Linear at the end",
    ),
    "max pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.MaxPool2d(2), *flat(72)]),
        f"3 MaxPool2d: cannot be exported; allowed: {PARTS}",
    ),
    "relu": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.ReLU(), *flat(288)]),
        f"2 ReLU: cannot be exported; allowed: {PARTS}",
    ),
    "functional relu": (
        written(lambda m, x: m.head(F.relu(m.act(m.conv(m.normalize(x)))).flatten(1))),
        "test_lower.py:{line}: relu: cannot be exported; allowed: +, torch.flatten, avg_pool2d, adaptive_avg_pool2d, "
        "mean over height and width, dropout, and the modules Normalize",
    ),
    "relu method": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x)).relu()).flatten(1))),
        "test_lower.py:{line}: relu: cannot be exported; allowed: +, ",
    ),
    "multiplication": (
        written(lambda m, x: m.head(m.act(2 * m.conv(m.normalize(x))).flatten(1))),
        "test_lower.py:{line}: mul: cannot be exported; allowed: +, ",
    ),
    "adding a number": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x)) + 1).flatten(1))),
        "test_lower.py:{line}: add: takes 1; allowed: outputs of layers",
    ),
    "scaled addition": (
        written(lambda m, x: m.head(torch.add(m.act(m.conv(m.normalize(x))), 1, alpha=2).flatten(1))),
        "test_lower.py:{line}: add: has other arguments; allowed: two values",
    ),
    "a parameter of its own": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x)) + m.weight[:, None, None]).flatten(1))),
        "test_lower.py:{line}: weight: uses weight outside of a module; allowed: tensors inside Normalize",
    ),
    "dependence on values": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).flatten(1)) if x.sum() > 0 else x),
        "Forward: forward cannot be traced (symbolically traced variables cannot be used as inputs to control flow); "
        "allowed: a fixed sequence of operations that does not depend on values",
    ),
    "concatenation": (
        written(lambda m, x: m.head(torch.cat([m.act(m.conv(m.normalize(x)))], 1).flatten(1))),
        "test_lower.py:{line}: cat: cannot be exported; allowed: +",
    ),
    "addition of other shapes": (
        written(lambda m, x: m.head((m.act(m.conv(m.normalize(x))) + m.normalize(x)).flatten(1))),
        "normalize Normalize: is not the first operation; allowed: Normalize once, on the image",
    ),
    "dropout that stays": (
        written(lambda m, x: m.head(F.dropout(m.act(m.conv(m.normalize(x)))).flatten(1))),
        "test_lower.py:{line}: dropout: acts in evaluation mode too; allowed: training=self.training",
    ),
    "view to something else": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).view(-1, 288))),
        "test_lower.py:{line}: view: to ('-1', '288'); allowed: view(batch size, -1)",
    ),
    "mean of the channels": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).mean(1).flatten(1))),
        "test_lower.py:{line}: mean: over 1; allowed: mean over height and width, (2, 3)",
    ),
    "several outputs": (
        written(lambda m, x: (m.head(m.act(m.conv(m.normalize(x))).flatten(1)), x)),
        "forward: does not return the output of Linear; allowed: one Linear at the end",
    ),
    "training mode": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), *flat(288)]).train(),
        "Sequential: is in training mode; allowed: evaluation mode, model.eval()",
    ),
    "hooks": (
        changed(lambda n: n[1].register_forward_hook(lambda _m, _i, out: 2 * out)),
        "1 Conv2d: has forward hooks, as weight_norm, spectral_norm and prune add them; allowed: none",
    ),
    "weight norm of old": (
        changed(lambda n: n[1].register_forward_pre_hook(lambda m, _i: m.weight.data.mul_(2))),
        "1 Conv2d: has forward hooks, as weight_norm",
    ),
    "replaced forward": (
        changed(lambda n: setattr(n[1], "forward", lambda x: x)),
        "1 Conv2d: forward was replaced on the object; allowed: forward as its class defines it",
    ),
    "another activation in the disguise of NQ": (
        lambda: build([nn.Conv2d(2, 3, 1), type("Mine", (NQ,), {"forward": lambda _s, z: z})(4), *flat(288)]),
        "2 Mine: has a forward of its own; allowed: that of Neuron",
    ),
    "addition in place whose result is not used": (
        written(lambda m, x: [y := m.conv(m.normalize(x)), y.add_(y), m.head(m.act(y).flatten(1))][-1]),
        "test_lower.py:{line}: add_: changes a tensor in place that is used again; allowed: x = x + y",
    ),
    "addition in place to a tensor with two names": (
        lambda: InPlace(keep=True).eval(),
        "test_lower.py:{line}: add_: changes a tensor in place that is used again; allowed: x = x + y",
    ),
    "pooling with ceil_mode": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.AvgPool2d(5, ceil_mode=True), NQ(4), *flat(18)]),
        "2 AvgPool2d: kernel 5, stride 5; allowed: windows as large as the stride, without padding, ceil_mode and",
    ),
    "functional pooling with ceil_mode": (
        written(lambda m, x: m.head(m.act(F.avg_pool2d(m.conv(m.normalize(x)), 5, ceil_mode=True)).flatten(1))),
        "test_lower.py:{line}: avg_pool2d: kernel 5, stride 5; allowed: windows",
    ),
    "functional pooling with a divisor": (
        written(lambda m, x: m.head(m.act(F.avg_pool2d(m.conv(m.normalize(x)), 2, divisor_override=1)).flatten(1))),
        "test_lower.py:{line}: avg_pool2d: kernel 2, stride 2; allowed: windows",
    ),
    "adaptive pooling to nothing": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AdaptiveAvgPool2d(0), *flat(3)]),
        "3 AdaptiveAvgPool2d: to 0 from (3, 12, 8); allowed: sizes of at least 1, of outputs (C, H, W)",
    ),
    "normalize twice": (
        lambda: build([Normalize((0.5, 0.5), (1.0, 1.0)), *flat(192)]),
        "1 Normalize: is not the first operation; allowed: Normalize once, on the image",
    ),
    "no activation": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), NQ(4), *flat(288)]),
        "2 Conv2d: follows 1, which has weights or a bias already; allowed: a convolution behind an activation",
    ),
    "flatten before activation": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.Flatten(), NQ(4), nn.Linear(288, 3)]),
        "2 Flatten: follows 1; allowed: flatten behind an activation or pooling",
    ),
    "activation behind flatten": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.Flatten(), NQ(4), nn.Linear(288, 3)]),
        "4 NQ: follows 1, which is flattened; allowed: activations before Flatten",
    ),
    "batch norm before a convolution": (
        lambda: build([nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), NQ(4), *flat(288)]),
        "2 Conv2d: follows 0, which has weights or a bias already; allowed: a convolution behind an activation",
    ),
    "partial flatten": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.Flatten(2), nn.Linear(96, 3)]),
        "3 Flatten: flattens dimensions 2 to -1; allowed: all but the batch, flatten(1)",
    ),
    "uneven pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(3), *flat(24)]),
        "3 AvgPool2d: pools an output of (3, 12, 8); allowed: sizes that (3, 3) divides",
    ),
    "overlapping pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2, stride=1), *flat(231)]),
        "3 AvgPool2d: kernel 2, stride 1; allowed: windows as large as the stride, without padding",
    ),
    "padded pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2, padding=1), *flat(105)]),
        "3 AvgPool2d: kernel 2, stride 2; allowed: windows as large as the stride, without padding",
    ),
    "large pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.AvgPool2d(16), NQ(4), *flat(3)]),
        "2 AvgPool2d: pools an output of (3, 12, 8); allowed: sizes of at least (16, 16)",
    ),
    "adaptive pooling to an uneven size": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AdaptiveAvgPool2d(5), *flat(75)]),
        "3 AdaptiveAvgPool2d: to 5 from (3, 12, 8); allowed: sizes that divide the height and the width",
    ),
    "dilation behind pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2), nn.Conv2d(3, 2, 2, dilation=2), NQ(4), *flat(16)]),
        "4 Conv2d: dilation is (2, 2) behind pooling; allowed: (1, 1) behind pooling",
    ),
    "padding mode": (
        lambda: build([nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), NQ(4), *flat(288)]),
        "1 Conv2d: padding is (1, 1), reflect; allowed: padding as a number, filled with zeros",
    ),
    "padding name": (
        lambda: build([nn.Conv2d(2, 3, 3, padding="same"), NQ(4), *flat(288)]),
        "1 Conv2d: padding is 'same', zeros; allowed: padding as a number, filled with zeros",
    ),
    "kernel": (
        lambda: build([nn.Conv2d(2, 3, 13), NQ(4), *flat(288)]),
        "1 Conv2d: kernel (13, 13) on an output of (2, 12, 8); allowed: kernels that fit",
    ),
    "no statistics": (
        changed(lambda n: n[2]._buffers.update(running_mean=None, running_var=None)),
        "2 BatchNorm2d: has no running statistics; allowed: batch norm with them",
    ),
    "batch norm of other channels": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.BatchNorm2d(4), NQ(4), *flat(288)]),
        "2 BatchNorm2d: follows an output of (3, 12, 8); allowed: 4 channels",
    ),
    "inputs": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), *flat(287)]),
        "4 Linear: follows an output of (288,); allowed: (287,), flattened",
    ),
    "not flattened": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.Linear(8, 3)]),
        "3 Linear: follows an output of (3, 12, 8); allowed: (8,), flattened",
    ),
    "convolution behind linear": (
        lambda: build([nn.Flatten(), nn.Linear(192, 4), NQ(4), nn.Conv2d(4, 3, 1), NQ(4), *flat(3)]),
        "4 Conv2d: follows an output of (4,); allowed: outputs (4, H, W)",
    ),
    "channels of the image": (
        lambda: nn.Sequential(Normalize((0.3,), (0.5,)), *flat(192)).eval(),
        "Normalize: is for 1 channels; allowed: 2 as the image",
    ),
    "activation at the end": (
        lambda: build([*flat(192), NQ(4)]),
        "forward: does not return the output of Linear; allowed: one Linear at the end",
    ),
    "convolution at the end": (
        lambda: build([nn.Conv2d(2, 3, 1)]),
        "forward: does not return the output of Linear; allowed: one Linear at the end",
    ),
    "nan weight": (
        changed(lambda n: n[1].weight[0, 0, 0, 0].fill_(float("nan"))),
        "1: weight is not finite; allowed: finite numbers",
    ),
    "infinite bias": (
        changed(lambda n: n[5].bias[0].fill_(float("inf"))),
        "5: bias is not finite; allowed: finite numbers",
    ),
    "nan threshold": (
        changed(lambda n: n[3].threshold.fill_(float("nan"))),
        "3 NQ: threshold is nan; allowed: positive numbers",
    ),
    "negative threshold": (
        changed(lambda n: n[3].threshold.fill_(-1.0)),
        "3 NQ: threshold is -1.0; allowed: positive numbers",
    ),
    "negative variance": (
        changed(lambda n: n[2].running_var[1].fill_(-1.0)),
        "2 BatchNorm2d: variance is -1.0; allowed: numbers of at least 0",
    ),
    "zero deviation": (
        changed(lambda n: n[0].std[0, 1].fill_(0.0)),
        "Normalize: std is 0.0; allowed: finite numbers, std above 0",
    ),
    "nan mean": (
        changed(lambda n: n[0].mean[0, 1].fill_(float("nan"))),
        "Normalize: mean is nan; allowed: finite numbers",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_networks(case: str) -> None:
    make, message = BAD[case]
    model = make()
    with pytest.raises(ExportError) as caught:
        lower(model, IMAGE)
    line = None
    if isinstance(model, Forward | InPlace):
        line = model.steps.__code__.co_firstlineno if isinstance(model, Forward) else IN_PLACE_LINE
    assert str(caught.value).startswith(message.format(line=line)) and "\n" not in str(caught.value)


def test_mean_of_an_image_is_a_number_per_channel() -> None:
    folded = lower(random_tiny(0), SHAPE)
    np.testing.assert_allclose(folded.mean, (0.5, 0.4, 0.6), rtol=1e-6)
    np.testing.assert_allclose(folded.std, (0.25, 0.2, 0.3), rtol=1e-6)
    assert folded.input_shape == SHAPE
