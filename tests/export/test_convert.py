"""convert takes a user's ReLU network as it is."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy import api
from export.convert import convert
from export.describe import describe
from tests.tiny import image_set, randomise
from train.model.activation import NQ
from train.model.models import Normalize


class LeNet(nn.Module):
    """Functional activations and pooling, and a view of a map larger than 1x1, which other layouts cannot have."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.normalize = Normalize((0.5, 0.4, 0.6), (0.25, 0.2, 0.3))
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(48, 12), nn.Linear(12, 5)
        self.activation = activation or F.relu
        randomise(self, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.activation(self.conv1(self.normalize(x))), 2)
        x = self.activation(self.conv2(x))
        x = F.avg_pool2d(x, (2, 1))
        return F.log_softmax(self.fc2(self.activation(self.fc1(x.view(x.size(0), -1)))), dim=1)


def test_a_relu_network_becomes_an_snn_that_agrees_with_it() -> None:
    data = image_set(40)
    images = data.images.permute(0, 3, 1, 2).contiguous()
    model = LeNet()
    network, report = convert(model, data, steps=64)
    with torch.no_grad():
        expected = model(images).argmax(1).numpy()
    found = api.run(network, images.numpy(), expected, steps=64)
    assert found.accuracy[-1] > 70, "the classes are those of the ReLU network"
    assert "log_softmax at the end is left out: the largest score stays the largest" in describe(report).splitlines()


def plain() -> nn.Module:
    """A network for normalised images, as most are."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    randomise(model, 1)
    return model


def test_arrays_and_batches_give_the_same_network() -> None:
    """Without labels the classes are those of the ReLU network, and have no names that images would have to have."""
    data, mean, std = image_set(40), (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)
    pixels = data.images.permute(0, 3, 1, 2).contiguous()
    floats = (pixels / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    batches = list(zip(floats.split(7), data.labels.split(7), strict=True))
    networks, reports = zip(
        *(convert(plain(), images, steps=16, mean=mean, std=std) for images in (data, pixels.numpy(), batches)),
        strict=True,
    )
    assert len({network.digest() for network in networks}) == 1
    assert "classes" in networks[0].info and "classes" not in networks[1].info
    assert reports[1].ann == 100 and reports[0].ann == reports[2].ann < 100


def test_a_loss_of_accuracy_is_told_with_what_to_do() -> None:
    data = image_set(40)
    images = data.images.permute(0, 3, 1, 2).contiguous()
    _, report = convert(LeNet(), images, steps=1)
    made = report.conversion
    assert made is not None and made.relu == 100 and list(made.integer) == [1, 2]
    *_, accuracies, advice = describe(report).splitlines()
    assert accuracies.startswith("40 calibration images: ReLU network 100.00 %, with 1 levels ")
    assert advice.startswith(f"{100 - made.integer[1]:.1f} points are lost at T=1, most of them by ")


def test_a_view_of_spikes_is_calibrated() -> None:
    """Neurons put their spikes into another layout of the memory, and the author's view of it failed."""
    convert(LeNet(NQ(4, 1.5)), image_set(20), steps=4)


def test_an_activation_that_is_never_called_is_left_out_with_a_line() -> None:
    model = LeNet(NQ(4, 1.5))
    model.spare = NQ(4)
    _, report = convert(model.eval(), image_set(20), steps=4)
    assert report.unused == ("spare",) and "left out, as forward does not use them: spare" in describe(report)


def test_the_cost_of_multiplying_out_is_told() -> None:
    narrow = [nn.Conv2d(4, 1, 1), nn.Conv2d(1, 4, 3)]
    model = nn.Sequential(
        Normalize((0.5,) * 3, (0.25,) * 3), nn.Conv2d(3, 4, 1), NQ(4), *narrow, NQ(4), nn.Flatten(), nn.Linear(96, 5)
    )
    report = convert(model.eval(), image_set(20), steps=2)[1]
    assert report.grown == (("4", 144, 40),)
    assert "layers with more weights than their modules: 4 144 of 40" in describe(report)
