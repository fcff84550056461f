"""A ReLU network becomes an SNN without training: one visit to each layer, on the spikes of the layers before."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from export.calibrate.forward import largest_of, per_channel, rate_of, received
from export.calibrate.thresholds import choose
from export.calibrate.weights import corrected
from export.fold.folded import Floats, FoldedLayer, FoldedNetwork
from export.round.calibration import arriving, pixels
from export.round.quantize import effective
from nqlava.network import IMAGE
from train.model.neuron import integrate_and_fire

_VALUES = 2**24  # currents at once: 64 MiB
_MEMORY = 2**32  # bytes of spikes and activations; of more images than it allows the first are used
_SAMPLES = 4096  # positions per channel on which thresholds are tried
_TRIED = 128  # images that they are from


@dataclass(frozen=True)
class Loss:
    """Root mean square error of a layer's output, relative to the standard deviation of the ReLU's.

    Attributes:
        name: of the layer.
        quantized: with constant currents, from layers like it: what T levels and thresholds lose.
        spikes: of θ · rate.
    """

    name: str
    quantized: float
    spikes: float


@dataclass(frozen=True)
class Calibrated:
    """A calibrated network, and what it gives on the calibration images.

    Attributes:
        folded: with thresholds.
        relu: scores of the ReLU network, (N, K). quantized: of the network with T levels.
        snn: scores summed over the steps 1 .. t, (T, N, K).
        losses: per layer.
    """

    folded: FoldedNetwork
    relu: Tensor
    quantized: Tensor
    snn: Tensor
    losses: tuple[Loss, ...]


@dataclass
class _Source:
    """What a layer sends, per part of the images, with the amplitude 1 of a spike."""

    relu: list[Tensor] = field(default_factory=list)  # (n, *shape)
    quantized: list[Tensor] = field(default_factory=list)  # (n, *shape)
    spikes: list[Tensor] = field(default_factory=list)  # bool (T, n, *shape)
    rates: list[Tensor] = field(default_factory=list)  # (n, *shape), the means of the spikes over the steps


@torch.no_grad()
def calibrate(folded: FoldedNetwork, caps: Mapping[str, float], images: Tensor, steps: int) -> Calibrated:
    """Thresholds, initial potentials and corrections for the layers that replace ReLUs; others keep what they have.

    Layer by layer, on the spikes of the layers before:

    1. weights and biases are corrected, so that the mean current comes to that of the ReLU network
       (export.calibrate.weights);
    2. θ and v(0) of each channel are those of several with the least error (export.calibrate.thresholds);
    3. the layer spikes, on all images.

    Args:
        folded: of export.fold.lower.lower, with any thresholds.
        caps: per layer that replaces a ReLU the largest output of it.
        images: uint8 (N, C, H, W).
        steps: T.
    """
    run = _Run(folded, images[: _most(folded, steps)], steps)
    for layer in folded.layers[:-1]:
        run.advance(layer, caps.get(layer.name))
    return run.finish(folded.layers[-1])


def _most(folded: FoldedNetwork, steps: int) -> int:
    """Images whose activations and spikes fit into the memory."""
    return max(1, _MEMORY // (folded.live * (steps + 12)))


class _Run:
    def __init__(self, folded: FoldedNetwork, images: Tensor, steps: int) -> None:
        self._folded, self._steps = folded, steps
        largest = max(prod(layer.connections[0].output_shape) for layer in folded.layers)
        parts = images.split(max(1, _VALUES // (largest * steps)))
        self._count, self._sizes = len(images), [len(part) for part in parts]
        shown = [pixels(part, folded, torch.float32) for part in parts]
        self._sources = {IMAGE: _Source(shown, shown)}
        self._last = {c.source: layer.name for layer in folded.layers for c in layer.connections}
        self._factors: dict[str, Floats] = {}  # of each channel's spikes, against those that the weights are for
        self._layers: list[FoldedLayer] = []
        self._losses: list[Loss] = []

    def advance(self, layer: FoldedLayer, cap: float | None) -> None:
        """Calibrate the next layer, and let it spike."""
        if layer.is_maximum:
            self._maximum(layer)
            return
        layer = self._scaled(layer)
        wanted = [self._current(layer, part, "relu") for part in range(len(self._sizes))]
        if cap is not None:
            layer = self._corrected(layer, wanted)
        assert layer.threshold is not None
        largest = float(np.max(layer.threshold)) if cap is None else cap
        activations = [z.clamp(0, largest) for z in wanted]
        if cap is not None:
            old = np.broadcast_to(np.asarray(layer.threshold, np.float64), (len(layer.bias),))
            theta, initial = self._chosen(layer, activations, cap)
            layer = replace(layer, threshold=theta, initial=initial)
            self._factors[layer.name] = theta / old
        self._fire(layer, activations)

    def finish(self, layer: FoldedLayer) -> Calibrated:
        """Correct the read-out."""
        layer = self._scaled(layer)
        parts = range(len(self._sizes))
        wanted = [self._current(layer, part, "relu") for part in parts]
        layer = self._corrected(layer, wanted)
        quantized = [self._current(layer, part, "quantized") for part in parts]
        snn = [self._currents(layer, part).cumsum(0) for part in parts]
        network = replace(self._folded, layers=(*self._layers, layer))
        return Calibrated(network, torch.cat(wanted), torch.cat(quantized), torch.cat(snn, 1), tuple(self._losses))

    def _scaled(self, layer: FoldedLayer) -> FoldedLayer:
        """The layer with weights for the spikes that its sources have now."""
        made = []
        for c in layer.connections:
            if c.source in self._factors:
                factor = self._factors[c.source].reshape(c.groups, -1)
                c = replace(c, weight=c.weight * factor.repeat(len(c.weight) // c.groups, axis=0)[:, :, None, None])
            made.append(c)
        return replace(layer, connections=tuple(made))

    def _corrected(self, layer: FoldedLayer, wanted: list[Tensor]) -> FoldedLayer:
        def parts() -> Iterator[tuple[Mapping[str, Tensor], Tensor]]:
            for part, z in enumerate(wanted):
                rates = self._rates(layer, part)
                yield rates, z - received(layer, self._folded, rates)

        return corrected(layer, parts(), self._count) if any(c.source != IMAGE for c in layer.connections) else layer

    def _rates(self, layer: FoldedLayer, part: int) -> dict[str, Tensor]:
        """What the sources of a layer send on average."""
        return {
            c.source: source.rates[part] if source.spikes else source.relu[part]
            for c in layer.connections
            for source in [self._sources[c.source]]
        }

    def _current(self, layer: FoldedLayer, part: int, kind: str) -> Tensor:
        """What the layer receives, with its bias, from sources that are ReLUs or quantized, (n, *shape)."""
        values = {c.source: getattr(self._sources[c.source], kind)[part] for c in layer.connections}
        return received(layer, self._folded, values)

    def _currents(self, layer: FoldedLayer, part: int) -> Tensor:
        """What the layer receives in every step, with its bias, (T, n, *shape)."""
        constant = torch.from_numpy(layer.bias_map).float()
        spiking = torch.zeros(())
        for connection in layer.connections:
            weight, source = effective(connection, self._folded), self._sources[connection.source]
            if source.spikes:
                found = arriving(connection, weight, source.spikes[part].flatten(0, 1).float())
                spiking = spiking + found.unflatten(0, (self._steps, -1))
            else:
                constant = constant + arriving(connection, weight, source.relu[part])
        total = spiking + constant
        return total if spiking.dim() else total.expand(self._steps, *total.shape)

    def _chosen(self, layer: FoldedLayer, activations: list[Tensor], cap: float) -> tuple[Floats, Floats]:
        """θ and v(0)/θ of each channel, from some positions of some images."""
        generator = torch.Generator().manual_seed(0)
        wanted, currents, images = [], [], 0
        share = -(-_SAMPLES // min(_TRIED, self._count))
        for part, a in enumerate(activations):
            if images >= _TRIED:
                break
            count = min(len(a), _TRIED - images)
            images += count
            shape = (count, len(layer.bias), -1)
            flat, z = a[:count].reshape(shape), self._currents(layer, part)[:, :count].reshape(self._steps, *shape)
            at = torch.randperm(flat.shape[2], generator=generator)[:share]
            wanted.append(flat[:, :, at].transpose(0, 1).flatten(1))
            currents.append(z[..., at].transpose(1, 2).flatten(2))
        theta, initial = choose(torch.cat(wanted, 1), torch.cat(currents, 2), cap)
        return theta.double().numpy(), initial.double().numpy()

    def _fire(self, layer: FoldedLayer, activations: list[Tensor]) -> None:
        """Let the layer spike on all images; keep what later layers need."""
        threshold = torch.as_tensor(layer.threshold, dtype=torch.float32)
        initial = torch.as_tensor(layer.initial, dtype=torch.float32)
        view, offset = (per_channel(value, activations[0].dim()) for value in (threshold, initial))
        made = _Source()
        errors = torch.zeros(2, dtype=torch.float64)
        sums = torch.zeros(2, dtype=torch.float64)
        for part, a in enumerate(activations):
            quantized = rate_of(self._current(layer, part, "quantized") / view, offset, self._steps)
            spikes = integrate_and_fire(self._currents(layer, part), threshold, initial, layer.reset) > 0
            made.relu.append(a / view)
            made.quantized.append(quantized)
            made.spikes.append(spikes)
            made.rates.append(spikes.float().mean(0))
            for index, rate in enumerate((quantized, made.rates[-1])):
                errors[index] += (rate * view - a).square().sum()
            sums += torch.stack([a.double().sum(), a.double().square().sum()])
        count = sum(a.numel() for a in activations)
        deviation = max(float(sums[1] / count - (sums[0] / count) ** 2), 1e-30) ** 0.5
        quantized_loss, spikes_loss = ((errors / count).sqrt() / deviation).tolist()
        self._losses.append(Loss(layer.name, quantized_loss, spikes_loss))
        self._keep(layer, made)

    def _maximum(self, layer: FoldedLayer) -> None:
        """The maximum of spikes, step by step; of the others, the maximum."""
        made = _Source()
        for part in range(len(self._sizes)):
            relu, quantized = (
                largest_of(layer, {c.source: getattr(self._sources[c.source], kind)[part] for c in layer.connections})
                for kind in ("relu", "quantized")
            )
            made.relu.append(relu)
            made.quantized.append(quantized)
            made.spikes.append(self._currents(layer, part) > 0.5)
            made.rates.append(made.spikes[-1].float().mean(0))
        factor = np.ones(len(layer.bias))
        for c in layer.connections:
            if c.source in self._factors:
                rows, columns = np.nonzero(c.weight.any((2, 3)))
                per_group = len(c.weight) // c.groups
                factor[rows] = self._factors[c.source][columns + rows // per_group * c.weight.shape[1]]
        self._factors[layer.name] = factor
        self._keep(layer, made)

    def _keep(self, layer: FoldedLayer, made: _Source) -> None:
        self._layers.append(layer)
        self._sources[layer.name] = made
        for name in [name for name in self._sources if self._last.get(name, layer.name) == layer.name]:
            del self._sources[name]
