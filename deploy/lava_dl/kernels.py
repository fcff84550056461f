"""The compiled loop of leaky integrate-and-fire neurons; docs/lava_dl.md has the equations."""

import numba
import numpy as np
from numpy.typing import NDArray

_POTENTIAL_MAX = 2**23 - 1
_HALF = 2**23
_SHIFT = 6
_DECAY_BITS = 12
_compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")


@_compiled
def _wrapped32(value):
    return np.int64(np.int32(value))


@_compiled
def _decayed(state, factor):
    """state · factor / 2¹², rounded towards zero."""
    product = np.int64(state) * factor
    return (product + ((product >> 63) & (2**_DECAY_BITS - 1))) >> _DECAY_BITS


@_compiled
def _run(current, current_factor, voltage_factor, bias, threshold, spikes, potentials):
    samples, steps, neurons = current.shape
    u, v = np.empty(neurons, np.int32), np.empty(neurons, np.int32)
    for n in range(samples):
        u[:] = 0
        v[:] = 0
        for t in range(steps):
            for i in range(neurons):  # Lava adds in 32 bits
                total = _wrapped32(_decayed(u[i], current_factor[i]) + (np.int64(current[n, t, i]) << _SHIFT))
                wrapped = total - 2 * _HALF if total > _HALF else total
                u[i] = total + 2 * _HALF if wrapped <= -_HALF else wrapped
                total = _wrapped32(_decayed(v[i], voltage_factor[i]) + np.int64(u[i]) + bias[i])
                total = min(max(total, -_POTENTIAL_MAX), _POTENTIAL_MAX)
                fires = total > threshold
                spikes[n, t, i] = fires
                v[i] = 0 if fires else total
                potentials[n, t, i] = v[i]


def leaky_integrate_and_fire(
    current: NDArray[np.int32],
    current_decay: NDArray[np.int64],
    voltage_decay: NDArray[np.int64],
    bias: NDArray[np.int64],
    threshold: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Spikes and membrane potentials, after the reset, of neurons that start at rest.

    Args:
        current: (n, T, N), what the synapses deliver.
        current_decay, voltage_decay: (N,), of 4096ths per step.
        bias: (N,), and ``threshold``: both in the unit of ``current``.

    Returns:
        uint8 and int32 (n, T, N).
    """
    spikes, potentials = np.empty(current.shape, np.uint8), np.empty(current.shape, np.int32)
    unity = 2**_DECAY_BITS
    _run(
        current,
        unity - current_decay,
        unity - voltage_decay,
        bias << _SHIFT,
        threshold << _SHIFT,
        spikes,
        potentials,
    )
    return spikes, potentials
