"""Test images and time steps for a netx file, as the commands take them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nqlava.command.parser import add_data
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork

if TYPE_CHECKING:
    from train.data.images import ImageSet

MAX_STEPS = 4096


def add_arguments(parser: argparse.ArgumentParser, samples: str = "test images") -> None:
    """Add --T, --samples, --data and --seed; ``samples`` is the help text of the second."""
    parser.add_argument("--T", type=int, dest="steps", help="time steps per image (default: the T in the file)")
    parser.add_argument("--samples", type=int, default=100, help=f"{samples} (default: %(default)s)")
    add_data(parser, "test images")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")


def check_steps(steps: int | None) -> None:
    """InputError for a number of time steps on the command line that is not allowed; None stands for none given."""
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise InputError(f"--T is {steps}; allowed: 1..{MAX_STEPS}")


def steps_for(net: Path, network: IntegerNetwork, steps: int | None) -> int:
    """Time steps per image: those given, or else those in the file, or else 4.

    Raises:
        InputError: the T in the file is not allowed.
    """
    found = steps or network.info.get("T", 4)
    if not isinstance(found, int) or not 1 <= found <= MAX_STEPS:
        raise InputError(f"{net}: info: T is {found!r}; allowed: 1..{MAX_STEPS}")
    return found


def load_for(net: Path, network: IntegerNetwork, sources: Sequence[str], otherwise: str = "") -> "ImageSet":
    """The test images of ``sources``.

    Raises:
        InputError: no usable images, or none of the network's size; ``otherwise`` names what else is allowed.
    """
    from train.data.images import load

    data = load(sources, "test")
    if data.shape != network.input_shape:
        allowed = f"{network.input_shape} as the network in {net}{otherwise}"
        raise InputError(f"data: images are {data.shape}; allowed: {allowed}")
    return data


def channels_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (n, H, W, C) as (n, C, H, W), a view, as engines take them."""
    return pixels.transpose(0, 3, 1, 2)
