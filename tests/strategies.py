"""Hypothesis strategies: random valid networks with images, drawn to reach the edges of every range."""

import numpy as np
from hypothesis import strategies as st

from export.network import MEMBRANE_MAX, IntegerNetwork, Layer


def random_layer(
    rng: np.random.Generator,
    name: str,
    input_shape: tuple[int, ...],
    *,
    outputs: int,
    kernel: tuple[int, int] | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    window: int = 1,
    readout: bool = False,
    bias_map: bool = False,
    extreme: bool = False,
    gain: int = 1,
) -> Layer:
    """A layer whose neurons fire now and then; ``gain`` is the usual size of an input, ``window`` a folded pooling."""
    if kernel is None:
        shape = input_shape if len(input_shape) == 3 else (input_shape[0], 1, 1)
        small = rng.integers(-127, 128, (outputs, shape[0], shape[1] // window, shape[2] // window))
        weight = small.repeat(window, 2).repeat(window, 3).reshape(outputs, -1).astype(np.int8)
        geometry = {}
    else:
        small = rng.integers(-127, 128, (outputs, input_shape[0] // groups, *kernel))
        weight = small.repeat(window, 2).repeat(window, 3).astype(np.int8)
        geometry = {
            "stride": tuple(window * s for s in stride),
            "padding": tuple(window * p for p in padding),
            "dilation": dilation,
            "groups": groups,
        }
    scale = max(1, int(np.sqrt(weight[0].size) * 64 * gain))

    def draw(shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
        values = rng.integers(low, high + 1, shape)
        if extreme:
            values = np.where(rng.random(shape) < 0.4, np.where(rng.random(shape) < 0.5, MEMBRANE_MAX, low), values)
            if low <= 0:
                values = np.where(rng.random(shape) < 0.2, -MEMBRANE_MAX, values)
        return values.astype(np.int32)

    threshold = None if readout else draw((outputs,), 1, scale)
    v0 = draw((outputs,), -scale, scale)
    layer = Layer(name, weight, draw((outputs,), -scale // 2, scale // 2), threshold, v0, **geometry)
    if bias_map and kernel is not None:
        bias = draw(layer.output_shape(input_shape), -scale // 2, scale // 2)
        layer = Layer(name, weight, bias, threshold, v0, **geometry)
    return layer


@st.composite
def networks(draw: st.DrawFn, *, extreme: bool | None = None) -> IntegerNetwork:
    """Networks of up to four layers over non-square images, with folded poolings, groups and bias maps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if extreme is None:
        extreme = draw(st.booleans())
    channels = draw(st.integers(1, 3))
    input_shape = (channels, draw(st.integers(4, 9)), draw(st.integers(4, 9)))
    shape: tuple[int, ...] = input_shape
    layers: list[Layer] = []
    for index in range(draw(st.integers(0, 3))):
        common = {
            "name": f"layer{index}",
            "input_shape": shape,
            "outputs": draw(st.integers(1, 4)),
            "extreme": extreme,
            "gain": 128 if index == 0 else 1,
        }
        if len(shape) == 3 and draw(st.integers(0, 4)):
            window = draw(st.sampled_from((1, 1, 2)))
            kernel = tuple(draw(st.integers(1, max(1, min(3, size // window)))) for size in shape[1:])
            groups = shape[0] if draw(st.booleans()) else 1
            common["outputs"] *= groups
            layer = (
                random_layer(
                    rng,
                    **common,
                    kernel=kernel,
                    window=window,
                    groups=groups,
                    stride=tuple(draw(st.integers(1, 2)) for _ in range(2)),
                    padding=tuple(draw(st.integers(0, 2)) for _ in range(2)),
                    bias_map=draw(st.booleans()),
                )
                if window <= min(shape[1:])
                else random_layer(rng, **common)
            )
        else:
            layer = random_layer(rng, **common)
        layers.append(layer)
        shape = layer.output_shape(shape)
    pooled = len(shape) == 3 and shape[1] % 2 == 0 and shape[2] % 2 == 0 and draw(st.booleans())
    layers.append(
        random_layer(
            rng,
            "readout",
            shape,
            outputs=draw(st.integers(1, 5)),
            window=2 if pooled else 1,
            readout=True,
            extreme=extreme,
        )
    )
    return IntegerNetwork(input_shape, tuple(layers), {"draw": "random"})


def images_for(network: IntegerNetwork, count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, C, H, W): random, with the darkest and the brightest image among them."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *network.input_shape), np.uint8)
    images[1::3] = 255
    images[2::3] = 0
    return images
