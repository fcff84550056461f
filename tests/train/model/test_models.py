"""The networks have the stated shapes and sizes, and asking for shapes changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.float_oracle import layer_output
from tests.tiny import random_tiny
from train.choices import MODEL_SIZES
from train.model.models import (
    MODELS,
    Network,
    Normalize,
    begin_with_identity,
    lean_l,
    lean_m,
    lean_s,
    resnet18,
    resnet20,
    resnet34,
    resnet34_imagenet,
    vgg16,
    vgg16_imagenet,
    vgg_small,
    vgg_tiny,
)


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (lean_s, "0.321 million parameters"),
        (lean_m, "2.41 million parameters"),
        (lean_l, "5.12 million parameters"),
        (vgg_small, "1.13 million parameters"),
        (vgg_tiny, "0.284 million"),
        (vgg16, "33.6 million"),
        (resnet18, "11.2 million"),
        (resnet20, "0.272 million"),
        (resnet34, "21.3 million"),
        (vgg16_imagenet, "138 million"),
        (resnet34_imagenet, "21.8 million"),
    ],
)
def test_shapes_and_parameter_counts_as_documented(build: Callable[..., Network], millions: str) -> None:
    imagenet = build.__name__.endswith("imagenet")
    with torch.device("meta"):
        count = sum(p.numel() for p in build(1000 if imagenet else 10).parameters())
    network = build(7, levels=3, threshold=2.0, **({"size": 32} if imagenet else {})).eval()
    assert millions in build.__doc__ and f"{count / 1e6:.3g}" == millions.split()[0]
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 7)
    assert {(a.levels, float(a.threshold.detach())) for a in network.activations} == {(3, 2.0)}
    assert MODELS[build.__name__] is build


def test_sizes() -> None:
    """As --help of the training commands shows them."""
    with torch.device("meta"):
        made = {name: MODELS[name](1000 if "imagenet" in name else 10) for name in MODEL_SIZES}
    found = {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()}
    assert {name: round(count / 1e6, 2) for name, count in found.items()} == MODEL_SIZES


@pytest.mark.parametrize(
    ("build", "millions"), [(lean_s, 14), (lean_m, 93), (lean_l, 218), (vgg_small, 133), (vgg_tiny, 33)]
)
def test_multiply_accumulates_of_the_small_networks(build: Callable[..., Network], millions: int) -> None:
    network, total = build().eval(), 0

    def count(module: nn.Module, _inputs: tuple, out: torch.Tensor) -> None:
        nonlocal total
        total += module.weight[0].numel() * out[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert round(total / 1e6) == millions and f"{millions} million multiply-accumulates" in build.__doc__


@pytest.mark.parametrize("training", [False, True])
def test_activation_shapes_leave_the_network_as_it_was(training: bool) -> None:
    network = random_tiny(0).train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert network.activation_shapes(9) == [(9, 4, 8, 6), (9, 6, 4, 2), (9, 7)]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert {m.training for m in network.modules()} == {training}
    assert not any(a._forward_hooks for a in network.activations)


def test_each_activation_gets_its_own_noise() -> None:
    network = random_tiny(0).train()
    noise = [torch.randn(shape) for shape in network.activation_shapes(2)]
    for layer in network.layers:
        if isinstance(layer, nn.Dropout | nn.BatchNorm2d):
            layer.eval()
    images = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for layer in network.activations[:2]:
        layer.sigma.zero_()
    network.activations[2].sigma.fill_(0.5)
    linear = network.layers[-1]
    quiet = network(images)
    for layer, values in zip(network.activations, noise, strict=True):
        layer.noise = lambda shape, values=values: values.view(shape)
    difference = network(images) - quiet
    torch.testing.assert_close(difference, 0.5 * noise[2] @ linear.weight.T, rtol=1e-4, atol=1e-5)


def test_normalize() -> None:
    image = torch.randint(0, 256, (1, 3, 4, 5), dtype=torch.uint8)
    normalize = Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    expected = layer_output(normalize, image[0].numpy())
    torch.testing.assert_close(normalize(image)[0].double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["nq", "relu"])
def test_other_sizes_of_images(activation: str) -> None:
    for build, size in ((vgg_tiny, 64), (resnet20, 64), (vgg16, 64), (resnet34_imagenet, 64)):
        network = build(3, size=size, activation=activation).eval()
        assert network.input_shape == (3, size, size)
        assert network(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape == (1, 3)
    with pytest.raises(ValueError, match="images are 48 pixels high; allowed: multiples of 32 up to 1024"):
        vgg16(size=48)


def test_hidden_linear_layers_are_alive_before_training() -> None:
    """With PyTorch's own weights fewer than one in twenty activations of VGG-16's linear layers are above 0."""
    torch.manual_seed(0)
    network = vgg16().train()
    shares: list[float] = []
    for activation in network.activations[-2:]:
        activation.register_forward_hook(lambda _m, _i, out: shares.append((out > 0).float().mean().item()))
    network(torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8))
    assert min(shares) > 0.15, shares


def test_filters_that_begin_with_an_identity_pass_their_channels_on() -> None:
    """An odd kernel the pixel itself, an even one with stride 2 the mean of four; the filters behind stay random."""
    torch.manual_seed(0)
    network = lean_s()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    begin_with_identity(network)
    first, pooling, third = [m for m in network.modules() if isinstance(m, nn.Conv2d)][:3]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(first(x)[:, :3], x)
    assert torch.equal(first.weight[3:], before["layers.1.weight"][3:])
    x = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(pooling(x)[:, :24], nn.functional.avg_pool2d(x, 2))
    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(third(x), x)


def test_a_convolution_and_pooling_of_its_currents_is_one_of_the_lean_convolutions() -> None:
    """K[a, b] = 1/4 Σ w[a − i, b − j] over i, j in {0, 1}: 4x4, stride 2."""
    torch.manual_seed(0)
    pooling = next(m for m in lean_s().modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (4, 4))
    plain = nn.Conv2d(24, 32, 3, padding=1, bias=False)
    with torch.no_grad():
        pooling.weight.zero_()
        for i in (0, 1):
            for j in (0, 1):
                pooling.weight[:, :, i : i + 3, j : j + 3] += plain.weight / 4
    x = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(pooling(x), nn.functional.avg_pool2d(plain(x), 2))
