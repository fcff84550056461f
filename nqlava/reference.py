"""docs/semantics.md as a program: NumPy, integers, one image, one step and one layer at a time.

It is the judge of everything that is fast. So it is written from the contract alone, and shares no arithmetic, layout,
packing or pooling with any engine, kernel or Lava model. It reads the numbers of a network (``layers``, their
``connections``, ``bias``, ``threshold``, ``v0``, ``reset``) and computes everything else itself. Read it beside
docs/semantics.md: the functions stand in the order of that page.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nqlava.network import Connection, IntegerNetwork

LARGEST = 2**23 - 1
"""Largest magnitude of a membrane potential: 24 bits, signed, symmetric."""
EXACT_FLOAT64 = 2**53
"""float64 represents every integer below."""
KEPT = 2**25
"""Weights of a connection up to which their exact form is kept; that of more is made anew in every step."""
IMAGE = "input"
"""Source of the connections that receive the image."""

Values = NDArray[np.int64]
Weights = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """What the network computes for one image in T steps.

    Attributes:
        spikes: per spiking layer s(1) … s(T), (T, C, H, W) or (T, N), 0 and 1.
        potentials: per spiking layer v(T), (C, H, W) or (N,).
        readout: v(1) … v(T) of the read-out, (T, K).
        saturations: per layer, the read-out included, how many clips changed a value.
        classes: after each step, argmax v(k) of the read-out, the lowest of equal ones: (T,).
    """

    spikes: tuple[Values, ...]
    potentials: tuple[Values, ...]
    readout: Values
    saturations: tuple[int, ...]

    @property
    def classes(self) -> Values:
        return np.array([min(np.flatnonzero(v == v.max())) for v in self.readout])


def run(network: "IntegerNetwork", image: NDArray[np.uint8], steps: int) -> Run:
    """T = ``steps`` steps of one image, (C, H, W)."""
    kept: dict[str, list[Weights | None]] = {
        layer.name: [exact_weights(c) if c.weight.size <= KEPT else None for c in layer.connections]
        for layer in network.layers
    }
    v: dict[str, Values] = {}
    emitted: dict[str, list[Values]] = {layer.name: [] for layer in network.layers}
    saturations = dict.fromkeys(emitted, 0)
    for _ in range(steps):
        arriving = {IMAGE: image.astype(np.int64)}
        for layer in network.layers:
            synapses = zip(layer.connections, kept[layer.name], strict=True)
            current = np.sum([synaptic_sum(c, arriving[c.source], weight) for c, weight in synapses], axis=0)
            before = v.get(layer.name, spread(layer.v0, current))
            u, clipped = integrate(before, current, spread(layer.bias, current))
            saturations[layer.name] += clipped
            if layer.threshold is None:
                v[layer.name] = u
                emitted[layer.name].append(u)
            else:
                s, v[layer.name] = fire(u, spread(layer.threshold, u), layer.reset)
                arriving[layer.name] = s
                emitted[layer.name].append(s)
    *spiking, last = network.layers
    return Run(
        tuple(np.stack(emitted[layer.name]) for layer in spiking),
        tuple(v[layer.name] for layer in spiking),
        np.stack(emitted[last.name]),
        tuple(saturations.values()),
    )


def exact_weights(connection: "Connection") -> Weights:
    """w as float64, with which a product is exact and fast where no sum can reach 2^53; else as int64.

    Inputs are at most 255 and weights at most 127, so that no partial sum exceeds A = 255 · 127 · (inputs of a neuron).
    """
    largest = 255 * 127 * connection.weight[0].size
    return connection.weight.astype(np.float64 if largest < EXACT_FLOAT64 else np.int64)


def synaptic_sum(connection: "Connection", x: Values, weight: Weights | None = None) -> Values:
    """2^e · Σ w · x of one connection; x is (C, H, W) or (N,), weight is ``exact_weights`` of the connection."""
    weight = exact_weights(connection) if weight is None else weight
    if weight.ndim == 2:  # dense: the input flattened in (C, H, W) order
        sums = (weight @ x.reshape(-1).astype(weight.dtype)).astype(np.int64)
    else:
        sums = convolve(weight, x, connection.stride, connection.padding, connection.dilation, connection.groups)
    scaled: Values = 2**connection.exponent * sums
    return scaled


def convolve(
    weight: Weights,
    x: Values,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Values:
    """Cross-correlation of x (C, H, W) with weight (O, C / groups, kh, kw), zeros around x: (O, H', W').

    out[o, y, x] = Σ over i, j, k of weight[o, i, j, k] · padded[first channel of o's group + i,
                                                                 y · stride + j · dilation, x · stride + k · dilation]
    """
    (py, px), (sy, sx), (dy, dx) = padding, stride, dilation
    outputs, inputs, kh, kw = weight.shape
    padded = np.pad(x.astype(weight.dtype), ((0, 0), (py, py), (px, px)))
    height = (padded.shape[1] - dy * (kh - 1) - 1) // sy + 1
    width = (padded.shape[2] - dx * (kw - 1) - 1) // sx + 1
    taps = np.empty((len(x), kh, kw, height, width), weight.dtype)
    for j in range(kh):
        for k in range(kw):
            rows = slice(j * dy, j * dy + sy * (height - 1) + 1, sy)
            columns = slice(k * dx, k * dx + sx * (width - 1) + 1, sx)
            taps[:, j, k] = padded[:, rows, columns]
    kernels = weight.reshape(groups, outputs // groups, inputs * kh * kw)
    inputs_of_group = taps.reshape(groups, inputs * kh * kw, height * width)
    sums: Values = np.matmul(kernels, inputs_of_group).reshape(outputs, height, width).astype(np.int64)
    return sums


def spread(value: NDArray[np.int32], neurons: Values) -> Values:
    """A value per channel (C,), or per neuron, as one per neuron."""
    return np.zeros_like(neurons) + value.astype(np.int64).reshape(value.shape + (1,) * (neurons.ndim - value.ndim))


def integrate(v: Values, current: Values, bias: Values) -> tuple[Values, int]:
    """u = clip(v + I + b, ±(2^23 − 1)), and how many neurons the clip changed."""
    total = v + current + bias
    u = np.clip(total, -LARGEST, LARGEST)
    return u, int((u != total).sum())


def fire(u: Values, threshold: Values, reset: str) -> tuple[Values, Values]:
    """s = 1 where u ≥ θ; then v = u − θ · s (soft reset) or v = u · (1 − s) (hard reset)."""
    s = (u >= threshold).astype(np.int64)
    return s, u - threshold * s if reset == "soft" else u * (1 - s)


def bits(spikes: Values) -> NDArray[np.uint8]:
    """Spikes (T, C, H, W) or (T, N) as the digest takes them: neurons in (H, W, C) order, the first in the highest bit
    of a byte, zeros at the end: (T, bytes)."""
    if spikes.ndim == 4:
        spikes = spikes.transpose(0, 2, 3, 1)
    flat = spikes.reshape(len(spikes), -1)
    whole = np.zeros((len(flat), -(-flat.shape[1] // 8) * 8), np.int64)
    whole[:, : flat.shape[1]] = flat
    return (whole.reshape(len(flat), -1, 8) @ 2 ** np.arange(7, -1, -1)).astype(np.uint8)


def digest(network: str, number: int, found: Run) -> int:
    """SHA-256(n · i · s · v) of one image as a number: network is n in hexadecimal digits, number is i."""
    sha = hashlib.sha256(bytes.fromhex(network) + number.to_bytes(8, "little"))
    for spikes in found.spikes:
        sha.update(bits(spikes).tobytes())
    sha.update(found.readout.astype("<i4").tobytes())
    return int.from_bytes(sha.digest(), "big")
