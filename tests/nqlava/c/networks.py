"""Networks at the edges of what the C program distinguishes."""

import shutil

import numpy as np
import pytest

from nqlava.c.errors import CompilerError
from nqlava.c.program import compiler
from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import random_layer


def has_compiler() -> bool:
    """Whether there is one here."""
    try:
        return bool(compiler())
    except CompilerError:
        return False


EMULATION = ("arm-none-eabi-gcc", "qemu-system-arm", "make")
needs_emulation = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in EMULATION), reason=f"needs {', '.join(EMULATION)}"
)
needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C compiler (cc, gcc or clang) is installed")


def layer(
    name: str,
    connections: list[Connection],
    threshold: int | None,
    *,
    bias: int = 0,
    v0: int = 0,
    bias_map: np.ndarray | None = None,
) -> Layer:
    """A layer with the same values in all channels."""
    outputs = connections[0].outputs
    bias_of_each = np.full(outputs, bias, np.int32) if bias_map is None else bias_map.astype(np.int32)
    theta = None if threshold is None else np.full(outputs, threshold, np.int32)
    return Layer(name, tuple(connections), bias_of_each, theta, np.full(outputs, v0, np.int32))


def dense(source: str, outputs: int, inputs: int, seed: int = 0, exponent: int = 0) -> Connection:
    weight = np.random.default_rng(seed).integers(-127, 128, (outputs, inputs)).astype(np.int8)
    return Connection(source, weight, exponent)


def readout_alone() -> IntegerNetwork:
    """One layer, which takes the image."""
    return IntegerNetwork((3, 2, 5), (layer("out", [dense(IMAGE, 4, 30)], None),))


def largest_sums() -> IntegerNetwork:
    """Sums that need 64 bits, and potentials at both limits."""
    weight = np.full((2, 200), 127, np.int8)
    weight[1] = -127
    hidden = layer("hidden", [Connection(IMAGE, weight, 15), Connection(IMAGE, weight, 15)], MEMBRANE_MAX)
    return IntegerNetwork((2, 10, 10), (hidden, layer("out", [dense("hidden", 3, 2, exponent=15)], None)))


def many_events() -> IntegerNetwork:
    """More events at a position than 16-bit halves can hold, all weights at their largest."""
    weight = np.full((3, 900), 127, np.int8)
    hidden = layer("hidden", [Connection(IMAGE, np.ones((900, 4, 1, 1), np.int8))], 1)
    joined = layer("joined", [Connection("hidden", weight)], 1000)
    return IntegerNetwork((4, 1, 1), (hidden, joined, layer("out", [dense("joined", 2, 3)], None)))


def pooled_image() -> IntegerNetwork:
    """Windows of the image and of spikes, by groups and as one."""
    rng = np.random.default_rng(0)
    grouped = random_layer(rng, "grouped", (4, 8, 9), outputs=8, kernel=(2, 1), groups=2, window=3, padding=(1, 0))
    whole = random_layer(rng, "whole", (8, 3, 3), source="grouped", outputs=5, kernel=(1, 1), window=2)
    return IntegerNetwork(
        (4, 8, 9), (grouped, whole, random_layer(rng, "out", (5, 1, 1), source="whole", outputs=3, readout=True))
    )


def silent() -> IntegerNetwork:
    """A connection of zeros."""
    hidden = layer("hidden", [Connection(IMAGE, np.zeros((2, 1, 2, 2), np.int8))], 5, bias=2)
    return IntegerNetwork((1, 3, 3), (hidden, layer("out", [dense("hidden", 2, 8)], None)))


def many_biases() -> IntegerNetwork:
    """More bias vectors than 8 bits can number, and an image with one channel."""
    bias = np.arange(2 * 17 * 16).reshape(2, 17, 16)
    hidden = layer("hidden", [Connection(IMAGE, np.ones((2, 1, 1, 1), np.int8))], 300, bias_map=bias)
    return IntegerNetwork((1, 17, 16), (hidden, layer("out", [dense("hidden", 2, 544)], None)))


def identities() -> IntegerNetwork:
    """A shortcut in digits that become one table, from spikes and from the image."""
    rng = np.random.default_rng(3)
    one = np.ones((3, 1, 1, 1), np.int8)
    first = random_layer(rng, "first", (3, 5, 4), outputs=3, kernel=(3, 3), padding=(1, 1))
    digits = [Connection(s, one * np.int8(d), e, groups=3) for s in ("first", IMAGE) for d, e in ((7, 7), (-60, 0))]
    block = layer("block", [*digits, *first.connections], 30000)
    return IntegerNetwork((3, 5, 4), (first, block, layer("out", [dense("block", 2, 60)], None)))


EDGES = (readout_alone, largest_sums, many_events, pooled_image, silent, many_biases, identities)


def decided_early() -> IntegerNetwork:
    """The first class leads by its bias more than any spikes can give to the others."""
    rng = np.random.default_rng(1)
    hidden = random_layer(rng, "hidden", (1, 4, 4), outputs=6, kernel=(2, 2))
    weight = rng.integers(-2, 3, (3, 54)).astype(np.int8)
    bias = np.array([40, 0, 10], np.int32)
    out = Layer("out", (Connection("hidden", weight),), bias, None, np.zeros(3, np.int32))
    return IntegerNetwork((1, 4, 4), (hidden, out), {"T": 8})
