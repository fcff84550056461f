"""Lava processes: an image source, whole layers for fast simulation, and the IF neuron for use behind synapses."""

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from numpy.typing import NDArray

from deploy.lava.schedule import Recorder, Schedule
from export.network import Layer


class ImageSource(AbstractProcess):
    """Sends the images of batch s at the steps s·P + 1 … s·P + T, and zeros in gaps.

    Args:
        images: uint8 (slots, *shape), shared with the parent; batch s is read from slot s mod slots.
        schedule: of the run.
        transpose: send an image (1, C, H, W) as (W, H, C), the axis order of lava-dl.
        flatten: send an image (1, C, H, W) as (C·H·W,).
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


class _LayerProcess(AbstractProcess):
    """What SpikingLayer and ReadoutLayer share: the layer and its input port."""

    def __init__(
        self, *, layer: Layer, samples: int, input_shape: tuple[int, ...], input_max: int, recorder: Recorder
    ) -> None:
        super().__init__(
            layer=layer,
            samples=samples,
            input_shape=input_shape,
            input_max=input_max,
            recorder=recorder,
            name=layer.name,
        )
        self.s_in = InPort(shape=(samples, *input_shape))


class SpikingLayer(_LayerProcess):
    """Synapses and IF neurons of one layer for a batch of samples.

    At step t it integrates what it received at t − 1, sends its spikes and then receives: one step per layer, and no
    layer waits for another within a step.

    Args:
        layer: what to compute.
        samples: in one batch.
        input_shape: (C, H, W) or (N,).
        input_max: largest input.
        recorder: receives the spikes.
    """

    def __init__(
        self, *, layer: Layer, samples: int, input_shape: tuple[int, ...], input_max: int, recorder: Recorder
    ) -> None:
        super().__init__(layer=layer, samples=samples, input_shape=input_shape, input_max=input_max, recorder=recorder)
        self.s_out = OutPort(shape=(samples, *layer.output_shape(input_shape)))


class ReadoutLayer(_LayerProcess):
    """Synapses and integrators of the read-out; arguments as in SpikingLayer, the recorder receives potentials."""


class SoftResetIF(AbstractProcess):
    """Integrate-and-fire neurons with reset by subtraction, behind any stock synapse (Conv, Dense, Sparse).

        u = clip(v + a_in + bias, ±(2²³ − 1)),   s = [u ≥ θ],   v = u − θ · s

    Where t ≥ phase and (t − phase) mod period = 0, v is set to v0 before it integrates; a period of 0 means never.
    Layer l of a pipeline (from 1) has phase l + 1 and period T + gap.

    Args:
        shape: of the neurons; parameters broadcast to it (per channel where the channel is the last axis).
        threshold: θ, 1 … 2²³ − 1.
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
        self.threshold = Var(shape=shape, init=np.broadcast_to(threshold, shape).astype(np.int32))
        _add_common(self, shape, v0, bias, period, phase)


class Integrator(AbstractProcess):
    """Read-out neurons: SoftResetIF without threshold. s_out is the membrane potential, a graded message.

    Arguments as in SoftResetIF; the recorder receives potentials.
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
