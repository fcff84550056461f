"""How large a membrane potential can become."""

import numpy as np

from export.network import INPUT_MAX, IntegerNetwork, Layer


def worst_case(network: IntegerNetwork, steps: int) -> tuple[int, ...]:
    """Per layer a bound on max |u| within ``steps`` steps, for any image: no saturation where it is ≤ 2²³ − 1."""
    return tuple(
        _worst_case(layer, INPUT_MAX if index == 0 else 1, steps) for index, layer in enumerate(network.layers)
    )


def _worst_case(layer: Layer, input_max: int, steps: int) -> int:
    """Interval arithmetic per channel on u = v + I + b and v = u − θ·[u ≥ θ], ignoring the clip."""
    weight = layer.weight.astype(np.int64).reshape(len(layer.weight), -1)
    bias = layer.bias.astype(np.int64).reshape(len(layer.weight), -1)
    most = np.maximum(weight, 0).sum(1) * input_max + bias.max(1)
    least = np.minimum(weight, 0).sum(1) * input_max + bias.min(1)
    low = high = layer.v0.astype(np.int64)
    bound = 0
    for _ in range(steps):
        low, high = low + least, high + most
        bound = max(bound, int(np.abs(low).max()), int(np.abs(high).max()))
        if layer.threshold is not None:
            threshold = layer.threshold.astype(np.int64)
            low = np.where(low >= threshold, low - threshold, np.where(high >= threshold, np.minimum(low, 0), low))
            high = np.maximum(np.minimum(high, threshold - 1), high - threshold)
    return bound
