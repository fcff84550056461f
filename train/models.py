"""Networks that convert: VGG and residual networks of convolution, batch norm, NQ, average pooling, linear layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from train.activation import NQ

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
MAX_LEVELS = 1024  # L of NQ that model files may hold


class Normalize(nn.Module):
    """8-bit image to network input: (x/255 − mean) / std per channel; x is uint8 (N, C, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std


class Network(nn.Module):
    """A classifier from uint8 images (N, C, H, W) to class scores (N, K).

    Attributes:
        layers: Normalize first, then convolutions, batch norm, NQ, average pooling, residual blocks and linear layers.
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
        """Shape of every NQ layer's output for a batch of the given size."""
        shapes: list[torch.Size] = []
        hooks = [a.register_forward_hook(lambda _m, _i, out: shapes.append(out.shape)) for a in self.activations]
        training = self.training
        try:
            self.eval()
            with torch.no_grad():
                device = self.activations[0].threshold.device
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
        activation: makes an NQ layer.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[], NQ]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = _block(inputs, outputs, activation, stride=stride)
        self.conv2, self.bn2, act2 = _block(outputs, outputs, activation)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(_convolution(inputs, outputs, 1, stride=stride))
            self.shortcut.append(nn.BatchNorm2d(outputs))
        self.act2 = act2

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(y)) + self.shortcut(x))


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _block(inputs: int, outputs: int, activation: Callable[[], NQ], *, stride: int = 1) -> list[nn.Module]:
    return [_convolution(inputs, outputs, 3, stride=stride), nn.BatchNorm2d(outputs), activation()]


def _features(plan: Sequence[int | str], channels: int, activation: Callable[[], NQ]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for item in plan:
        if item == "pool":
            layers.append(nn.AvgPool2d(2))
        else:
            layers += _block(channels, int(item), activation)
            channels = int(item)
    return layers


def vgg_small(classes: int = 10, *, levels: int = 4, threshold: float = 4.0) -> Network:
    """Six 3x3 convolutions (32-64-pool-128-128-pool-256-256), global average pooling, one linear layer.

    1.13 million parameters; 133 million multiply-accumulates per 32x32 image.
    """
    return _small_vgg((32, 64, 128, 128, 256, 256), classes, levels=levels, threshold=threshold)


def vgg_tiny(classes: int = 10, *, levels: int = 4, threshold: float = 4.0) -> Network:
    """:func:`vgg_small` with half the channels, for comparisons over many trainings.

    0.284 million parameters; 33 million multiply-accumulates per 32x32 image.
    """
    return _small_vgg((16, 32, 64, 64, 128, 128), classes, levels=levels, threshold=threshold)


def _small_vgg(widths: Sequence[int], classes: int, *, levels: int, threshold: float) -> Network:
    plan = [*widths[:2], "pool", *widths[2:4], "pool", *widths[4:]]
    layers = [
        Normalize(CIFAR10_MEAN, CIFAR10_STD),
        *_features(plan, 3, lambda: NQ(levels, threshold)),
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    ]
    return Network(layers, input_shape=(3, 32, 32), levels=levels)


def vgg16(classes: int = 10, *, levels: int = 4, threshold: float = 4.0) -> Network:
    """VGG-16 for 32x32 images with batch norm and average pooling, as in the QCFS and NQ papers' code.

    Thirteen 3x3 convolutions, five 2x2 average poolings, two hidden linear layers of 4096; 33.6 million parameters.
    """
    plan: list[int | str] = [
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
    layers = [
        Normalize(CIFAR10_MEAN, CIFAR10_STD),
        *_features(plan, 3, lambda: NQ(levels, threshold)),
        nn.Flatten(),
        nn.Linear(512, 4096),
        NQ(levels, threshold),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        NQ(levels, threshold),
        nn.Dropout(),
        nn.Linear(4096, classes),
    ]
    return Network(layers, input_shape=(3, 32, 32), levels=levels)


def _resnet(widths: Sequence[int], blocks: Sequence[int], classes: int, *, levels: int, threshold: float) -> Network:
    """3x3 convolution, stages of basic blocks that halve the size from the second on, global pooling, linear layer."""

    def activation() -> NQ:
        return NQ(levels, threshold)

    layers = [Normalize(CIFAR10_MEAN, CIFAR10_STD), *_block(3, widths[0], activation)]
    channels = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for index in range(count):
            layers.append(BasicBlock(channels, width, 2 if stage and not index else 1, activation))
            channels = width
    size = 32 // 2 ** (len(widths) - 1)
    layers += [nn.AvgPool2d(size), nn.Flatten(), nn.Linear(channels, classes)]
    return Network(layers, input_shape=(3, 32, 32), levels=levels)


def resnet18(classes: int = 10, *, levels: int = 4, threshold: float = 4.0) -> Network:
    """ResNet-18 for 32x32 images: widths 64 to 512, two blocks each; 11.2 million parameters."""
    return _resnet((64, 128, 256, 512), (2, 2, 2, 2), classes, levels=levels, threshold=threshold)


def resnet20(classes: int = 10, *, levels: int = 4, threshold: float = 4.0) -> Network:
    """ResNet-20 for 32x32 images: widths 16, 32, 64, three blocks each; 0.272 million parameters."""
    return _resnet((16, 32, 64), (3, 3, 3), classes, levels=levels, threshold=threshold)


def resnet34(classes: int = 10, *, levels: int = 4, threshold: float = 4.0) -> Network:
    """ResNet-34 for 32x32 images: widths 64 to 512; 3, 4, 6 and 3 blocks; 21.3 million parameters."""
    return _resnet((64, 128, 256, 512), (3, 4, 6, 3), classes, levels=levels, threshold=threshold)


MODELS: dict[str, Callable[..., Network]] = {
    "vgg_small": vgg_small,
    "vgg_tiny": vgg_tiny,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet34": resnet34,
}
