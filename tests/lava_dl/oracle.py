"""docs/lava_dl.md in the plainest possible Python: integers of any size, one neuron at a time. Only for comparison."""

import numpy as np

from deploy.lava_dl.reader import LifLayer, LifNetwork
from nqlava.reference import convolve


def wrap(value: int, bits: int) -> int:
    """The value of the lowest ``bits`` bits as a signed number."""
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def truncated(value: int, divisor: int) -> int:
    """value / divisor, rounded towards zero."""
    return abs(value) // divisor * (1 if value >= 0 else -1)


def dense_weight(weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Steps 1 to 3 of the dense synapses, and e; for weights whose lowest bit is used, of any sign."""
    low, high = weight.min(), weight.max()
    if low < 0 <= high:
        weight = np.clip(weight, -256, 254)
        candidates = [e for e in range(-1, 9) if weight.max() * 2**e <= 127 and weight.min() * 2**e >= -128]
        exponent = max(candidates) + 1
    else:
        largest = 255 if high >= 0 else 256
        exponent = max(e for e in range(9) if np.abs(weight).max() * 2**e <= largest)
    return weight * 2**exponent, exponent


def simulate(
    network: LifNetwork, inputs: np.ndarray, clock: str, dense: dict[str, tuple[np.ndarray, int]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Spikes and potentials per layer, (samples, T, *shape).

    Args:
        inputs: (samples, T, *input_shape).
        dense: per dense layer, its weights in Lava's synapses and e.
    """
    spikes, potentials = [], []
    values = inputs.astype(np.int64)
    for layer in network.layers:
        fired, v = (np.zeros((*values.shape[:2], *layer.shape), np.int64) for _ in range(2))
        for sample in range(len(values)):
            fired[sample], v[sample] = _simulate(layer, values[sample], int(clock == "global"), dense)
        spikes.append(fired)
        potentials.append(v)
        values = fired
    return spikes, potentials


def _simulate(
    layer: LifLayer, x: np.ndarray, late: int, dense: dict[str, tuple[np.ndarray, int]]
) -> tuple[np.ndarray, np.ndarray]:
    fired, potentials = (np.zeros((len(x), *layer.shape), np.int64) for _ in range(2))
    u, v = np.zeros(layer.shape, object), np.zeros(layer.shape, object)
    for t in range(len(x)):
        current = _current(layer, x, t, late, dense)
        for neuron in np.ndindex(*layer.shape):
            du, dv = (int(d[neuron[0] if d.size > 1 else 0]) for d in (layer.current_decay, layer.voltage_decay))
            bias = layer.bias[neuron] if layer.bias.ndim == 3 else layer.bias[neuron[0] if layer.bias.size > 1 else 0]
            total = wrap(truncated(int(u[neuron]) * (4096 - du), 4096) + 64 * int(current[neuron]), 32)
            if total > 2**23:
                total -= 2**24
            elif total <= -(2**23):
                total += 2**24
            u[neuron] = total
            h = wrap(truncated(int(v[neuron]) * (4096 - dv), 4096) + total + 64 * int(bias), 32)
            h = max(-(2**23) + 1, min(2**23 - 1, h))
            fired[(t, *neuron)] = h > 64 * layer.threshold
            v[neuron] = 0 if fired[(t, *neuron)] else h
        potentials[t] = v
    return fired, potentials


def _current(layer: LifLayer, x: np.ndarray, t: int, late: int, dense: dict[str, tuple[np.ndarray, int]]) -> np.ndarray:
    if layer.weight is None:
        return x[t]
    nothing = np.zeros(x.shape[1:], np.int64)
    if layer.weight.ndim == 4:
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        sums = convolve(layer.weight.astype(np.int64), x[t - late] if t >= late else nothing, *geometry)
        return np.array([wrap(int(s), 24) for s in sums.reshape(-1)]).reshape(layer.shape)
    weight, exponent = dense[layer.name]
    if layer.delay is None:
        sums = weight @ (x[t - late] if t >= late else nothing).reshape(-1)
        return np.array([wrap(int(s), 32) // 2**exponent for s in sums])
    delays = np.broadcast_to(layer.delay, weight.shape)
    total = np.zeros(layer.shape, np.int64)
    for delay in range(63):
        if t - late - delay >= 0:
            total += (np.where(delays == delay, weight, 0) @ x[t - late - delay].reshape(-1)) // 2**exponent
    return total
