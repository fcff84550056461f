"""How large a membrane potential can become."""

import numpy as np
from numpy.typing import NDArray

from nqlava.network import IMAGE, INPUT_MAX, MEMBRANE_MAX, IntegerNetwork, Layer, Reset

_EXACT_FLOAT32 = 2**24


def worst_case(network: IntegerNetwork, steps: int) -> tuple[int, ...]:
    """Per layer a bound on max |u| within ``steps`` steps, for any image: no saturation where it is ≤ 2²³ − 1."""
    return tuple(_worst_case(layer, steps) for layer in network.layers)


def float32_exact(layer: Layer) -> bool:
    """Whether float32 holds every sum that v + I + b can consist of: Σ|w · in| + |b| + 2²³ stays within 2²⁴."""
    bias = np.abs(layer.bias.astype(np.int64)).reshape(layer.outputs, -1).max(1)
    for connection in layer.connections:
        weight = np.abs(connection.weight.astype(np.int64)).reshape(layer.outputs, -1).sum(1) << connection.exponent
        bias += weight * (INPUT_MAX if connection.source == IMAGE else 1)
    return bool((bias + MEMBRANE_MAX <= _EXACT_FLOAT32).all())


def _worst_case(layer: Layer, steps: int) -> int:
    """Interval arithmetic per channel on u = v + I + b and the reset, ignoring the clip."""
    bias = layer.bias.astype(np.int64).reshape(layer.outputs, -1)
    most, least = bias.max(1), bias.min(1)
    for connection in layer.connections:
        weight = connection.weight.astype(np.int64).reshape(layer.outputs, -1) << connection.exponent
        largest = INPUT_MAX if connection.source == IMAGE else 1
        most += np.maximum(weight, 0).sum(1) * largest
        least += np.minimum(weight, 0).sum(1) * largest
    low = high = layer.v0.astype(np.int64)
    bound = 0
    for _ in range(steps):
        low, high = low + least, high + most
        bound = max(bound, int(np.abs(low).max()), int(np.abs(high).max()))
        if layer.threshold is not None:
            low, high = _after_reset(low, high, layer.threshold.astype(np.int64), layer.reset)
    return bound


def _after_reset(
    low: NDArray[np.int64], high: NDArray[np.int64], threshold: NDArray[np.int64], reset: Reset
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The interval of v, given that of u: below θ it stays; from θ on it becomes u − θ or 0."""
    always, never = low >= threshold, high < threshold
    if reset == "hard":
        fired_low = fired_high = np.zeros_like(low)
    else:
        fired_low, fired_high = np.where(always, low - threshold, 0), high - threshold
    new_low = np.where(always, fired_low, np.where(never, low, np.minimum(low, fired_low)))
    new_high = np.where(always, fired_high, np.where(never, high, np.maximum(threshold - 1, fired_high)))
    return new_low, new_high
