"""One layer of an integer network on a CPU: synapses and neurons, for several samples and steps at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nqlava.engine.cpu.kernels import SEGMENT, Currents, Extent, Neurons, Watch, integrate, integrate_fire
from nqlava.engine.cpu.synapses import EXACT_FLOAT32, Synapses, as_map
from nqlava.merged import Merged, merge
from nqlava.network import IMAGE, Layer

_CACHED_BYTES = 2**22
"""Currents computed at once: they stay in the second-level cache until they are integrated. More where the weights take
more, since these are read again for every part of the samples."""

_NOTHING = np.empty(0, np.int32)
_NO_SPIKES = np.empty(0, np.uint8)


class CpuLayer:
    """Synapses and neurons of one layer, ready to run.

        I = Σ over connections of 2^exponent · Σ w · in,   u = clip(v + I + b, ±(2²³ − 1)),   s = [u ≥ θ],
        v = u − θ · s (soft reset) or v = u · (1 − s) (hard reset)

    One identity shortcut, a diagonal 1x1 convolution of spikes, is added while the neurons integrate; all other
    connections become Synapses. Nothing here is changed by running: threads may share a layer.

    Args:
        layer: the layer.
        shapes: shapes of its sources by name, "input" for the image.

    Attributes:
        shape: (O, H, W) or (O,).
        size: number of neurons.
        is_readout: whether potentials are the output instead of spikes.
        kernels: what computes the synapses, in order.
    """

    def __init__(self, layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shape = layer.output_shape(shapes)
        self.size = int(np.prod(self.shape))
        self.is_readout = layer.is_readout
        self._shapes = {source: as_map(shapes[source]) for source in layer.sources}
        merged = merge(layer, shapes)
        self._shortcut = None if layer.is_readout else _take_shortcut(merged)
        double = sum(one.bound for one in merged) >= EXACT_FLOAT32
        self._synapses = [Synapses(one, double=double) for one in merged]
        self._values = max(_CACHED_BYTES, sum(one.weight.size for one in merged)) // 4
        self.kernels = tuple(synapses.kernel for synapses in self._synapses)
        channels, height, width = as_map(self.shape)
        columns = max(k for k in range(1, width + 1) if width % k == 0 and (k == 1 or k * channels <= SEGMENT))
        self._rows, self._segments, self._length = height, width // columns, columns * channels
        factor = np.zeros(channels, np.int32) if self._shortcut is None else self._shortcut[1]
        bias = np.tile(layer.bias, columns) if layer.bias.ndim == 1 else layer.bias.transpose(1, 2, 0).reshape(-1)
        threshold = np.ones(channels, np.int32) if layer.threshold is None else layer.threshold
        self._neurons = Neurons(
            np.ascontiguousarray(bias),
            np.tile(threshold, columns),
            np.tile(layer.v0, columns),
            np.tile(factor, columns),
            layer.reset == "hard",
        )

    def advance(
        self,
        inputs: Mapping[str, NDArray[np.uint8]],
        outputs: NDArray[Any],
        v: NDArray[np.int32],
        *,
        first: bool,
        saturations: NDArray[np.int64],
        potentials: NDArray[np.int64],
        constants: dict[int, Tensor] | None = None,
    ) -> None:
        """Computes T consecutive steps of n samples.

        Args:
            inputs: uint8 (n, T, size) by source, spikes in (H, W, C) order; the image as (n, 1, size).
            outputs: written: uint8 (n, T, size) spikes in (H, W, C) order, or int32 (n, T, K) potentials of a read-out.
            v: int32 (n, size), potentials between calls; (0,) where all steps of the samples are in one call.
            first: whether the samples start, with v(0).
            saturations: int64 (n,), grows by the number of clips that changed a potential.
            potentials: int64 (2,), smallest and largest u so far; updated.
            constants: memory of the caller for what arrives from the image, where the steps of the same samples are in
                several calls: it is computed in the first of them, and kept.
        """
        samples, steps = outputs.shape[:2]
        images = max(1, self._values // (steps * self.size))
        for start in range(0, samples, images):
            part = slice(start, start + images)
            arriving = {source: values[part] for source, values in inputs.items()}
            constant = None if constants is None or first else constants.get(start)
            if constant is None:
                constant = self._sums(arriving, [synapses for synapses in self._synapses if synapses.source == IMAGE])
            if constants is not None and constant is not None:
                constants[start] = constant
            current = self._current(arriving, constant, steps)
            count, watch = len(outputs[part]), Watch(saturations[part], potentials)
            if self.is_readout:
                kept = v[part] if v.size else np.empty((count, self.size), np.int32)
                integrate(steps, self._neurons, current, first, kept, watch, outputs[part])
                continue
            shortcut = _NO_SPIKES if self._shortcut is None else arriving[self._shortcut[0]].reshape(-1)
            kept = v[part].reshape(-1) if v.size else _NOTHING
            extent = Extent(count, steps, self._rows, self._segments, self._length)
            integrate_fire(extent, self._neurons, current, shortcut, first, kept, watch, outputs[part].reshape(-1))

    def _current(self, inputs: Mapping[str, NDArray[np.uint8]], constant: Tensor | None, steps: int) -> Currents:
        """Σ over the synapses; one step where only the image arrives, since it is the same at every step."""
        changing = self._sums(inputs, [synapses for synapses in self._synapses if synapses.source != IMAGE])
        if changing is None:
            assert constant is not None
            return _currents(constant, 1)
        if constant is not None:
            by_step = changing.as_strided(
                (len(constant), steps, *changing.shape[1:]),
                (steps * changing.stride(0), *changing.stride()),
            )
            by_step.add_(constant[:, None])
        return _currents(changing, steps)

    def _sums(self, inputs: Mapping[str, NDArray[np.uint8]], chosen: Sequence[Synapses]) -> Tensor | None:
        """What arrives over some of the synapses, (n · steps, H, W, O) in new memory; None over none."""
        total: Tensor | None = None
        for synapses in chosen:
            channels, height, width = self._shapes[synapses.source]
            values = torch.from_numpy(inputs[synapses.source]).view(-1, height, width, channels)
            sums = synapses.sums(values)
            total = sums if total is None else total.add_(sums)
        return total


def _currents(sums: Tensor, steps: int) -> Currents:
    """Sums (n · steps, H, W, O), whose rows are contiguous, as the compiled kernels take them."""
    everything = sums.as_strided((sums.untyped_storage().nbytes() // sums.element_size(),), (1,), 0)
    return Currents(everything.numpy(), sums.stride(0), sums.stride(1), steps)


def _take_shortcut(merged: list[Merged]) -> tuple[str, NDArray[np.int32]] | None:
    """Removes the first identity shortcut, unless nothing else is left: its source and its factor per channel.

    Its factors are below 2²⁴: the sums of all others are clipped to ±2³⁰ before, and still saturate after.
    """
    for index, one in enumerate(merged):
        factor = one.convolution.diagonal if one.convolution.window == (1, 1) else None
        if factor is not None and one.source != IMAGE and len(merged) > 1 and one.bound < EXACT_FLOAT32:
            del merged[index]
            return one.source, factor.astype(np.int32) << one.exponent
    return None
