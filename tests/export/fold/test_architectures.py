"""What networks of other authors are built of: each exports, and its layers receive what its activations receive."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from export.fold.lower import lower
from export.fold.prepare import prepare
from export.round.quantize import quantize
from nqlava import reference
from nqlava.engine.integer import Engine
from nqlava.testing.engines import assert_same
from tests.export.fold.oracle import assert_same_currents
from tests.tiny import randomise
from train.model.activation import NQ
from train.model.models import Normalize

IMAGE = (2, 9, 8)


class Fn(nn.Module):
    """A forward that is a function of the input and of some modules."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def conv(inputs: int, outputs: int, kernel: int = 3, **more: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2, **more})  # type: ignore[arg-type]


def head(channels: int = 6) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


def behind_spikes(*modules: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """The modules behind 6 channels of spikes, 9 x 8."""
    return network(conv(2, 6), NQ(4), *modules)


def network(*modules: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    layers = [m if isinstance(m, nn.Module) else Fn(m) for m in modules]
    made = nn.Sequential(Normalize((0.4, 0.5), (0.2, 0.3)), *layers)
    randomise(made, 4)
    return made


def between(*modules: nn.Module | Callable[[Tensor], Tensor], channels: int = 6) -> nn.Module:
    """The modules between spikes and an activation."""
    return behind_spikes(*modules, NQ(4), *head(channels))


class ConvOfAnother(nn.Conv2d):
    """A convolution with other defaults, and the forward that it inherits."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)


class NormOfAnother(nn.BatchNorm2d):
    """Batch norm with other defaults."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)


class Standardized(nn.Conv2d):
    """A convolution whose weight is an expression of constants."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, padding=self.padding)


class LayerScale(nn.Module):
    """A factor per channel, as in ConvNeXt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, channels).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class QCFS(nn.Module):
    """The activation of the QCFS paper (Bu et al., ICLR 2022), as its equation says, with a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.thresh, self.levels = nn.Parameter(torch.tensor([2.0])), 8

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(torch.clamp(x / self.thresh, 0, 1) * self.levels + 0.5) / self.levels * self.thresh


def shuffled(x: Tensor) -> Tensor:
    b, c, h, w = x.size()
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)


def focus(x: Tensor) -> Tensor:
    x = x[:, :, :8]
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def with_coordinates(x: Tensor) -> Tensor:
    return torch.cat((x, torch.linspace(-1, 1, 72).view(1, 1, 9, 8).expand(x.size(0), -1, -1, -1)), 1)


def halves(x: Tensor, one: nn.Module, two: nn.Module) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.cat((one(a), b), 1) + two(x)


def dense_block(x: Tensor, *parts: nn.Module) -> Tensor:
    features = [x]
    for part in parts:
        features.append(part(torch.cat(features, 1)))
    return torch.cat(features, 1)


def grown(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, 2))


def stochastic() -> nn.Module:
    return StochasticDepth(0.2, "row")


CASES: dict[str, Callable[[], nn.Module]] = {
    # shortcuts, concatenation, slices
    "option-A shortcut": lambda: between(
        Fn(lambda x, c: c(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)), conv(6, 12, stride=2)), channels=12
    ),
    "option-A shortcut by zeros": lambda: between(
        Fn(lambda x, c: c(x) + torch.cat((x[:, :, ::2, ::2], 0 * x[:, :, ::2, ::2]), 1), conv(6, 12, stride=2)),
        channels=12,
    ),
    "concatenation of two branches": lambda: between(
        Fn(
            lambda x, a, b, c: c(torch.cat([a(x), b(x)], 1)),
            nn.Sequential(conv(6, 4), NQ(4)),
            nn.Sequential(conv(6, 3, 1), NQ(4)),
            conv(7, 6),
        )
    ),
    "a dense block": lambda: behind_spikes(Fn(dense_block, grown(6), grown(8)), nn.BatchNorm2d(10), NQ(4), *head(10)),
    "halves of the channels": lambda: between(Fn(halves, conv(3, 3), conv(6, 6, 1))),
    "a channel shuffle": lambda: between(conv(6, 6), shuffled, conv(6, 6, 1)),
    "a channel shuffle before a depthwise convolution": lambda: between(shuffled, conv(6, 6, groups=6)),
    "nn.ChannelShuffle before groups": lambda: between(nn.ChannelShuffle(3), conv(6, 4, groups=2), channels=4),
    "space to depth": lambda: between(focus, conv(24, 6)),
    "pixel unshuffle": lambda: between(lambda x: F.pixel_unshuffle(x[:, :, 1:], 2), conv(24, 6)),
    "channels in another order": lambda: between(lambda x: x[:, torch.tensor([5, 0, 3, 3, 1])], conv(5, 6)),
    "halves of the groups": lambda: between(conv(6, 6, groups=3), lambda x: x[:, 2:4], conv(2, 6, 1)),
    "channels across groups": lambda: between(conv(6, 6, groups=3), lambda x: x[:, 1:4], conv(3, 6, 1)),
    "groups across a concatenation": lambda: between(
        Fn(lambda x, a: torch.cat([a(x), x[:, :2]], 1), nn.Sequential(conv(6, 4), NQ(4))), conv(6, 6, groups=2)
    ),
    "a tensor joined to itself": lambda: between(lambda x: torch.cat((x, x), 1), conv(12, 6)),
    "rows of two maps": lambda: between(Fn(lambda x, a: torch.cat([x, a(x)[:, :, :3]], 2), conv(6, 6)), conv(6, 6)),
    "coordinates as a channel": lambda: between(with_coordinates, conv(7, 6)),
    "channels that no source reaches": lambda: network(
        conv(2, 32),
        NQ(4),
        conv(32, 64, 5),
        lambda x: F.pad(x, (0, 0, 0, 0, 64, 64)),
        nn.BatchNorm2d(192),
        NQ(4),
        *head(192),
    ),
    "a flipped map": lambda: between(lambda x: x[:, :2, :, :].flip(1), conv(2, 6)),
    "stack and sum": lambda: between(
        Fn(lambda x, a, b: torch.stack([a(x), b(x)], 1).flatten(1, 2), conv(6, 2), conv(6, 2)), channels=4
    ),
    "concatenation of flattened maps": lambda: behind_spikes(
        Fn(lambda x, a: torch.cat((x.flatten(1), a(x).flatten(1)), 1), nn.Sequential(conv(6, 2), NQ(4))),
        nn.Linear(576, 5),
    ),
    # no activation between
    "linear bottleneck": lambda: between(conv(6, 3, 1, bias=False), nn.BatchNorm2d(3), conv(3, 6, 1)),
    "depthwise, then pointwise": lambda: between(conv(6, 6, groups=6, bias=False), nn.BatchNorm2d(6), conv(6, 6, 1)),
    "pointwise, then depthwise without padding": lambda: between(
        conv(6, 4, 1), conv(4, 4, groups=4, padding=0), channels=4
    ),
    "3x1, then 1x3": lambda: between(nn.Conv2d(6, 6, (3, 1), padding=(1, 0)), nn.Conv2d(6, 6, (1, 3), padding=(0, 1))),
    "groups behind groups": lambda: between(conv(6, 12, groups=6), conv(12, 6, 1, groups=2)),
    "strides and dilation multiplied": lambda: between(
        conv(6, 4, stride=2, padding=3, dilation=2), conv(4, 6, 2, padding=0, dilation=2)
    ),
    "two paddings without an activation": lambda: between(conv(6, 4, stride=3), conv(4, 6)),
    "a network behind two paddings": lambda: behind_spikes(
        conv(6, 3, stride=3),
        conv(3, 3),
        NQ(4),
        Fn(lambda x, c: c(x) + x, conv(3, 3)),
        nn.BatchNorm2d(3),
        NQ(4),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(3, 5),
    ),
    "inverted residual": lambda: between(
        Fn(lambda x, a, b: b(x + a(x)), nn.Sequential(conv(6, 9, 1), nn.ReLU6(), conv(9, 6, 1)), conv(6, 6, 1))
    ),
    "batch norm behind the activation": lambda: between(nn.BatchNorm2d(6), conv(6, 6)),
    "batch norm of the image": lambda: network(nn.BatchNorm2d(2), conv(2, 6), NQ(4), *head()),
    "preactivation": lambda: behind_spikes(
        Fn(lambda x, a, b: x + a(x) + b(x), conv(6, 6), conv(6, 6)), nn.BatchNorm2d(6), NQ(4), *head()
    ),
    "two linear layers": lambda: behind_spikes(nn.Flatten(), nn.Linear(432, 7), nn.BatchNorm1d(7), nn.Linear(7, 5)),
    # arithmetic
    "a - b": lambda: between(Fn(lambda x, a, b: a(x) - b(x), conv(6, 6), conv(6, 6, 1))),
    "a + 0.5 b": lambda: between(Fn(lambda x, a, b: a(x) + 0.5 * b(x), conv(6, 6), conv(6, 6, 1))),
    "sum of a list": lambda: between(Fn(lambda x, a, b: sum([a(x), b(x), x]), conv(6, 6), conv(6, 6, 1))),
    "torch.add with alpha": lambda: between(Fn(lambda x, a: torch.add(a(x), x, alpha=-2), conv(6, 6))),
    "1 - x": lambda: between(lambda x: 1 - x, conv(6, 6)),
    "a factor per place": lambda: between(
        Fn(lambda x, c: c(x) * torch.linspace(-1, 1, 72).view(9, 8), conv(6, 6)), conv(6, 6, 1)
    ),
    "-x": lambda: between(lambda x: -x, conv(6, 6)),
    "a number per place": lambda: between(Fn(lambda x, c: c(x) + torch.linspace(-1, 1, 72).view(9, 8), conv(6, 6))),
    "0.125 * scores": lambda: behind_spikes(*head(), lambda x: 0.125 * x),
    "scores / 9": lambda: behind_spikes(*head(), lambda x: x / 9),
    "layer scale": lambda: between(Fn(lambda x, a, b: x + b(a(x)), conv(6, 6), LayerScale(6))),
    "softmax at the end": lambda: behind_spikes(*head(), nn.Softmax(1)),
    "scores in another order": lambda: behind_spikes(*head(), lambda x: x.flip(1)),
    "log_softmax at the end": lambda: behind_spikes(*head(), lambda x: F.log_softmax(x, dim=1)),
    "the image's own normalisation": lambda: _plain(
        lambda x: (x.float() / 255 - 0.4) / 0.2, conv(2, 6), NQ(4), *head()
    ),
    "the image's channels in another order": lambda: nn.Sequential(Fn(lambda x: x.flip(1)), between(conv(6, 6))).eval(),
    "x @ W": lambda: behind_spikes(nn.Flatten(), lambda x: x @ torch.linspace(-1, 1, 432 * 5).view(432, 5)),
    # pooling
    "overlapping average": lambda: between(nn.AvgPool2d(3, 2, 1)),
    "average that leaves a rest": lambda: between(nn.AvgPool2d(2), conv(6, 6, padding=0)),
    "average that leaves a rest, then padding": lambda: between(nn.AvgPool2d(2), conv(6, 6)),
    "average with ceil_mode": lambda: between(nn.AvgPool2d(2, ceil_mode=True)),
    "average without its padding": lambda: behind_spikes(
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Flatten(), nn.Linear(120, 5)
    ),
    "average with a divisor": lambda: between(lambda x: F.avg_pool2d(x, 2, divisor_override=3)),
    "average with a divisor, also of cut windows": lambda: between(
        lambda x: F.avg_pool2d(x, 2, ceil_mode=True, divisor_override=3)
    ),
    "average with a divisor, also of padding": lambda: between(
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False, divisor_override=3)
    ),
    "overlapping average of a padded convolution": lambda: between(conv(6, 6), nn.AvgPool2d(3, 2, 1)),
    "adaptive average to a size that does not divide": lambda: behind_spikes(
        nn.AdaptiveAvgPool2d((4, 3)), nn.Flatten(), nn.Linear(72, 5)
    ),
    "adaptive average to a larger size": lambda: behind_spikes(
        nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 5)
    ),
    "average of single pixels": lambda: between(nn.AvgPool2d(1, 2)),
    "pooling by size": lambda: behind_spikes(
        lambda x: F.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1), nn.Linear(6, 5)
    ),
    "dilation behind pooling": lambda: between(nn.AvgPool2d((3, 2)), conv(6, 6, dilation=2, padding=2)),
    "pooling by the last size": lambda: behind_spikes(
        lambda x: F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1), nn.Linear(6, 5)
    ),
    "functional adaptive average": lambda: behind_spikes(
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), nn.Linear(6, 5)
    ),
    "mean over the width, then the height": lambda: behind_spikes(lambda x: x.mean(3).mean(2), nn.Linear(6, 5)),
    "mean over channels": lambda: between(Fn(lambda x, c: c(x) + x.mean(1, keepdim=True), conv(6, 6))),
    "sum over places": lambda: behind_spikes(lambda x: x.sum((2, 3)), nn.Linear(6, 5)),
    "max pooling of spikes": lambda: between(nn.MaxPool2d(2), conv(6, 6)),
    "max pooling of currents": lambda: between(conv(6, 6), nn.MaxPool2d(3, 2, 1)),
    "max pooling twice, with batch norm between": lambda: between(
        conv(6, 6), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.MaxPool2d(2, ceil_mode=True)
    ),
    "max pooling of a concatenation": lambda: between(
        Fn(lambda x, a: F.max_pool2d(torch.cat([x, a(x)], 1), 3, 2, ceil_mode=True), nn.Sequential(conv(6, 2), NQ(4))),
        channels=8,
    ),
    "global max pooling": lambda: behind_spikes(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    "maximum over places": lambda: behind_spikes(lambda x: x.amax((2, 3)), nn.Linear(6, 5)),
    "maximum over the width": lambda: behind_spikes(lambda x: x.amax(3, keepdim=True), nn.Flatten(), nn.Linear(54, 5)),
    # padding
    "padding same": lambda: between(conv(6, 6, 4, padding="same")),
    "padding valid": lambda: between(conv(6, 6, padding="valid")),
    "ZeroPad2d on one side": lambda: between(nn.ZeroPad2d((1, 0, 2, 0)), conv(6, 6, padding=0, stride=2)),
    "one place": lambda: behind_spikes(conv(6, 5), lambda x: x[:, :, 4, 4]),
    "a corner": lambda: behind_spikes(conv(6, 5, dilation=2, padding=2), lambda x: x[:, :, 0, -1]),
    "dilation, then cropped": lambda: between(conv(6, 6, dilation=2, padding=2), lambda x: x[:, :, :-1]),
    "cropped": lambda: between(lambda x: x[:, :, 1:-2, 2:], conv(6, 6)),
    # shapes and flattening
    "view(-1, N)": lambda: behind_spikes(nn.AdaptiveAvgPool2d(1), lambda x: x.view(-1, 6), nn.Linear(6, 5)),
    "view(x.size(0), N)": lambda: behind_spikes(
        nn.AdaptiveAvgPool2d(1), lambda x: x.view(x.size(0), 6), nn.Linear(6, 5)
    ),
    "an assert on a shape": lambda: behind_spikes(asserted, nn.Linear(432, 5)),
    "SyncBatchNorm": lambda: between(conv(6, 6), nn.SyncBatchNorm(6)),
    "squeeze": lambda: behind_spikes(nn.AdaptiveAvgPool2d(1), lambda x: x.squeeze(), nn.Linear(6, 5)),
    "x[:, :, 0, 0]": lambda: behind_spikes(nn.AdaptiveAvgPool2d(1), lambda x: x[:, :, 0, 0], nn.Linear(6, 5)),
    "reshape(-1, N)": lambda: behind_spikes(nn.AdaptiveAvgPool2d(1), lambda x: x.reshape(-1, 6), nn.Linear(6, 5)),
    "squeeze(-1) twice": lambda: behind_spikes(
        nn.AdaptiveAvgPool2d(1), lambda x: x.squeeze(-1).squeeze(-1), nn.Linear(6, 5)
    ),
    "contiguous().view": lambda: behind_spikes(lambda x: x.contiguous().view(x.size(0), -1), nn.Linear(432, 5)),
    "view by len": lambda: behind_spikes(lambda x: x.view(len(x), -1), nn.Linear(432, 5)),
    "flattened in another order": lambda: behind_spikes(lambda x: x.permute(0, 2, 3, 1).flatten(1), nn.Linear(432, 5)),
    "a linear layer over channels": lambda: between(
        Fn(lambda x, c: c(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(6, 6))
    ),
    "sizes that are looked at": lambda: between(
        Fn(lambda x, c: c(x) if x.shape[1] == 6 and x.dim() == 4 and len(x.shape) == 4 else x, conv(6, 6))
    ),
    "Conv1d": lambda: behind_spikes(
        lambda x: x.flatten(2),
        nn.Conv1d(6, 4, 5, stride=2),
        nn.BatchNorm1d(4),
        NQ(4),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Linear(68, 5),
    ),
    "MaxPool1d": lambda: behind_spikes(
        lambda x: x.mean(2),
        nn.Conv1d(6, 4, 3),
        nn.MaxPool1d(2),
        NQ(4),
        nn.MaxPool1d(2, 1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ),
    # classifiers without a linear layer
    "convolution, then global average": lambda: behind_spikes(conv(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "convolution, ReLU, global average": lambda: behind_spikes(
        conv(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "convolution and batch norm, then average and linear": lambda: behind_spikes(
        conv(6, 6), nn.BatchNorm2d(6), *head()
    ),
    # modules
    "a subclass of Conv2d": lambda: between(ConvOfAnother(6, 6)),
    "a subclass of BatchNorm2d": lambda: between(conv(6, 6), NormOfAnother(6)),
    "standardized weights": lambda: between(Standardized(6, 6, 3, padding=1)),
    "a parametrized weight": lambda: between(nn.utils.parametrizations.weight_norm(conv(6, 6))),
    "FrozenBatchNorm2d": lambda: between(conv(6, 6), FrozenBatchNorm2d(6)),
    "a functional convolution": lambda: between(lambda x: F.conv2d(x, torch.ones(6, 6, 3, 3))),
    "what does nothing in evaluation": lambda: between(
        stochastic(), nn.AlphaDropout(), lambda x: x.data.contiguous().float() * 1.0, nn.Dropout2d(), conv(6, 6)
    ),
    "what a forward asks of a tensor": lambda: between(
        lambda x: x + torch.ones(x.numel() // 3, dtype=x.dtype, device=x.device).sum() if x.is_floating_point() else -x,
        conv(6, 6),
    ),
    "an operation whose result is not used": lambda: between(lambda x: (F.gelu(x), x)[1], conv(6, 6)),
    # activations
    "functional ReLU": lambda: behind_spikes(conv(6, 6), F.relu, conv(6, 6), torch.relu, *head()),
    "one ReLU in several places": lambda: behind_spikes(
        Fn(lambda x, r, a, b: r(b(r(a(x)))), nn.ReLU(inplace=True), conv(6, 6), conv(6, 6)), *head()
    ),
    "ReLU in place of what is used again": lambda: behind_spikes(
        Fn(lambda x, r, a, b: r(b(y := a(x))) + (r(y), y)[1], nn.ReLU(inplace=True), conv(6, 6), conv(6, 6)), *head()
    ),
    "ReLU6": lambda: behind_spikes(conv(6, 6), nn.ReLU6(), *head()),
    "Hardtanh": lambda: behind_spikes(conv(6, 6), nn.Hardtanh(0, 2), conv(6, 6), lambda x: x.clamp(0, 1), *head()),
    "clamp between convolutions": lambda: behind_spikes(
        Fn(lambda x, a, b: b(a(x).clamp(0, 2)).clamp(min=0), conv(6, 6), conv(6, 6)), *head()
    ),
    "QCFS's own module": lambda: behind_spikes(conv(6, 6), QCFS(), *head()),
    "ReLU of a flattened map": lambda: behind_spikes(conv(6, 2), nn.Flatten(), nn.ReLU(), nn.Linear(144, 5)),
    "nn.DataParallel": lambda: nn.DataParallel(between(conv(6, 6))),
    "averaged weights": lambda: AveragedModel(between(conv(6, 6))).eval(),
}


SINGLE = (
    "the image's channels in another order",
    "coordinates as a channel",
    "a functional convolution",
    "what does nothing in evaluation",
    "the image's own normalisation",
    "x @ W",
)
"""What computes in float32 whatever the parameters are."""


def asserted(x: Tensor) -> Tensor:
    assert x.shape[1] == 6 and x.ndim == 4
    return x.flatten(1)


def _plain(*modules: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """A network that takes 8-bit images without Normalize."""
    made = network(*modules)
    return nn.Sequential(*list(made)[1:]).eval()


@pytest.mark.parametrize("case", CASES)
def test_every_layer_receives_what_the_activation_receives(case: str) -> None:
    assert_same_currents(CASES[case](), IMAGE, torch.float32 if case in SINGLE else torch.float64)


INTEGER = (
    "option-A shortcut", "a dense block", "two paddings without an activation", "a network behind two paddings",
    "a number per place", "max pooling of a concatenation", "max pooling of currents", "ReLU of a flattened map",
    "cropped", "one place", "Conv1d", "space to depth", "the image's own normalisation",
)  # fmt: skip


@pytest.mark.parametrize("case", INTEGER)
def test_the_integer_network_is_exact(case: str) -> None:
    """What lowering makes of connections, borders and maxima is what the engine and the reference take."""
    model = CASES[case]()
    lowered = lower(model, IMAGE)
    network, _ = quantize(lowered if lowered.is_prepared else lower(prepare(model, IMAGE), IMAGE))
    images = torch.randint(0, 256, (2, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = Engine(network).run(images, 3)
    assert_same([reference.run(network, image.numpy(), 3) for image in images], got)
    assert all(0 < got.layer_spikes(index).mean() < 1 for index in range(len(got.shapes)))
