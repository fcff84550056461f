"""What calibration measures equals the same taken from the engine's spikes by plain loops, to the last bits."""

from itertools import product
from math import lcm

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.fold.folded import FoldedConnection, FoldedNetwork
from export.round.calibration import IntegerPrefix
from export.round.quantize import learned, quantize
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, INPUT_MAX, IntegerNetwork
from tests.export.round.test_rounding import IMAGES, NETWORKS, STEPS, folded_network

BOTH = torch.cat([IMAGES, IMAGES.flip(3)])  # more than are run at once
MANY_STEPS = 1000  # sums of squares beyond 2²⁴


def arriving_means(folded: FoldedNetwork, network: IntegerNetwork, steps: int) -> dict[str, NDArray[np.float64]]:
    """By source the mean over the steps of what it sends, (n, C, H, W): spikes, or x − 255 m."""
    trace = Engine(network).run(BOTH, steps)
    found = {IMAGE: BOTH.numpy() - INPUT_MAX * folded.mean.reshape(-1, 1, 1)}
    for index, layer in enumerate(network.layers[:-1]):
        found[layer.name] = trace.layer_spikes(index).mean(1, dtype=np.float64)
    return found


def windows_summed(c: FoldedConnection, values: NDArray[np.float64]) -> NDArray[np.float64]:
    channels, height, width = c.pooled_shape
    values = values.reshape(len(values), channels, *(c.source_shape[1:] or (1, 1)))
    values = values[:, :, : height * c.window[0], : width * c.window[1]]
    return values.reshape(len(values), channels, height, c.window[0], width, c.window[1]).sum((3, 5))


def seen(c: FoldedConnection, values: NDArray[np.float64], group: int) -> NDArray[np.float64]:
    """What the kernels of a group see: (n · positions, I/groups · kh · kw)."""
    values = np.pad(windows_summed(c, values), ((0, 0), (0, 0), *((m, m) for m in c.padding)))
    inputs, *kernel = c.weight.shape[1:]
    values = values[:, group * inputs : (group + 1) * inputs]
    rows = []
    for y, x in product(*(range(size) for size in (c.output_shape[1:] or (1, 1)))):
        at = [np.arange(k) * d + p * s for k, d, p, s in zip(kernel, c.dilation, (y, x), c.stride, strict=True)]
        rows.append(values[:, :, at[0][:, None], at[1]].reshape(len(values), -1))
    return np.concatenate(rows)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("name", "steps"), [*((name, STEPS) for name in NETWORKS), ("grouped", MANY_STEPS)])
def test_moments(name: str, steps: int, centred: bool) -> None:
    folded = folded_network(name)
    network, _ = quantize(folded)
    means = arriving_means(folded, network, steps)
    prefix = IntegerPrefix(folded, BOTH, steps)
    for layer, integers in zip(folded.layers, network.layers, strict=True):
        connections = learned(layer)
        blocks = lcm(*(c.groups for c in connections))
        found = prefix.moments(layer, centred=centred)
        assert len(found) == blocks
        for block, moments in enumerate(found):
            x = np.concatenate([seen(c, means[c.source], block * c.groups // blocks) for c in connections], axis=1)
            expected = x.T @ x / len(x)
            if centred:
                expected -= np.outer(x.mean(0), x.mean(0))
            np.testing.assert_allclose(moments.numpy(), expected, rtol=1e-11, atol=1e-11 * abs(x).max() ** 2)
        prefix.advance(integers)
