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


def add_arguments(parser: argparse.ArgumentParser, samples: str = "test images") -> None:
    """Add --T, --samples, --data and --seed; ``samples`` is the help text of the second."""
    parser.add_argument("--T", type=int, dest="steps", help="time steps per image (default: the T in the file)")
    parser.add_argument("--samples", type=int, default=100, help=f"{samples} (default: %(default)s)")
    add_data(parser, "test images")
    parser.add_argument("--seed", type=int, default=0, help="seed for choosing images (default: %(default)s)")


def load_for(net: Path, network: IntegerNetwork, sources: Sequence[str], otherwise: str = "") -> "ImageSet":
    """The test images of ``sources``, in grey where the network takes one channel.

    Raises:
        InputError: no usable images, or none of the network's size; ``otherwise`` names what else is allowed.
    """
    from train.data.images import load

    data = load(sources, "test").with_channels(network.input_shape[0])
    if data.shape != network.input_shape:
        allowed = f"{network.input_shape} as the network in {net}{otherwise}"
        raise InputError(f"data: images are {data.shape}; allowed: {allowed}")
    return data
