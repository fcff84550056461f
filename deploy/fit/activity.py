"""Spikes and synaptic operations of a network on real images, counted exactly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.fit.wiring import Wiring, volume
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, IntegerNetwork

BATCH = 16
"""Images whose spikes are held at once."""


@dataclass(frozen=True)
class LayerActivity:
    """One layer, summed over all samples and steps.

    Attributes:
        name: of the layer.
        neurons: in the layer.
        spikes: that its neurons emitted; 0 for the read-out.
        operations: per connection from a layer: spikes times synapses they reached; 0 for one from the image.
        image_operations: multiply-accumulates by which the image reaches the layer, once per sample: one per synapse
            from a pixel that is not 0.
        image_synapses: the same, counting every pixel.
        updates: of membrane potentials: neurons · samples · steps.
    """

    name: str
    neurons: int
    spikes: int
    operations: tuple[int, ...]
    image_operations: int
    image_synapses: int
    updates: int


@dataclass(frozen=True)
class Activity:
    """Attributes: samples; steps, T; layers; counts: spikes of every neuron, int64, by the name of its layer."""

    samples: int
    steps: int
    layers: tuple[LayerActivity, ...]
    counts: Mapping[str, NDArray[np.int64]]

    @property
    def spikes(self) -> int:
        return sum(layer.spikes for layer in self.layers)

    @property
    def operations(self) -> int:
        """Synaptic operations by spikes."""
        return sum(sum(layer.operations) for layer in self.layers)

    @property
    def image_operations(self) -> int:
        """Multiply-accumulates by the image, once per sample."""
        return sum(layer.image_operations for layer in self.layers)

    @property
    def updates(self) -> int:
        return sum(layer.updates for layer in self.layers)


def measure(
    network: IntegerNetwork,
    wired: Mapping[str, Sequence[Wiring]],
    images: NDArray[np.uint8],
    steps: int,
    progress: Callable[[int], object] = lambda _: None,
) -> Activity:
    """Runs images (N, C, H, W) over T = ``steps`` steps in the exact integer engine and counts.

    Args:
        network: the network.
        wired: its wirings, as ``deploy.fit.wiring.wire`` returns them.
        images: uint8.
        steps: T.
        progress: called after every few images with their number.
    """
    engine = Engine(network)
    counts = {name: np.zeros(volume(shape), np.int64) for name, shape in network.shape_of.items()}
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        trace = engine.run(part, steps)
        for index, layer in enumerate(network.layers[:-1]):
            counts[layer.name] += trace.layer_spikes(index).sum(axis=(0, 1)).reshape(counts[layer.name].shape)
        counts[IMAGE] += (part != 0).sum(axis=0)
        progress(len(part))
    return count(network, wired, counts, len(images), steps)


def count(
    network: IntegerNetwork,
    wired: Mapping[str, Sequence[Wiring]],
    counts: Mapping[str, NDArray[np.int64]],
    samples: int,
    steps: int,
) -> Activity:
    """The activity that follows from the spikes of every neuron.

    Args:
        network, wired, steps: as in ``measure``.
        counts: int64 (C, H, W) by source: spikes of each neuron over all samples and steps; for the image, in how many
            samples each pixel was not 0.
        samples: number of samples.
    """
    layers = []
    for layer in network.layers:
        neurons = int(np.prod(network.shape_of[layer.name]))
        reached = [int((counts[w.source].sum(axis=0) * w.fan_out()).sum()) for w in wired[layer.name]]
        from_image = [w.source == IMAGE for w in wired[layer.name]]
        layers.append(
            LayerActivity(
                layer.name,
                neurons,
                0 if layer.is_readout else int(counts[layer.name].sum()),
                tuple(0 if image else n for n, image in zip(reached, from_image, strict=True)),
                sum(n for n, image in zip(reached, from_image, strict=True) if image),
                samples * sum(w.synapses for w, image in zip(wired[layer.name], from_image, strict=True) if image),
                neurons * samples * steps,
            )
        )
    return Activity(samples, steps, tuple(layers), counts)
