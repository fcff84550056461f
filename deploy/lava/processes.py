"""Lava processes: image sources, groups of layers for fast simulation, and the IF neuron for use behind synapses."""

from collections.abc import Mapping, Sequence

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from numpy.typing import NDArray

from deploy.lava.schedule import Recorder, Schedule
from nqlava.network import IMAGE, Layer, Reset


class ImageSource(AbstractProcess):
    """Sends the images of batch s at the steps s·P + 1 … s·P + T, and zeros in gaps.

    Args:
        images: uint8 (slots, *shape), shared with the parent; batch s is read from slot s mod slots.
        schedule: of the run.
        transpose: send an image (1, C, H, W) as (W, H, C), the axis order of lava-dl.
        flatten: send an image (1, C, H, W) as (C·H·W,).

    It serves networks of one sample at a time; BatchSource serves whole layers.
    """

    def __init__(
        self, *, images: NDArray[np.uint8], schedule: Schedule, transpose: bool = False, flatten: bool = False
    ) -> None:
        super().__init__(images=images, schedule=schedule, transpose=transpose, flatten=flatten, name="source")
        shape = images.shape[1:]
        if transpose:
            shape = shape[:0:-1]
        elif flatten:
            shape = (int(np.prod(shape)),)
        self.s_out = OutPort(shape=shape)


class BatchSource(AbstractProcess):
    """Sends the images of batch s at the steps s·P + 1 … s·P + T; at other steps what it sends is of no consequence.

    Args:
        images: uint8 (slots, samples, H·W·C), pixels in (H, W, C) order, shared with the parent; batch s is read from
            slot s mod slots.
        schedule: of the run.
    """

    def __init__(self, *, images: NDArray[np.uint8], schedule: Schedule) -> None:
        super().__init__(images=images, schedule=schedule, name="source")
        self.s_out = OutPort(shape=images.shape[1:])


def message_bytes(source: str, shape: tuple[int, ...]) -> int:
    """Bytes per sample between layers: one per pixel of the image, one bit per spike."""
    size = int(np.prod(shape))
    return size if source == IMAGE else (size + 7) // 8


class LayerGroup(AbstractProcess):
    """Consecutive layers, synapses and IF neurons, for a batch of samples; spikes travel as bits, in (H, W, C) order.

    At step t a layer integrates what its sources sent at t − 1, or earlier where they are further away than the place
    before, and sends its spikes: one step per layer, also inside a group, so that grouping changes nothing that can be
    observed. No process waits for another within a step.

    Args:
        layers: in the order of the network.
        samples: in one batch.
        shapes: (C, H, W) or (N,) of all layers and the image, by name.
        depths: places in the pipeline, by name.
        recorders: receive the spikes, or of the read-out the potentials; one per layer.
        outgoing: names of the layers whose spikes other processes need.

    Attributes:
        incoming: names of the sources outside.
    """

    def __init__(
        self,
        *,
        layers: Sequence[Layer],
        samples: int,
        shapes: Mapping[str, tuple[int, ...]],
        depths: Mapping[str, int],
        recorders: Sequence[Recorder],
        outgoing: Sequence[str],
    ) -> None:
        inside = {layer.name for layer in layers}
        self.incoming = tuple(dict.fromkeys(s for layer in layers for s in layer.sources if s not in inside))
        self.outgoing = tuple(outgoing)
        super().__init__(
            layers=tuple(layers),
            samples=samples,
            shapes=shapes,
            depths=depths,
            recorders=tuple(recorders),
            incoming=self.incoming,
            outgoing=self.outgoing,
            name=layers[0].name if len(layers) == 1 else f"{layers[0].name} to {layers[-1].name}",
        )
        for names, port, kind in ((self.incoming, in_port, InPort), (self.outgoing, out_port, OutPort)):
            for index, name in enumerate(names):
                setattr(self, port(index), kind(shape=(samples, message_bytes(name, shapes[name]))))

    def port_of(self, name: str) -> InPort | OutPort:
        """The port through which the spikes of the named layer, or the image, arrive or leave."""
        if name in self.outgoing:
            return getattr(self, out_port(self.outgoing.index(name)))
        return getattr(self, in_port(self.incoming.index(name)))


def in_port(index: int) -> str:
    """Attribute of a LayerGroup, and of its model, that is the port of the incoming source with this index."""
    return f"s_in{index}"


def out_port(index: int) -> str:
    """Attribute of a LayerGroup, and of its model, that is the port of the outgoing layer with this index."""
    return f"s_out{index}"


class IFNeuron(AbstractProcess):
    """Integrate-and-fire neurons behind any stock synapses (Conv, Dense, Sparse).

        u = clip(v + a_in + bias, ±(2²³ − 1)),   s = [u ≥ θ],   v = u − θ · s (soft reset) or u · (1 − s) (hard reset)

    Where t ≥ phase and (t − phase) mod period = 0, v is set to v0 before it integrates; a period of 0 means never.
    A layer at place l of a pipeline has phase l + 1 and period T + gap.

    Args:
        shape: of the neurons; parameters broadcast to it (per channel where the channel is the last axis).
        threshold: θ, 1 … 2²³ − 1.
        reset: at a spike, "soft" or "hard".
        v0: initial membrane potential.
        bias: added at every step.
        period, phase: of the reset.
        recorder: receives the spikes of a single sample in (C, H, W) order, or None.
        name: of the process.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        threshold: NDArray[np.int32] | int,
        reset: Reset = "soft",
        v0: NDArray[np.int32] | int = 0,
        bias: NDArray[np.int32] | int = 0,
        period: int = 0,
        phase: int = 1,
        recorder: Recorder | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(shape=shape, reset=reset, recorder=recorder, name=name)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.threshold = Var(shape=shape, init=np.broadcast_to(threshold, shape).astype(np.int32))
        _add_common(self, shape, v0, bias, period, phase)


class Integrator(AbstractProcess):
    """Read-out neurons: IFNeuron without threshold. s_out is the membrane potential, a graded message.

    Arguments as in IFNeuron; the recorder receives potentials.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        v0: NDArray[np.int32] | int = 0,
        bias: NDArray[np.int32] | int = 0,
        period: int = 0,
        phase: int = 1,
        recorder: Recorder | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(shape=shape, recorder=recorder, name=name)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        _add_common(self, shape, v0, bias, period, phase)


def _add_common(
    process: AbstractProcess,
    shape: tuple[int, ...],
    v0: NDArray[np.int32] | int,
    bias: NDArray[np.int32] | int,
    period: int,
    phase: int,
) -> None:
    initial = np.broadcast_to(v0, shape).astype(np.int32)
    process.v0 = Var(shape=shape, init=initial)
    process.v = Var(shape=shape, init=initial.copy())  # a model changes v in place
    process.bias = Var(shape=shape, init=np.broadcast_to(bias, shape).astype(np.int32))
    process.reset_period = Var(shape=(1,), init=period)
    process.reset_phase = Var(shape=(1,), init=phase)  # Lava's models have a phase of their own


class Probe(AbstractProcess):
    """Records what neurons of a single sample send, at the step at which they send it.

    Args:
        shape: of the port.
        layer_shape: (C, H, W) or (N,); the port sends it in reverse order, (W, H, C).
        recorder: receives the spikes, 1 where a message is not 0, or the potentials.
    """

    def __init__(self, *, shape: tuple[int, ...], layer_shape: tuple[int, ...], recorder: Recorder) -> None:
        super().__init__(layer_shape=layer_shape, recorder=recorder)
        self.a_in = InPort(shape=shape)
