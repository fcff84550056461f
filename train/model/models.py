"""Networks that convert: VGG and residual networks of convolutions, batch norm, activations, average pooling."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nqlava.errors import InputError
from train.choices import Activation, Reset
from train.model.activation import NQ, Neuron, RateReLU

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_SIZE = 1024  # of images, in pixels


@dataclass(frozen=True)
class Form:
    """What a network is made of, besides its layers' sizes.

    Attributes:
        activation: "nq", with batch norm; or "relu" as RMP-SNN asks for (Han et al., CVPR 2020), which the rate of IF
            neurons replaces: neither biases nor batch norm, and dropout after every activation.
        levels: L of NQ. threshold: λ or θ at the start.
        reset: of the neurons that replace ReLU.
        dropout: probability, for "relu".
        size: height and width of the images in pixels; None for those the network is known for, 32 or 224.
    """

    activation: Activation = "nq"
    levels: int = 4
    threshold: float = 4.0
    reset: Reset = "soft"
    dropout: float = 0.0
    size: int | None = None

    def neuron(self) -> Neuron:
        """A new activation."""
        if self.activation == "nq":
            return NQ(self.levels, self.threshold)
        return RateReLU(self.threshold, self.reset)

    def normalization(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if self.activation == "nq" else nn.Identity()

    def block(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> list[nn.Module]:
        """Convolution, then batch norm and NQ, or ReLU and dropout."""
        convolution = _convolution(inputs, outputs, kernel, stride=stride)
        if self.activation == "nq":
            return [convolution, nn.BatchNorm2d(outputs), self.neuron()]
        return [convolution, self.neuron(), nn.Dropout(self.dropout)]

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        return nn.Linear(inputs, outputs, bias=self.activation == "nq")

    def hidden(self, inputs: int, outputs: int) -> list[nn.Module]:
        """Linear layer without batch norm, then the activation.

        Its weights have variance 2 / inputs, as the convolutions' (He et al., ICCV 2015): with PyTorch's 1 / (3 inputs)
        the currents stay below λ/2L, so that at the start nearly all activations are 0.
        """
        linear = self.linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        return [linear, self.neuron()]

    def image_size(self, usual: int, multiple: int) -> int:
        """Height and width in pixels. InputError where the layers of a network cannot divide them."""
        size = usual if self.size is None else self.size
        if not (0 < size <= MAX_SIZE and size % multiple == 0):
            raise InputError(f"images are {size} pixels high; allowed: multiples of {multiple} up to {MAX_SIZE}")
        return size


class Normalize(nn.Module):
    """8-bit image to network input: (x/255 − mean) / std per channel; x is uint8 (N, C, H, W).

    Attributes:
        largest: absolute value that the output can have.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.largest = max(max(m, 1 - m) / s for m, s in zip(mean, std, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std


class Network(nn.Module):
    """A classifier from uint8 images (N, C, H, W) to class scores (N, K).

    Attributes:
        layers: Normalize first, then convolutions, batch norm, activations, average pooling, residual blocks and
            linear layers.
        input_shape: (C, H, W) of one image.
        levels: L of every NQ layer.
    """

    def __init__(self, layers: list[nn.Module], *, input_shape: tuple[int, int, int], levels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.input_shape = input_shape
        self.levels = levels

    @property
    def activations(self) -> list[NQ]:
        """The NQ layers, in order."""
        return [layer for layer in self.modules() if isinstance(layer, NQ)]

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        return self.layers(images)

    def activation_shapes(self, batch: int) -> list[torch.Size]:
        """Shape of every activation's output for a batch of the given size."""
        shapes: list[torch.Size] = []
        found = [module for module in self.modules() if isinstance(module, Neuron)]
        hooks = [a.register_forward_hook(lambda _m, _i, out: shapes.append(out.shape)) for a in found]
        training = self.training
        try:
            self.eval()
            with torch.no_grad():
                device = next(self.parameters()).device
                self(torch.zeros(1, *self.input_shape, dtype=torch.uint8, device=device))
        finally:
            self.train(training)
            for hook in hooks:
                hook.remove()
        return [torch.Size((batch, *shape[1:])) for shape in shapes]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that joins before the second activation (He et al., CVPR 2016).

    The shortcut is the identity, or a 1x1 convolution with batch norm where the shape changes (option B).

    Args:
        inputs, outputs: channels.
        stride: of the first convolution and of the shortcut.
        form: see :class:`Form`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, form: Form) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs, 3, stride=stride), form.normalization(outputs)
        self.act1 = form.neuron()
        self.conv2, self.bn2 = _convolution(outputs, outputs, 3), form.normalization(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(_convolution(inputs, outputs, 1, stride=stride))
            self.shortcut.append(form.normalization(outputs))
        self.act2 = form.neuron()
        self.dropout = nn.Dropout(form.dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.act1(self.bn1(self.conv1(x))))
        return self.dropout(self.act2(self.bn2(self.conv2(y)) + self.shortcut(x)))


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


@torch.no_grad()
def begin_with_identity(network: nn.Module) -> None:
    """Make the first C_in filters of every convolution (C_out ≥ C_in) pass their own channel on.

    Of a kernel with an odd size the tap in the middle is 1 (a Dirac), with an even size the taps in the middle average.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight[: module.in_channels]
            weight.zero_()
            middle = [slice((size - 1) // 2, size // 2 + 1) for size in module.kernel_size]
            for channel in range(len(weight)):
                tap = weight[channel, channel][middle[0], middle[1]]
                tap.fill_(1 / tap.numel())


def _features(plan: Sequence[int | str], channels: int, form: Form) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for item in plan:
        if item == "pool":
            layers.append(nn.AvgPool2d(2))
        else:
            layers += form.block(channels, int(item))
            channels = int(item)
    return layers


def vgg_small(classes: int = 10, **form: Any) -> Network:
    """Six 3x3 convolutions (32-64-pool-128-128-pool-256-256), global average pooling, one linear layer.

    1.13 million parameters; 133 million multiply-accumulates per 32x32 image. ``form``: see :class:`Form`.
    """
    return _small_vgg((32, 64, 128, 128, 256, 256), classes, Form(**form))


def vgg_tiny(classes: int = 10, **form: Any) -> Network:
    """:func:`vgg_small` with half the channels, for comparisons over many trainings.

    0.284 million parameters; 33 million multiply-accumulates per 32x32 image.
    """
    return _small_vgg((16, 32, 64, 64, 128, 128), classes, Form(**form))


def _small_vgg(widths: Sequence[int], classes: int, form: Form) -> Network:
    size = form.image_size(32, multiple=4)
    plan: list[int | str] = [*widths[:2], "pool", *widths[2:4], "pool", *widths[4:]]
    layers = [
        Normalize(CIFAR10_MEAN, CIFAR10_STD),
        *_features(plan, 3, form),
        nn.AvgPool2d(size // 4),
        nn.Flatten(),
        form.linear(widths[-1], classes),
    ]
    return Network(layers, input_shape=(3, size, size), levels=form.levels)


def lean_s(classes: int = 10, **form: Any) -> Network:
    """Seven convolutions for few time steps, see :func:`_lean`; widths 24, 32, 64 and 112.

    0.321 million parameters; 14 million multiply-accumulates per 32x32 image. ``form``: see :class:`Form`.
    """
    return _lean((24, 32, 64, 112), classes, Form(**form))


def lean_m(classes: int = 10, **form: Any) -> Network:
    """:func:`lean_s` with widths 32, 64, 240 and 256; 2.41 million parameters, 93 million multiply-accumulates."""
    return _lean((32, 64, 240, 256), classes, Form(**form))


def lean_l(classes: int = 10, **form: Any) -> Network:
    """:func:`lean_s` with widths 48, 128, 320 and 384; 5.12 million parameters, 218 million multiply-accumulates."""
    return _lean((48, 128, 320, 384), classes, Form(**form))


def _lean(widths: Sequence[int], classes: int, form: Form) -> Network:
    """A 3x3 convolution, then for each further width a 4x4 convolution of stride 2 and a 3x3; global average pooling.

    A 4x4 convolution of stride 2 is what a 3x3 convolution becomes with average pooling of its currents, before batch
    norm and activation. It gives a quarter of the neurons, for 16/36 of the synaptic operations.
    """
    size = form.image_size(32, multiple=8)
    layers = form.block(3, widths[0])
    for inputs, outputs in itertools.pairwise(widths):
        layers += form.block(inputs, outputs, 4, stride=2)
        layers += form.block(outputs, outputs)
    read_out = [nn.AvgPool2d(size // 8), nn.Flatten(), form.linear(widths[-1], classes)]
    layers = [Normalize(CIFAR10_MEAN, CIFAR10_STD), *layers, *read_out]
    return Network(layers, input_shape=(3, size, size), levels=form.levels)


_VGG16: list[int | str] = [
    64,
    64,
    "pool",
    128,
    128,
    "pool",
    256,
    256,
    256,
    "pool",
    512,
    512,
    512,
    "pool",
    512,
    512,
    512,
    "pool",
]


def vgg16(classes: int = 10, **form: Any) -> Network:
    """VGG-16 for 32x32 images with batch norm and average pooling, as in the QCFS and NQ papers' code.

    Thirteen 3x3 convolutions, five 2x2 average poolings, two hidden linear layers of 4096; 33.6 million parameters.
    """
    return _vgg16(Normalize(CIFAR10_MEAN, CIFAR10_STD), 32, classes, Form(**form))


def vgg16_imagenet(classes: int = 1000, **form: Any) -> Network:
    """VGG-16 for 224x224 images with batch norm and average pooling (Simonyan and Zisserman, ICLR 2015).

    138 million parameters.
    """
    return _vgg16(Normalize(IMAGENET_MEAN, IMAGENET_STD), 224, classes, Form(**form))


def _vgg16(normalize: Normalize, usual_size: int, classes: int, form: Form) -> Network:
    size = form.image_size(usual_size, multiple=32)
    dropout = form.dropout if form.activation == "relu" else 0.5
    layers = [
        normalize,
        *_features(_VGG16, 3, form),
        nn.Flatten(),
        *form.hidden(512 * (size // 32) ** 2, 4096),
        nn.Dropout(dropout),
        *form.hidden(4096, 4096),
        nn.Dropout(dropout),
        form.linear(4096, classes),
    ]
    return Network(layers, input_shape=(3, size, size), levels=form.levels)


def _stages(widths: Sequence[int], blocks: Sequence[int], form: Form) -> list[nn.Module]:
    """Stages of basic blocks that halve the size from the second on."""
    layers: list[nn.Module] = []
    channels = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for index in range(count):
            layers.append(BasicBlock(channels, width, 2 if stage and not index else 1, form))
            channels = width
    return layers


def _resnet(widths: Sequence[int], blocks: Sequence[int], classes: int, form: Form) -> Network:
    """3x3 convolution, stages of basic blocks, global average pooling, linear layer."""
    reduction = 2 ** (len(widths) - 1)
    size = form.image_size(32, multiple=reduction)
    layers = [
        Normalize(CIFAR10_MEAN, CIFAR10_STD),
        *form.block(3, widths[0]),
        *_stages(widths, blocks, form),
        nn.AvgPool2d(size // reduction),
        nn.Flatten(),
        form.linear(widths[-1], classes),
    ]
    return Network(layers, input_shape=(3, size, size), levels=form.levels)


def resnet18(classes: int = 10, **form: Any) -> Network:
    """ResNet-18 for 32x32 images: widths 64 to 512, two blocks each; 11.2 million parameters."""
    return _resnet((64, 128, 256, 512), (2, 2, 2, 2), classes, Form(**form))


def resnet20(classes: int = 10, **form: Any) -> Network:
    """ResNet-20 for 32x32 images: widths 16, 32, 64, three blocks each; 0.272 million parameters."""
    return _resnet((16, 32, 64), (3, 3, 3), classes, Form(**form))


def resnet34(classes: int = 10, **form: Any) -> Network:
    """ResNet-34 for 32x32 images: widths 64 to 512; 3, 4, 6 and 3 blocks; 21.3 million parameters."""
    return _resnet((64, 128, 256, 512), (3, 4, 6, 3), classes, Form(**form))


def resnet34_imagenet(classes: int = 1000, **form: Any) -> Network:
    """ResNet-34 for 224x224 images (He et al., CVPR 2016): 7x7 convolution, average pooling, the stages of ResNet-34.

    Both halve the size; the average replaces the maximum, which IF neurons cannot give. 21.8 million parameters.
    """
    made = Form(**form)
    size = made.image_size(224, multiple=32)
    layers = [
        Normalize(IMAGENET_MEAN, IMAGENET_STD),
        *made.block(3, 64, 7, stride=2),
        nn.AvgPool2d(2),
        *_stages((64, 128, 256, 512), (3, 4, 6, 3), made),
        nn.AvgPool2d(size // 32),
        nn.Flatten(),
        made.linear(512, classes),
    ]
    return Network(layers, input_shape=(3, size, size), levels=made.levels)


MODELS: dict[str, Callable[..., Network]] = {
    "lean_s": lean_s,
    "lean_m": lean_m,
    "lean_l": lean_l,
    "vgg_small": vgg_small,
    "vgg_tiny": vgg_tiny,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet34": resnet34,
    "vgg16_imagenet": vgg16_imagenet,
    "resnet34_imagenet": resnet34_imagenet,
}
