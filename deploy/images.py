"""Test images for a netx file, as the commands take them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nqlava.command.parser import add_data
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork

if TYPE_CHECKING:
    from train.data.image_set import ImageSet
    from train.data.sized import SizedSet


def add_arguments(parser: argparse.ArgumentParser, samples: str = "test images") -> None:
    """Add --T, --samples, --data and --seed; ``samples`` is the help text of the second."""
    parser.add_argument("--T", type=int, dest="steps", help="time steps per image (default: the T in the file)")
    parser.add_argument("--samples", type=int, default=100, help=f"{samples} (default: %(default)s)")
    add_data(parser, "test images")
    parser.add_argument("--seed", type=int, default=0, help="seed for choosing images (default: %(default)s)")


def load_for(net: Path, network: IntegerNetwork, sources: Sequence[str], otherwise: str = "") -> "ImageSet | SizedSet":
    """The test images of ``sources`` at the network's size, in grey where it takes one channel.

    Raises:
        InputError: no usable images, or the sample or CIFAR for a network of another size; ``otherwise`` names what
            else is allowed.
    """
    from train.data.sized import load_sized

    channels, *size = network.input_shape
    data = load_sized(sources, "test", (size[0], size[1])).with_channels(channels)
    if data.shape != network.input_shape:
        allowed = f"{network.input_shape} as the network in {net}{otherwise}"
        raise InputError(f"data: images are {data.shape}; allowed: {allowed}")
    return data
