"""Hypothesis strategies: random valid networks, drawn to reach the edges of every range."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer, NetworkError
from nqlava.testing.networks import random_connection, random_neurons


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
        common: dict[str, Any] = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (padding, padding)}
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
    images = draw(st.integers(1, 3)), draw(st.integers(4, 9)), draw(st.integers(4, 9))
    shapes: dict[str, tuple[int, ...]] = {IMAGE: images}
    layers: list[Layer] = []
    source = IMAGE
    for index in range(draw(st.integers(0, longest))):
        shape = shapes[source]
        arguments: dict[str, Any] = {"outputs": draw(st.integers(1, 4))}
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
        connections: tuple[Connection, ...] = (random_connection(rng, source, shape, **arguments),)
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
    return IntegerNetwork(images, tuple(layers), {"draw": "random"})
