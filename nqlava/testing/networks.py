"""Random connections, layers and images for tests: neurons fire now and then, and every range is reached."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer


def random_connection(
    rng: np.random.Generator,
    source: str,
    input_shape: tuple[int, ...],
    *,
    outputs: int,
    kernel: tuple[int, int] | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    window: int = 1,
    exponent: int = 0,
) -> Connection:
    """A convolution, or without ``kernel`` a dense connection; ``window`` is the size of a folded pooling."""
    if kernel is None:
        shape = input_shape if len(input_shape) == 3 else (input_shape[0], 1, 1)
        small = rng.integers(-127, 128, (outputs, shape[0], shape[1] // window, shape[2] // window))
        weight = small.repeat(window, 2).repeat(window, 3).reshape(outputs, -1).astype(np.int8)
        return Connection(source, weight, exponent)
    small = rng.integers(-127, 128, (outputs, input_shape[0] // groups, *kernel))
    return Connection(
        source,
        small.repeat(window, 2).repeat(window, 3).astype(np.int8),
        exponent,
        stride=(window * stride[0], window * stride[1]),
        padding=(window * padding[0], window * padding[1]),
        dilation=dilation,
        groups=groups,
    )


def random_neurons(
    rng: np.random.Generator,
    name: str,
    connections: tuple[Connection, ...],
    output_shape: tuple[int, ...],
    *,
    readout: bool = False,
    bias_map: bool = False,
    extreme: bool = False,
    reset: Literal["soft", "hard"] = "soft",
) -> Layer:
    """A layer whose neurons fire now and then."""
    scale = 1
    for c in connections:
        usual = 128 if c.source == IMAGE else 1
        scale = max(scale, int(np.sqrt(c.weight[0].size) * 64 * usual) << c.exponent)
    scale = min(scale, MEMBRANE_MAX)

    def draw(shape: tuple[int, ...], low: int, high: int) -> NDArray[Any]:
        values = rng.integers(low, high + 1, shape)
        if extreme:
            values = np.where(rng.random(shape) < 0.4, np.where(rng.random(shape) < 0.5, MEMBRANE_MAX, low), values)
            if low <= 0:
                values = np.where(rng.random(shape) < 0.2, -MEMBRANE_MAX, values)
        return values.astype(np.int32)

    outputs = output_shape[0]
    return Layer(
        name,
        connections,
        threshold=None if readout else draw((outputs,), 1, scale),
        v0=draw((outputs,), -scale, scale),
        bias=draw(output_shape if bias_map and len(output_shape) == 3 else (outputs,), -scale // 2, scale // 2),
        reset=reset,
    )


def random_layer(
    rng: np.random.Generator,
    name: str,
    input_shape: tuple[int, ...],
    *,
    source: str = IMAGE,
    readout: bool = False,
    bias_map: bool = False,
    extreme: bool = False,
    reset: Literal["soft", "hard"] = "soft",
    **connection: Any,
) -> Layer:
    """A layer with one connection; further arguments as in ``random_connection``."""
    made = random_connection(rng, source, input_shape, **connection)
    shape = made.output_shape(input_shape)
    return random_neurons(rng, name, (made,), shape, readout=readout, bias_map=bias_map, extreme=extreme, reset=reset)


def images_for(network: IntegerNetwork, count: int, seed: int = 0) -> NDArray[Any]:
    """uint8 (count, C, H, W): random, with the darkest and the brightest image among them."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *network.input_shape), np.uint8)
    images[1::3] = 255
    images[2::3] = 0
    return images


def small_networks() -> list[IntegerNetwork]:
    """A sequence, a graph with a shortcut, and a network large enough for compressed weights."""
    rng = np.random.default_rng(0)
    conv = random_layer(rng, "conv", (2, 6, 5), outputs=3, kernel=(3, 2), stride=(2, 1), padding=(1, 0), bias_map=True)
    dense = random_layer(rng, "dense", (3, 3, 4), source="conv", outputs=6)
    readout = random_layer(rng, "out", (6,), source="dense", outputs=3, readout=True)
    info: dict[str, str | int | float] = {"T": 3, "model": "vgg_tiny", "accuracy": 0.5, "classes": '["a", "b", "c"]'}
    first = random_layer(rng, "first", (1, 4, 4), outputs=4, kernel=(3, 3), padding=(1, 1))
    identity = Connection("first", np.ones((4, 1, 1, 1), np.int8), exponent=3, groups=4)
    second = random_layer(rng, "second", (4, 4, 4), source="first", outputs=4, kernel=(1, 1), reset="hard")
    joined = random_neurons(rng, "second", (*second.connections, identity), (4, 4, 4), reset="hard")
    last = random_layer(rng, "out", (4, 4, 4), source="second", outputs=2, readout=True)
    wide = random_layer(rng, "out", (1, 16, 16), outputs=9, readout=True)
    return [
        IntegerNetwork((2, 6, 5), (conv, dense, readout), info),
        IntegerNetwork((1, 4, 4), (first, joined, last), info | {"note": "text of some length " * 20}),
        IntegerNetwork((1, 16, 16), (wide,), {}),
    ]
