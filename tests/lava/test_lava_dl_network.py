"""The engine equals lava-dl's own network in Lava, on files that SLAYER wrote and on files at the edges of every range.

EXAMPLES=300 in the environment tries that many networks instead of a few.
"""

import os
from collections import Counter
from pathlib import Path

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

from deploy.lava import lava_dl_network
from deploy.lava_dl import reader as lava_dl
from deploy.lava_dl.check import Comparison
from deploy.lava_dl.engine import CLOCKS, LifEngine, local_clock_conflict, synaptic_weight
from deploy.lava_dl.reader import LifNetwork, NetxError
from tests.lava_dl import slayer as slayer_networks
from tests.lava_dl.networks import generators, random_inputs, random_network, random_weight, write

EXAMPLES = int(os.environ.get("EXAMPLES", "6"))
STEPS = 24


def compare(
    path: Path, network: LifNetwork, inputs: np.ndarray, clock: str, *, graded: bool = False
) -> tuple[int, ...]:
    """Asserts equality, and returns the number of spikes per layer."""
    activity = LifEngine(network, graded=graded).run(inputs, clock)
    comparison = Comparison(network)
    for lava in lava_dl_network.run(path, network, inputs, clock, graded=graded):
        done = comparison.samples
        comparison.add(lava, activity.samples(slice(done, done + len(lava.spikes[0]))))
    assert comparison.first is None and comparison.exact
    assert comparison.samples == len(inputs)
    return tuple(int(spikes.sum()) for spikes in activity.spikes)


@pytest.mark.slow
def test_networks_that_slayer_exported(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(20, 20 + EXAMPLES):  # the first six have everything
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        modules, shape, input_neurons = slayer_networks.random_blocks(rng)
        path = tmp_path / f"{seed}.net"
        low, high = (-3, 6) if input_neurons else (0, 2)
        inputs = rng.integers(low, high, (2, *shape, STEPS)) * (20 if input_neurons else 1)
        normalized = any(getattr(getattr(m, "synapse", None), "weight_norm_enabled", False) for m in modules)
        slayer_networks.export(modules, path)
        network = lava_dl.read(path)
        clock = CLOCKS[seed % 2] if local_clock_conflict(network) is None else "global"
        counts = compare(path, network, np.moveaxis(inputs, -1, 1), clock)
        if not network.has_delays:
            compare_with_slayer(modules, network, inputs)
        seen.update(
            {
                "all": 1,
                "spiking in every layer": int(
                    all(count or layer.threshold >= 2**17 for count, layer in zip(counts, network.layers, strict=True))
                ),
                "weight norm": int(normalized),
                "delays": int(network.has_delays),
                "input neurons": int(input_neurons),
                "convolutions": int(len(shape) == 3),
                "biases": int(any(layer.bias.any() for layer in network.layers)),
                "decays per channel": int(any(layer.voltage_decay.size > 1 for layer in network.layers)),
                "a layer without neurons": int(network.layers[-1].threshold == 2**17),
                clock: 1,
            }
        )
    print(", ".join(f"{name}: {count}" for name, count in seen.most_common()))
    assert all(seen.values()) and seen["spiking in every layer"] > EXAMPLES / 2


def compare_with_slayer(modules: torch.nn.ModuleList, network: LifNetwork, inputs: np.ndarray) -> None:
    """SLAYER's float arithmetic gives the same spikes, counted with the global clock and one step late."""
    given = torch.tensor(inputs, dtype=torch.float32)
    # Input neurons pass spikes on one step late, as Lava's first synapses do.
    given = given / 64 if network.has_input_neurons else torch.nn.functional.pad(given, (1, -1))
    outputs = slayer_networks.forward(modules, given)
    blocks = [index for index, module in enumerate(modules) if getattr(module, "neuron", None) is not None]
    activity = LifEngine(network).run(np.moveaxis(inputs, -1, 1), "global")
    for index, spikes, layer in zip(blocks, activity.spikes, network.layers, strict=True):
        if layer.threshold < 2**17:
            expected = outputs[index].numpy()[..., 1:]
            np.testing.assert_array_equal(np.moveaxis(spikes, 1, -1)[..., :-1], expected)


@pytest.mark.slow
def test_networks_at_the_edges(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(EXAMPLES):
        rng = np.random.default_rng(1000 + seed)
        network = random_network(rng)
        graded = not network.has_input_neurons and bool(rng.random() < 0.5)
        path = tmp_path / f"{seed}.net"
        write(network, path)
        inputs = random_inputs(rng, network, 2, 12, graded=graded)
        clock = CLOCKS[seed % 2] if local_clock_conflict(network) is None else "global"
        counts = compare(path, network, inputs, clock, graded=graded)
        seen.update({"all": 1, "spiking": int(any(counts)), "graded": int(graded), "delays": int(network.has_delays)})
    print(", ".join(f"{name}: {count}" for name, count in seen.most_common()))
    assert all(seen.values()) and seen["spiking"] > EXAMPLES / 2


@settings(max_examples=300, deadline=None, derandomize=True)
@given(generators())
def test_dense_weights_are_those_of_lava(rng: np.random.Generator) -> None:
    weight = random_weight(rng, (int(rng.integers(1, 4)), int(rng.integers(1, 4))))
    with np.errstate(divide="ignore"):
        expected, bits, exponent, _ = optimize_weight_bits(weight)
    sign = determine_sign_mode(expected)
    expected = truncate_weights(clip_weights(expected, sign, num_bits=8), sign, bits)
    got, e = synaptic_weight(weight)
    assert e == -exponent
    np.testing.assert_array_equal(got, expected)


def test_says_that_lava_dl_fails(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = random_network(rng)
    while network.layers[-1].weight is None or len(network.layers[-1].shape) == 3:
        network = random_network(rng)
    network.layers[-1].weight[:] = 0
    write(network, tmp_path / "zeros.net")
    inputs = random_inputs(rng, network, 1, 2, graded=False)
    with pytest.raises(NetxError, match=r"lava-dl's reader fails, so there is nothing to compare with: OverflowError"):
        list(lava_dl_network.run(tmp_path / "zeros.net", network, inputs))
