"""Hypothesis strategies: random valid networks with images, drawn to reach the edges of every range."""

from collections.abc import Mapping
from itertools import product

import numpy as np
from hypothesis import strategies as st

from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer, NetworkError


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
    reset: str = "soft",
) -> Layer:
    """A layer whose neurons fire now and then."""
    scale = 1
    for c in connections:
        usual = 128 if c.source == IMAGE else 1
        scale = max(scale, int(np.sqrt(c.weight[0].size) * 64 * usual) << c.exponent)
    scale = min(scale, MEMBRANE_MAX)

    def draw(shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
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
    reset: str = "soft",
    **connection: object,
) -> Layer:
    """A layer with one connection; further arguments as in ``random_connection``."""
    made = random_connection(rng, source, input_shape, **connection)
    shape = made.output_shape(input_shape)
    return random_neurons(rng, name, (made,), shape, readout=readout, bias_map=bias_map, extreme=extreme, reset=reset)


def _shortcuts(
    draw: st.DrawFn, rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]], target: tuple[int, ...]
) -> tuple[Connection, ...]:
    """Connections from some source to neurons of shape ``target``: the identity in two digits, or a projection."""
    source = draw(st.sampled_from(sorted(shapes)))
    shape, exponent = shapes[source], draw(st.sampled_from((0, 0, 1, 7)))
    if len(target) == 1:
        return (random_connection(rng, source, shape, outputs=target[0], exponent=exponent),)
    if shape == target and draw(st.booleans()):
        identity = np.ones((target[0], 1, 1, 1), np.int8)
        digits = rng.integers(-127, 128, 2).tolist()
        return tuple(
            Connection(source, identity * np.int8(digit), exponent, groups=target[0])
            for digit, exponent in zip(digits, (7, 0), strict=True)
        )
    fitting = []
    for kernel, stride, padding in product((1, 2, 3), (1, 2, 3), (0, 1)):
        common = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (padding, padding)}
        try:
            if len(shape) != 3:
                continue
            made = random_connection(rng, source, shape, outputs=target[0], exponent=exponent, **common)
            if made.output_shape(shape) == target:
                fitting.append(made)
        except NetworkError:
            continue
    return (draw(st.sampled_from(fitting)),) if fitting else ()


@st.composite
def networks(
    draw: st.DrawFn, *, extreme: bool | None = None, graph: bool | None = None, longest: int = 3
) -> IntegerNetwork:
    """Networks over non-square images, with folded poolings, groups, dilation and bias maps.

    With ``graph`` (drawn where it is None) layers also get shortcuts, exponents and hard resets.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if extreme is None:
        extreme = draw(st.booleans())
    if graph is None:
        graph = draw(st.booleans())
    shapes: dict[str, tuple[int, ...]] = {
        IMAGE: (draw(st.integers(1, 3)), draw(st.integers(4, 9)), draw(st.integers(4, 9)))
    }
    layers: list[Layer] = []
    source = IMAGE
    for index in range(draw(st.integers(0, longest))):
        shape = shapes[source]
        arguments: dict[str, object] = {"outputs": draw(st.integers(1, 4))}
        window = draw(st.sampled_from((1, 1, 2)))
        if len(shape) == 3 and window <= min(shape[1:]) and draw(st.integers(0, 4)):
            groups = shape[0] if draw(st.booleans()) else 1
            kernel = tuple(draw(st.integers(1, max(1, min(3, size // window)))) for size in shape[1:])
            padding = tuple(draw(st.integers(0, 2)) for _ in range(2))
            dilatable = window == 1 and all(
                2 * k - 1 <= size + 2 * p for k, size, p in zip(kernel, shape[1:], padding, strict=True)
            )
            arguments = {
                "outputs": arguments["outputs"] * groups,
                "kernel": kernel,
                "window": window,
                "groups": groups,
                "stride": tuple(draw(st.integers(1, 2)) for _ in range(2)),
                "padding": padding,
                "dilation": (2, 2) if dilatable and draw(st.booleans()) else (1, 1),
            }
        if graph:
            arguments["exponent"] = draw(st.sampled_from((0, 0, 1, 4)))
        connections = (random_connection(rng, source, shape, **arguments),)
        target = connections[0].output_shape(shape)
        if graph and draw(st.booleans()):
            connections += _shortcuts(draw, rng, shapes, target)
        name = f"layer{index}"
        layers.append(
            random_neurons(
                rng,
                name,
                connections,
                target,
                bias_map=draw(st.booleans()),
                extreme=extreme,
                reset=draw(st.sampled_from(("soft", "hard"))) if graph else "soft",
            )
        )
        shapes[name] = target
        source = name
    shape = shapes[source]
    pooled = len(shape) == 3 and shape[1] % 2 == 0 and shape[2] % 2 == 0 and draw(st.booleans())
    outputs = draw(st.integers(1, 5))
    connections = (random_connection(rng, source, shape, outputs=outputs, window=2 if pooled else 1),)
    if graph and draw(st.booleans()):
        connections += _shortcuts(draw, rng, shapes, (outputs,))
    layers.append(random_neurons(rng, "readout", connections, (outputs,), readout=True, extreme=extreme))
    return IntegerNetwork(shapes[IMAGE], tuple(layers), {"draw": "random"})


def images_for(network: IntegerNetwork, count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, C, H, W): random, with the darkest and the brightest image among them."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *network.input_shape), np.uint8)
    images[1::3] = 255
    images[2::3] = 0
    return images
