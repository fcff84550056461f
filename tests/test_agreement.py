"""One truth: on random networks the oracle, the engine, Lava and, where it can read the file, lava-dl agree exactly.

EXAMPLES=300 in the environment (``make campaign``) tries that many networks instead of a few.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deploy.integer import IntegerEngine
from deploy.lava import build, netx_network
from deploy.trace import Trace, concatenate
from export import netx
from export.network import IntegerNetwork
from tests.lava_dl import LAVA_DL
from tests.oracle import simulate
from tests.strategies import images_for, networks

EXAMPLES = int(os.environ.get("EXAMPLES", "8"))
SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]


def features(network: IntegerNetwork) -> Iterator[str]:
    """What a network has, for the summary."""
    connections = [c for layer in network.layers for c in layer.connections]
    yield "all"
    for name, present in {
        "version 1 (lava-dl)": netx.version_of(network) == 1,
        "shortcut": any(len(layer.connections) > 1 for layer in network.layers),
        "shortcut over several places": any(
            network.depth_of[layer.name] - network.depth_of[c.source] > 1
            for layer in network.layers
            for c in layer.connections
        ),
        "hard reset": any(layer.reset == "hard" for layer in network.layers),
        "exponent": any(c.exponent for c in connections),
        "convolution": any(c.is_convolution for c in connections),
        "stride": any(c.stride != (1, 1) for c in connections),
        "dilation": any(c.dilation != (1, 1) for c in connections),
        "groups": any(c.groups > 1 for c in connections),
        "bias per neuron": any(layer.bias.ndim == 3 for layer in network.layers),
        "not square": network.input_shape[1] != network.input_shape[2],
    }.items():
        if present:
            yield name


def assert_same(expected: tuple[list[np.ndarray], np.ndarray, list[int]], got: Trace) -> None:
    spikes, readout, saturations = expected
    for index, values in enumerate(spikes):
        np.testing.assert_array_equal(got.layer_spikes(index), values)
    np.testing.assert_array_equal(got.readout, readout)
    assert got.saturations == tuple(saturations)


def test_every_way_to_run_a_random_network_gives_the_same() -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=EXAMPLES == 8,
        deadline=None,
        database=None,
        phases=SHRINKING,
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(), st.integers(1, 9), st.integers(0, 2), st.integers(1, 3), st.integers(1, 5))
    def agree(network: IntegerNetwork, steps: int, gap: int, batch: int, processes: int) -> None:
        images = images_for(network, 3)
        expected = simulate(network, images, steps)
        assert_same(expected, IntegerEngine(network).run(images, steps))
        assert_same(
            expected, concatenate(list(build.run(network, images, steps, batch=batch, gap=gap, processes=processes)))
        )
        if LAVA_DL and netx.version_of(network) == 1:
            with tempfile.TemporaryDirectory() as folder:
                netx.write(network, Path(folder) / "net.h5")
                runs = netx_network.run(Path(folder) / "net.h5", images[:2], steps, gap=gap)
                assert_same(simulate(network, images[:2], steps), concatenate(list(runs)))
        seen.update(features(network))
        seen["spiking"] += any(values.any() for values in expected[0])
        seen["saturating"] += any(expected[2])

    agree()
    print(", ".join(f"{name}: {count}" for name, count in seen.most_common()))
    assert seen["all"] >= EXAMPLES and seen["spiking"] > EXAMPLES / 3
