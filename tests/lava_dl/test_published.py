"""The ground truth that lava-dl publishes with its tests, which its package brings along; none of it is copied here."""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from deploy.lava_dl import reader as lava_dl
from deploy.lava_dl.engine import Activity, LifEngine
from tests.with_lava_dl import LAVA_DL, needs_lava_dl

pytestmark = needs_lava_dl
FOLDER = Path(str(distribution("lava-dl").locate_file("tests/lava/lib/dl/netx"))) if LAVA_DL else Path()


def run(net: Path, drive: Path, steps: int) -> Activity:
    """Input neurons that get the same, in lava-dl's order (W, H, C), at every step."""
    constant = np.load(drive).astype(np.int64).T
    return LifEngine(lava_dl.read(net)).run(np.broadcast_to(constant, (1, steps, *constant.shape)))


def test_tinynet() -> None:
    """SLAYER's spikes of all three layers, (C, H, W, T), one step late."""
    truth = FOLDER / "gts" / "tinynet"
    activity = run(FOLDER / "tiny.net", truth / "input_bias.npy", 15)
    for spikes, name in zip(activity.spikes, ("input", "layer1", "output"), strict=True):
        expected = np.load(truth / f"{name}.npy")[0, ..., 1:]
        assert expected.any()
        np.testing.assert_array_equal(np.moveaxis(spikes[0], 0, -1), expected)


def test_pilotnet() -> None:
    """Spikes and potentials of nine layers, (W, H, C, T), layer l being l steps late, until the network is reset."""
    truth = FOLDER / "gts" / "pilotnet_lif"
    steps = 16
    activity = run(truth / "network.net", truth / "image.npy", steps)
    names = ("input", *(f"conv-{n}" for n in range(5)), *(f"fc-{n}" for n in range(3)))
    compared = 0
    for place, name in enumerate(names):
        expected = np.load(truth / f"{name}.npy")[..., place : place + steps].T
        fired = activity.spikes[place][0][: len(expected)] > 0
        np.testing.assert_array_equal(fired, expected)
        if (truth / f"{name}-v.npy").is_file():
            potentials = np.load(truth / f"{name}-v.npy")[..., place : place + steps].T
            assert (potentials[fired] == 128).all()  # what is published for a neuron that has just fired
            got = activity.potentials[place][0][: len(expected)]
            np.testing.assert_array_equal(got, np.where(fired, 0, potentials))
            compared += 1
    assert compared >= 7
