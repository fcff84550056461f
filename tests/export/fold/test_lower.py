"""Lowering keeps what the network computes: batch norm, amplitude and pooling end up in the connections."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.fold.folded import ExportError
from export.fold.lower import lower
from tests.export.fold.oracle import assert_same_currents
from tests.tiny import SHAPE, random_tiny, randomise
from train.model.activation import NQ, RateReLU
from train.model.models import BasicBlock, Form, Network, Normalize, resnet20

IMAGE = (2, 12, 8)


def build(layers: list[nn.Module], seed: int = 0) -> nn.Module:
    """The layers behind Normalize, with random parameters."""
    network = nn.Sequential(Normalize((0.3, 0.4), (0.5, 0.6)), *layers)
    randomise(network, seed)
    return network


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
    "addition in place to a tensor with two names": lambda: randomised(InPlace(keep=True)),
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
    assert_same_currents(MODELS[case](), IMAGE)


def test_networks_of_the_project() -> None:
    assert_same_currents(random_tiny(0), SHAPE)
    folded = assert_same_currents(randomised(resnet20()), (3, 32, 32))
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


def test_initial_potentials_of_layers_that_are_vectors() -> None:
    """One per channel where every place is a neuron of its own; one per neuron behind Flatten."""
    places = build(
        [nn.Conv2d(2, 3, 3, 3, 1), nn.Conv2d(3, 3, 3, padding=1), NQ(4), nn.Flatten(), nn.Linear(36, 3)],
    )
    places[3].initial = torch.tensor([0.1, 0.2, 0.3])
    flattened = build([nn.Conv2d(2, 3, 1), nn.Flatten(), NQ(4), nn.Linear(288, 3)])
    flattened[3].initial = torch.linspace(0, 1, 288)
    first, second = lower(places, IMAGE).layers[0], lower(flattened, IMAGE).layers[0]
    np.testing.assert_array_equal(first.initial, places[3].initial.double().numpy().repeat(12))
    np.testing.assert_array_equal(second.initial, flattened[3].initial.double().numpy())


def test_layers_that_share_a_module_get_names_of_their_own() -> None:
    names = [layer.name for layer in lower(randomised(Residual()), IMAGE).layers]
    assert names == ["stem", "depthwise", "shortcut.1", "projection", "shortcut.1.2", "head"]


def test_the_model_is_left_as_it_was() -> None:
    model = random_tiny(0)
    before = copy.deepcopy(model.state_dict())
    lower(model, SHAPE)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training


class TwoInputs(nn.Module):
    """Takes two images."""

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return (one + two).float().mean((2, 3))


def constant(m: nn.Module, x: Tensor) -> Tensor:
    """The zeros around what a convolution gives."""
    return F.pad(m.conv(m.normalize(x)), (8, 0))[..., :8]


def typed(_m: nn.Module, x: Tensor) -> Tensor:
    if type(x) is not Tensor:
        raise TypeError("give a tensor")
    return x


class Forward(nn.Module):
    """A user's module with the given forward, whose parts are ``conv``, ``act`` and ``head``."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.normalize, self.conv, self.act = Normalize((0.4, 0.5), (0.2, 0.3)), nn.Conv2d(2, 3, 1), NQ(4, 1.5)
        self.head, self.rnn = nn.Linear(288, 3), nn.LSTM(96, 3)
        self.weight = nn.Parameter(torch.ones(3))
        self.steps = forward

    def forward(self, image: Tensor) -> Tensor:
        return self.steps(self, image)


def written(forward: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Forward(forward).eval()


def changed(change: Callable[[Network], object], before: Sequence[nn.Module] = ()) -> Callable[[], nn.Module]:
    """A network that is changed, with some modules before batch norm."""

    def make() -> nn.Module:
        network = build([nn.Conv2d(2, 3, 1), *before, nn.BatchNorm2d(3), NQ(4), *flat(288)])
        with torch.no_grad():
            change(network)
        return network

    return make


BAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no normalize": (
        lambda: nn.Sequential(*flat(192)).eval(),
        "1 Linear: linear: takes the 8-bit image; allowed: Normalize first, or x.float() / 255",
    ),
    "nothing": (
        lambda: nn.Sequential().eval(),
        "forward: returns (N, 2, 12, 8); allowed: the scores of the classes (N, K)",
    ),
    "two inputs": (
        lambda: TwoInputs().eval(),
        "forward: takes 2 inputs that it uses; allowed: one, the image",
    ),
    "a check of the type": (
        written(typed),
        "Forward: forward cannot be traced (give a tensor); allowed: a fixed sequence of operations that does not",
    ),
    "an activation of a constant": (
        written(lambda m, x: m.head((m.conv(m.normalize(x)) * m.act(m.weight).sum()).flatten(1))),
        "act NQ: takes no output of a layer; allowed: one tensor of the network",
    ),
    "an activation of zeros": (
        written(lambda m, x: m.head(m.act(constant(m, x)).flatten(1))),
        "act NQ: takes a constant; allowed: outputs of layers",
    ),
    "scores of zeros": (
        written(lambda m, x: constant(m, x).mean((2, 3))),
        "forward: returns a constant; allowed: the scores of the classes",
    ),
    "dependence on values": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).flatten(1)) if x.sum() > 0 else x),
        "test_lower.py:{line}: gt: its values decide what forward does; allowed: the same operations for every image",
    ),
    "addition of other shapes": (
        written(lambda m, x: m.head((m.act(m.conv(m.normalize(x))) + m.normalize(x)).flatten(1))),
        "test_lower.py:{line}: add: fails for images of (2, 12, 8) (Attempting to broadcast",
    ),
    "dropout that stays": (
        written(lambda m, x: m.head(F.dropout(m.act(m.conv(m.normalize(x)))).flatten(1))),
        "test_lower.py:{line}: dropout: acts in evaluation mode too; allowed: training=self.training",
    ),
    "several outputs": (
        written(lambda m, x: (m.head(m.act(m.conv(m.normalize(x))).flatten(1)), x)),
        "forward: does not return one tensor; allowed: the scores of the classes",
    ),
    "one output in a tuple": (
        written(lambda m, x: (m.head(m.act(m.conv(m.normalize(x))).flatten(1)),)),
        "forward: does not return one tensor; allowed: the scores of the classes",
    ),
    "a view that mixes images": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).transpose(0, 1).reshape(-1, 288))),
        "test_lower.py:{line}: transpose: mixes images; allowed: the batch as the first dimension, (N, ...)",
    ),
    "the first image": (
        written(lambda m, x: m.head(m.conv(m.normalize(x)).repeat(1, 2, 1, 1)[0][:3].flatten())),
        "test_lower.py:{line}: getitem: gives (6, 12, 8) for 3 images; allowed: the batch as the first dimension",
    ),
    "a mean of everything": (
        written(lambda m, x: m.head((m.conv(m.normalize(x)) + m.conv(m.normalize(x)).mean()).flatten(1))),
        "test_lower.py:{line}: mean: gives () for 3 images; allowed: the batch as the first dimension",
    ),
    "a mean over images": (
        written(lambda m, x: m.head((y := m.conv(m.normalize(x))).flatten(1)) + y.mean(0).sum()),
        "test_lower.py:{line}: mean: goes over the batch; allowed: dimensions from 1 on",
    ),
    "a maximum of everything": (
        written(lambda m, x: m.head((y := m.act(m.conv(m.normalize(x)))).flatten(1)) + y.amax()),
        "test_lower.py:{line}: amax: goes over all dimensions, the batch too; allowed: dimensions from 1 on",
    ),
    "a maximum over channels": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).amax(1, keepdim=True).repeat(1, 3, 1, 1).flatten(1))),
        "test_lower.py:{line}: amax: takes the maximum over channels; allowed: maxima over height and width",
    ),
    "a maximum over the width, dropped": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x))).amax(3).repeat(1, 8, 1).flatten(1))),
        "test_lower.py:{line}: amax: takes the maximum over the width and drops it; allowed: keepdim=True",
    ),
    "weights that the network computes": (
        written(lambda m, x: F.conv2d(y := m.act(m.conv(m.normalize(x))), y.mean((2, 3), True)).flatten(1)),
        "test_lower.py:{line}: conv2d: takes an output of the network as a constant; allowed: constant numbers and ",
    ),
    "a complex factor": (
        written(lambda m, x: m.head((m.conv(m.normalize(x)) * 1j).real.flatten(1))),
        "test_lower.py:{line}: mul: takes complex as a constant; allowed: constant numbers and tensors",
    ),
    "a matrix product of outputs": (
        written(lambda m, x: ((y := m.conv(m.normalize(x))) @ y.transpose(2, 3)).mean((2, 3))),
        "test_lower.py:{line}: matmul: multiplies by a tensor that is not a constant matrix; allowed: x @ W with a ",
    ),
    "a quotient of outputs": (
        written(lambda m, x: m.head(((y := m.act(m.conv(m.normalize(x)))) / y.sum((2, 3), True)).flatten(1))),
        "test_lower.py:{line}: truediv: divides by an output of the network, or rounds; allowed: constant divisors",
    ),
    "a sum of five dimensions": (
        written(lambda m, x: m.head((m.conv(m.normalize(x)).view(-1, 3, 3, 4, 8) + 1).flatten(1))),
        "test_lower.py:{line}: add: takes a tensor of 5 dimensions; allowed: (N, C, H, W), (N, C, L) or (N, C)",
    ),
    "a gate": (
        written(lambda m, x: m.head((y := m.act(m.conv(m.normalize(x)))).mul(y.mean((2, 3), True)).flatten(1))),
        "test_lower.py:{line}: mul: multiplies two outputs of the network, as gates, squeeze-and-excitation and ",
    ),
    "an activation that is negative": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.GELU(), *flat(288)]),
        "2 GELU: gelu: gelu is an activation whose output is negative somewhere or not a ramp, and spikes cannot be; "
        "allowed: ReLU, ReLU6 or NQ in its place, and fine-tuning",
    ),
    "layer norm": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.LayerNorm((3, 12, 8)), NQ(4), *flat(288)]),
        "2 LayerNorm: layer_norm: layer_norm normalises by statistics of each image; allowed: batch norm",
    ),
    "recurrence": (
        written(lambda m, x: m.rnn(m.act(m.conv(m.normalize(x))).flatten(2))),
        "rnn LSTM: LSTM is recurrent; allowed: networks without loops",
    ),
    "something that is not known": (
        written(lambda m, x: m.head(m.act(m.conv(m.normalize(x)).cumsum(1)).flatten(1))),
        "test_lower.py:{line}: cumsum: cumsum is no operation that can be exported; allowed: convolutions, linear ",
    ),
    "softmax before the end": (
        lambda: build([*flat(192), nn.Softmax(1), nn.Linear(3, 3)]),
        "4 Linear: linear: follows softmax; allowed: softmax at the end, or nowhere",
    ),
    "an activation behind softmax": (
        lambda: build([*flat(192), nn.Softmax(1), NQ(4), nn.Linear(3, 3)]),
        "4 NQ: follows softmax; allowed: softmax at the end, or nowhere",
    ),
    "a maximum at the end": (
        written(lambda m, x: m.conv(m.normalize(x)).amax((2, 3))),
        "forward: ends with a maximum of currents; allowed: average pooling at the end",
    ),
    "maximum of currents behind two paddings": (
        lambda: build(
            [
                nn.Conv2d(2, 3, 3, 3, 1),
                nn.Conv2d(3, 3, 3, padding=1),
                nn.MaxPool2d(2),
                NQ(4),
                nn.Flatten(),
                nn.Linear(6, 3),
            ]
        ),
        "3 MaxPool2d: max_pool2d: takes the maximum of sums; allowed: max pooling directly before or behind",
    ),
    "maximum of averages": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AvgPool2d(2), nn.MaxPool2d(2), *flat(18)]),
        "4 MaxPool2d: max_pool2d: takes the maximum of sums; allowed: max pooling directly before or behind",
    ),
    "maximum of negative spikes": (
        written(lambda m, x: m.head(F.max_pool2d(-0.5 * m.act(m.conv(m.normalize(x))), 1).flatten(1))),
        "test_lower.py:{line}: max_pool2d: takes the maximum of spikes times -0.75; allowed: positive factors",
    ),
    "maximum with its places": (
        written(lambda m, x: m.head(F.max_pool2d(m.act(m.conv(m.normalize(x))), 1, return_indices=True)[0].flatten(1))),
        "test_lower.py:{line}: max_pool2d_with_indices: max_pool2d_with_indices is no operation",
    ),
    "maximum to a size that does not divide": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AdaptiveMaxPool2d((5, 3)), *flat(45)]),
        "3 AdaptiveMaxPool2d: adaptive_max_pool2d: pools (12, 8) to (5, 3); allowed: sizes that divide the map",
    ),
    "factors of places behind a maximum": (
        written(lambda m, x: m.head(m.act(F.max_pool2d(m.conv(m.normalize(x)), 1) * torch.arange(8)).flatten(1))),
        "test_lower.py:{line}: mul: multiplies the places of a maximum differently; allowed: one factor per channel",
    ),
    "numbers of places behind a maximum": (
        written(lambda m, x: m.head(m.act(F.max_pool2d(m.conv(m.normalize(x)), 1) + torch.arange(8)).flatten(1))),
        "test_lower.py:{line}: add: adds different numbers to the places of a maximum; allowed: one number per channel",
    ),
    "maximum of currents without an activation": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.MaxPool2d(2), nn.Conv2d(3, 3, 1), NQ(4), *flat(72)]),
        "3 Conv2d: conv2d: takes a maximum of currents; allowed: max pooling directly before or behind an activation",
    ),
    "maximum times a negative factor": (
        changed(lambda n: n[3].weight.fill_(-1.0), [nn.MaxPool2d(1)]),
        "3 BatchNorm2d: batch_norm: multiplies a maximum by -1.16: a negative factor makes a minimum of it; allowed: ",
    ),
    "maximum of sums of spikes": (
        written(lambda m, x: m.head(F.max_pool2d((y := m.act(m.conv(m.normalize(x)))) + y, 1).flatten(1))),
        "test_lower.py:{line}: max_pool2d: takes the maximum of sums; allowed: max pooling directly before or behind",
    ),
    "a change in place of what another view shows": (
        written(lambda m, x: [y := m.conv(m.normalize(x)), z := y.flatten(1), y.add_(1), m.head(z)][-1]),
        "test_lower.py:{line}: add_: changes in place a tensor of which another view is used again; allowed: x = x + y",
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
    "compiled inside": (
        changed(lambda n: n.__setitem__(1, torch.compile(n[1]))),
        "1 OptimizedModule: torch.compile wraps the module; convert its _orig_mod",
    ),
    "TorchScript inside": (
        changed(lambda n: n.__setitem__(1, torch.jit.script(n[1]))),
        "1 RecursiveScriptModule: TorchScript has no Python forward; convert the module that it was made of",
    ),
    "lazy": (
        changed(lambda n: n.__setitem__(1, nn.LazyConv2d(3, 1).eval())),
        "1 LazyConv2d: has parameters without a size; allowed: a module that has had an image",
    ),
    "parameters alone": (
        lambda: nn.Linear(1, 1).state_dict(),
        "model is of type OrderedDict; pass a torch.nn.Module with its parameters",
    ),
    "half": (
        changed(lambda n: n[3].half()),
        "3 NQ: threshold is float16; allowed: float32, as by model.float()",
    ),
    "bfloat16": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), *flat(288)]).bfloat16(),
        "0 Normalize: mean is bfloat16; allowed: float32, as by model.float()",
    ),
    "replaced forward": (
        changed(lambda n: setattr(n[1], "forward", lambda x: x)),
        "1 Conv2d: forward was replaced on the object; allowed: forward as its class defines it",
    ),
    "another activation in the disguise of NQ": (
        lambda: build([nn.Conv2d(2, 3, 1), type("Mine", (NQ,), {"forward": lambda _s, z: z})(4), *flat(288)]),
        "2 Mine: has a forward of its own; allowed: that of Neuron",
    ),
    "adaptive pooling to nothing": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.AdaptiveAvgPool2d(0), *flat(3)]),
        "5 Linear: linear: fails for images of (2, 12, 8) (a and b must have same reduction dim, but got [3, 0]",
    ),
    "large pooling": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.AvgPool2d(16), NQ(4), *flat(3)]),
        "2 AvgPool2d: avg_pool2d: fails for images of (2, 12, 8) (Given input size: (3x12x8).",
    ),
    "kernel": (
        lambda: build([nn.Conv2d(2, 3, 13), NQ(4), *flat(288)]),
        "1 Conv2d: conv2d: fails for images of (2, 12, 8) (Calculated padded input size per channel: (12 x 8).",
    ),
    "no statistics": (
        changed(lambda n: n[2]._buffers.update(running_mean=None, running_var=None)),
        "2 BatchNorm2d: batch_norm: has no running statistics; allowed: batch norm with them",
    ),
    "batch norm of other channels": (
        lambda: build([nn.Conv2d(2, 3, 1), nn.BatchNorm2d(4), NQ(4), *flat(288)]),
        "2 BatchNorm2d: batch_norm: fails for images of (2, 12, 8) (running_mean should contain 3 elements not 4)",
    ),
    "inputs": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), *flat(287)]),
        "4 Linear: linear: fails for images of (2, 12, 8) (a and b must have same reduction dim",
    ),
    "not flattened": (
        lambda: build([nn.Conv2d(2, 3, 1), NQ(4), nn.Linear(8, 3)]),
        "forward: returns (N, 3, 12, 3); allowed: the scores of the classes (N, K)",
    ),
    "convolution behind linear": (
        lambda: build([nn.Flatten(), nn.Linear(192, 4), NQ(4), nn.Conv2d(4, 3, 1), NQ(4), *flat(3)]),
        "4 Conv2d: conv2d: fails for images of (2, 12, 8) (Expected 3D (unbatched) or 4D (batched) input",
    ),
    "convolution at the end": (
        lambda: build([nn.Conv2d(2, 3, 1)]),
        "forward: returns (N, 3, 12, 8); allowed: the scores of the classes (N, K)",
    ),
    "negative variance": (
        changed(lambda n: n[2].running_var[1].fill_(-1.0)),
        "2 BatchNorm2d: batch_norm: variance is -1.0; allowed: numbers of at least 0",
    ),
    "channels of the image": (
        lambda: nn.Sequential(Normalize((0.3,), (0.5,)), *flat(192)).eval(),
        "Normalize: is for 1 channels; allowed: 2 as the image",
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
    "zero deviation": (
        changed(lambda n: n[0].std[0, 1].fill_(0.0)),
        "Normalize: std is 0.0; allowed: finite numbers, std above 0",
    ),
    "initial potentials of other channels": (
        changed(lambda n: setattr(n[3], "initial", torch.ones(4))),
        "3 NQ: initial is of shape (4,); allowed: one number, or 3, one per channel",
    ),
    "nan mean": (
        changed(lambda n: n[0].mean[0, 1].fill_(float("nan"))),
        "Normalize: mean is nan; allowed: finite numbers",
    ),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("case", BAD)
def test_bad_networks(case: str) -> None:
    make, message = BAD[case]
    model = make()
    with pytest.raises(ExportError) as caught:
        lower(model, IMAGE)
    line = model.steps.__code__.co_firstlineno if isinstance(model, Forward) else None
    assert str(caught.value).startswith(message.format(line=line)) and "\n" not in str(caught.value)


def test_mean_of_an_image_is_a_number_per_channel() -> None:
    folded = lower(random_tiny(0), SHAPE)
    np.testing.assert_allclose(folded.mean, (0.5, 0.4, 0.6), rtol=1e-6)
    np.testing.assert_allclose(folded.std, (0.25, 0.2, 0.3), rtol=1e-6)
    assert folded.input_shape == SHAPE


def test_a_compiled_module_is_what_it_was_made_of() -> None:
    model = random_tiny(0)
    found, expected = lower(torch.compile(model), SHAPE), lower(model, SHAPE)
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert one.name == other.name and np.array_equal(one.connections[0].weight, other.connections[0].weight)


class Spares(nn.Module):
    """Uses a module's weight without the module; what begins with spare is left over."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), NQ(4), nn.AvgPool2d(2), nn.Flatten())
        self.head, self.same, self.by_hand = nn.Linear(48, 5), nn.Linear(48, 5), nn.Linear(48, 5)
        self.same.weight = self.head.weight
        self.spare, self.spare_head, self.dropout = NQ(4), nn.Sequential(nn.Linear(48, 5), nn.ReLU()), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x / 255)
        return self.head(x) + F.linear(x, self.by_hand.weight)


def test_what_forward_does_not_use_is_named() -> None:
    folded = lower(Spares().eval(), (3, 8, 10))
    assert folded.unused == ("spare", "spare_head.0")
    assert lower(random_tiny(0), SHAPE).unused == ()
