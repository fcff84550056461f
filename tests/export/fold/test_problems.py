"""All parts that cannot be exported are told at once, each with its place."""

import torch
from torch import Tensor, nn

from export.fold.problems import problems
from tests.export.fold.test_architectures import CASES, IMAGE, behind_spikes, conv, head


class Excited(nn.Module):
    """A block with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = conv(6, 6), conv(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))


LINE = Excited.forward.__code__.co_firstlineno + 2


def test_a_network_that_exports_has_none() -> None:
    assert problems(CASES["a dense block"](), IMAGE) == ()


def test_all_are_listed() -> None:
    model = behind_spikes(Excited(), nn.ReLU(), Excited(), nn.GELU(), nn.LayerNorm(8), conv(6, 6), nn.ReLU(), *head())
    sigmoid = (
        "sigmoid is an activation whose output is negative somewhere or not a ramp, and spikes cannot be; allowed:"
    )
    assert [line[: line.index("allowed")] + "allowed:" for line in problems(model, IMAGE)] == [
        f"3 Excited (test_problems.py:{LINE}): sigmoid: {sigmoid}",
        f"3 Excited (test_problems.py:{LINE}): mul: multiplies two outputs of the network, as gates, "
        "squeeze-and-excitation and attention do; allowed:",
        f"5 Excited (test_problems.py:{LINE}): sigmoid: {sigmoid}",
        f"5 Excited (test_problems.py:{LINE}): mul: multiplies two outputs of the network, as gates, "
        "squeeze-and-excitation and attention do; allowed:",
        f"6 GELU: gelu: {sigmoid.replace('sigmoid', 'gelu')}",
        "7 LayerNorm: layer_norm: layer_norm normalises by statistics of each image; allowed:",
    ]


def test_a_forward_that_depends_on_values_is_the_last() -> None:
    class Early(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    found = problems(behind_spikes(nn.GELU(), Early(), nn.Tanh(), *head()), IMAGE)
    assert len(found) == 1 and "test_problems.py" in found[0] and "its values decide what forward does" in found[0]
