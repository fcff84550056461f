"""Test images and time steps that the commands share."""

import re
from pathlib import Path

import numpy as np
import pytest

from deploy.images import MAX_STEPS, channels_first, check_steps, load_for, steps_for
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import random_layer
from tests.tiny import image_set, write_folder

NET = Path("net.h5")


def network(input_shape: tuple[int, int, int] = (3, 8, 6), **info: int | float | str) -> IntegerNetwork:
    rng = np.random.default_rng(0)
    return IntegerNetwork(input_shape, (random_layer(rng, "readout", input_shape, outputs=5, readout=True),), info)


def test_steps_come_from_the_option_then_the_file_then_4() -> None:
    assert steps_for(NET, network(T=2), 3) == 3
    assert steps_for(NET, network(T=2), None) == 2
    assert steps_for(NET, network(), None) == 4


@pytest.mark.parametrize("steps", [0, -1, MAX_STEPS + 1, 2.0, "4"])
def test_steps_of_the_file_are_checked(steps: int | float | str) -> None:
    with pytest.raises(ValueError, match=rf"^net\.h5: info: T is {re.escape(repr(steps))}; allowed: 1\.\.4096$"):
        steps_for(NET, network(T=steps), None)


@pytest.mark.parametrize("steps", [0, -1, MAX_STEPS + 1])
def test_steps_of_the_option_are_checked(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"^--T is {steps}; allowed: 1\.\.4096$"):
        check_steps(steps)
    check_steps(None)
    check_steps(MAX_STEPS)


def test_images_have_the_size_of_the_network(tmp_path: Path) -> None:
    written = image_set(10)
    folder = str(write_folder(tmp_path / "images", test=written))
    data = load_for(NET, network(), [folder])
    images = channels_first(data.images.numpy())
    assert images.shape == (10, 3, 8, 6) and images.dtype == np.uint8
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), data.images.numpy())
    message = "data: images are (3, 8, 6); allowed: (3, 6, 8) as the network in net.h5, or none"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_for(NET, network((3, 6, 8)), [folder], ", or none")


def test_both_commands_take_them_from_here() -> None:
    """Neither has limits of its own."""
    import deploy.compare.options
    import deploy.fit.__main__

    for command in (deploy.fit.__main__, deploy.compare.options):
        assert command.steps_for is steps_for and command.load_for is load_for
        assert not hasattr(command, "MAX_STEPS")
