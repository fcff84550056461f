"""NeuroBench's own harness counts what we count, to the last spike, once the definitions are the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import neurobench
from benchmarks.torch_modules import TorchNetwork
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.network import Connection, IntegerNetwork, Layer
from nqlava.testing.networks import images_for, random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from tests.fit.test_activity import one_channel_network


@settings(max_examples=15, deadline=None)
@given(networks(), st.integers(1, 4))
def test_modules_compute_what_the_engine_computes(network: IntegerNetwork, steps: int) -> None:
    images = images_for(network, 3)
    found = TorchNetwork(network, steps)(torch.from_numpy(images))
    np.testing.assert_array_equal(found, Engine(network).scores(images, steps)[:, -1])


@pytest.mark.parametrize("shortcut", [False, True])
def test_every_count_agrees_after_the_named_steps(shortcut: bool) -> None:
    """With padding, groups, stride, zero weights, a shortcut in two digits and batches of unequal size."""
    pytest.importorskip("neurobench")
    rng = np.random.default_rng(2)
    first = random_layer(rng, "first", (3, 8, 6), outputs=4, kernel=(3, 3), stride=(2, 1), padding=(1, 1))
    shape = (4, 4, 6)
    connections = [random_connection(rng, "first", shape, outputs=4, kernel=(3, 3), padding=(1, 1), groups=2)]
    sparse = connections[0].weight.copy()
    sparse[rng.random(sparse.shape) < 0.3] = 0
    connections[0] = Connection("first", sparse, padding=(1, 1), groups=2)
    if shortcut:
        one = np.ones((4, 1, 1, 1), np.int8)
        connections += [Connection("first", one * np.int8(digit), e, groups=4) for digit, e in ((1, 7), (0, 0))]
    second = random_neurons(rng, "second", tuple(connections), shape, reset="hard")
    readout = random_layer(rng, "readout", shape, source="second", outputs=5, window=2, readout=True)
    network = IntegerNetwork((3, 8, 6), (first, second, readout))
    images = np.random.default_rng(0).integers(0, 4, (7, 3, 8, 6), np.uint8)
    rows, _ = neurobench.compare(network, images, np.arange(7) % 5, steps=4, batch=3)
    assert [row.name for row in rows if not row.agrees] == []
    changes = {row.name: dict(row.steps) for row in rows}
    assert changes["effective ACs"]["spikes over weights of 0"] < 0
    assert changes["effective MACs"]["the image at every step"] > 0


def test_by_hand() -> None:
    """The network of tests/fit/test_activity.py: 34 operations by 8 spikes; pixels of 2, so that they are no spikes.

    Dense: 9 synapses from the image, 49 between the maps (4, 6 or 9 per neuron) and 18 onto the classes, at 2 steps.
    """
    pytest.importorskip("neurobench")
    network = one_channel_network()
    image = np.zeros((1, 1, 3, 3), np.uint8)
    image[0, 0, 1, 1] = image[0, 0, 0, 0] = 2
    rows, _ = neurobench.compare(network, image, np.array([1]), steps=2)
    found = {row.name: row.neurobench for row in rows}
    assert all(row.agrees for row in rows)
    assert found == {
        "correct images": 1,
        "spikes": 8,
        "effective ACs": 34,
        "effective MACs": 4,
        "dense operations": 2 * (9 + 49 + 18),
        "weights": 1 + 9 + 18,
        "weights of 0, in 10,000": 0,
        "footprint, bytes": 8 * 28 + 4 * (3 + 3 + 4),
    }


def test_a_difference_is_seen() -> None:
    assert neurobench.Row("spikes", 5, 4, (("more", 1),)).agrees
    different = neurobench.Row("spikes", 5, 4)
    assert not different.agrees
    assert "| spikes | 5 | 4 | as it is | NO |" in neurobench.report([different], 1)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("neurobench")
    rng = np.random.default_rng(0)
    hidden: Layer = random_layer(rng, "hidden", (3, 32, 32), outputs=2, kernel=(5, 5), stride=(9, 9))
    readout = random_layer(rng, "readout", (2, 4, 4), source="hidden", outputs=10, readout=True)
    netx.write(IntegerNetwork((3, 32, 32), (hidden, readout)), tmp_path / "net.h5")
    command = [str(tmp_path / "net.h5"), "--samples", "3", "--json", str(tmp_path / "found.json")]
    assert neurobench.main(command) == 0
    assert capsys.readouterr().out.count("| yes |") == 8
    assert (tmp_path / "found.json").is_file()
    for wrong, message in (
        (["--T", "0"], "T is 0"),
        (["--batch", "0"], "at least 1"),
        (["--samples", "0"], "least 1"),
    ):
        assert neurobench.main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
