"""The network from Lava's stock processes and models only: soft and hard reset without a neuron of our own.

No stock neuron resets by subtraction, so each IF neuron is made of two stock neurons that receive the same input, an
integrator (GradedVec: sends what it receives and forgets it) and a comparator (GradedReluVec: sends it where it is
positive). Both receive, at time step t,

    x(t) = x(t−1) − θ · [x(t−1) > 0] + I(t) + b,   x = u − θ + 1,   so that x > 0 where u ≥ θ.

x(t−1) comes from the integrator through synapses of weight 1, and −θ from the comparator through synapses that take its
graded message as a spike, as the synapses of the next layer do. For a hard reset the feedback is −x − (θ − 1). The
read-out is an integrator alone, with x = v. One time step of Lava is one time step of the network: the timing is that
of docs/semantics.md.

* Constants with more than 8 bits (θ, b, v(0)) are digits to the base 256, a synapse process each, with its exponent.
* The bias is a synapse from a line that spikes at every step. At the start of a sample, Lava's Reset processes clear
  what waits in the synapses of the loop and the feedback, and a second line brings v(0) − θ + 1.
* Spikes that skip places wait in chains of GradedVec relays, one per step.
* Lava's Conv ignores weight exponents: a convolution with an exponent is a Sparse matrix instead.

Why not Lava's LIF as the comparator: it has one threshold for all its neurons, and it shifts its input left by 6 bits,
which leaves ±2¹⁷; the sums of a first layer are larger.

What cannot be done from stock parts, and is refused:

* saturation: nothing clips at ±(2²³ − 1). A network is accepted where u and u − θ + 1 provably stay inside for T steps;
* batches: one sample at a time.

Only the image source and the probes that record are ours (processes.py). All else runs on the unmodified models of
lava-nc 0.10.0. This is for CPUs: the Resets write a variable of the synapse models (docs/loihi.md).
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import RunConfig
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.conv.utils import conv_to_sparse
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.proc.graded.models import PyGradedReluVecModelFixed, PyGradedVecModelFixed
from lava.proc.graded.process import GradedReluVec, GradedVec
from lava.proc.io.reset import PyResetFixed, Reset
from lava.proc.io.source import PySendModelFixed, RingBuffer
from lava.proc.sparse.models import PySparseModelBitAcc
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, spmatrix

from deploy.lava.build import run_configuration
from deploy.lava.models import PyImageSource, PyProbe
from deploy.lava.pipeline import Pipeline
from deploy.lava.processes import ImageSource, Probe
from deploy.lava.schedule import Recorder, Schedule
from nqlava.errors import InputError
from nqlava.network import IMAGE, INPUT_MAX, MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.trace import Trace

_MODELS = {
    Conv: PyConvModelFixed,
    Dense: PyDenseModelBitAcc,
    Sparse: PySparseModelBitAcc,
    GradedVec: PyGradedVecModelFixed,
    GradedReluVec: PyGradedReluVecModelFixed,
    Reset: PyResetFixed,
    RingBuffer: PySendModelFixed,
    ImageSource: PyImageSource,
    Probe: PyProbe,
}
_SPIKE, _IMAGE_BITS, _GRADED = 0, 8, 24
"""num_message_bits of a synapse: 0 takes every message that is not 0 as a spike."""


def run(
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    steps: int,
    *,
    gap: int = 0,
) -> Generator[Trace, None, None]:
    """Runs ``network`` from stock parts, and yields a Trace for every few samples, in order.

    Args:
        network: what to run.
        images, steps, gap: as of deploy.lava.pipeline.Pipeline.

    Raises:
        InputError: a network that stock parts cannot compute exactly, or an invalid argument.
        LavaRunError: a process failed, was killed or stalled.
    """
    pipeline = Pipeline(network, images, steps, gap=gap)
    require_buildable(network, steps)
    return _run(network, pipeline)


def _run(network: IntegerNetwork, pipeline: Pipeline) -> Generator[Trace, None, None]:
    source = ImageSource(images=pipeline.buffer, schedule=pipeline.schedule, transpose=True)
    build(network, source.s_out.flatten(), pipeline.schedule, pipeline.recorders)
    yield from pipeline.run(source, configuration(source))


def configuration(source: ImageSource) -> RunConfig:
    """A run configuration that names the model of every process, which spares Lava its search for each of them."""
    run_cfg = run_configuration("cpu")
    run_cfg.exception_proc_model_map |= {process: _MODELS[type(process)] for process in find_processes(source)}
    return run_cfg


def require_buildable(network: IntegerNetwork, steps: int) -> None:
    """InputError naming the first layer that stock parts cannot compute exactly for T = ``steps``."""
    for layer in network.layers:
        bias = layer.bias.reshape(layer.outputs, -1).astype(np.int64)
        low, high = bias.min(axis=1), bias.max(axis=1)
        reach = 0
        for c in layer.connections:
            scale = (INPUT_MAX if c.source == IMAGE else 1) << c.exponent
            weight = c.weight.reshape(c.outputs, -1).astype(np.int64) * scale
            negative, positive = np.minimum(weight, 0).sum(axis=1), np.maximum(weight, 0).sum(axis=1)
            low, high = low + negative, high + positive
            reach = max(reach, int(positive.max()), -int(negative.min()))
        reach = max(reach, _reach(layer, low, high, steps))
        if reach > MEMBRANE_MAX:
            raise InputError(
                f"--backend stock: layer {layer.name} may reach {reach} within {steps} steps; "
                f"allowed: {MEMBRANE_MAX}, as nothing clips in a network of stock parts"
            )


def _reach(layer: Layer, low: NDArray[np.int64], high: NDArray[np.int64], steps: int) -> int:
    """Largest |u|, or |u − θ + 1|, within T steps if I + b is between ``low`` and ``high`` (O,) at every step."""
    least = most = layer.v0.astype(np.int64)
    reach = 0
    for _ in range(steps):
        least, most = least + low, most + high
        reach = max(reach, int(-least.min()), int(most.max()))
        if layer.threshold is None:
            continue
        reach = max(reach, int((layer.threshold - least).max()))
        fires, rests = most >= layer.threshold, least < layer.threshold
        after = 0 if layer.reset == "hard" else most - layer.threshold
        most = np.where(fires, np.where(rests, np.maximum(layer.threshold - 1, after), after), most)
        lowest = 0 if layer.reset == "hard" else np.maximum(least - layer.threshold, 0)
        least = np.where(rests, np.where(fires, np.minimum(least, lowest), least), lowest)
    return reach


def build(network: IntegerNetwork, image: OutPort, schedule: Schedule, recorders: Sequence[Recorder]) -> None:
    """Connects the processes of all layers behind ``image``, the port of a source that sends (W, H, C), flattened."""
    # Line 0 spikes at every step; line l a step before a sample starts at place l, since the synapse takes a step.
    pattern = np.zeros((1 + network.depth, schedule.period), np.int64)
    pattern[0] = 1
    for place in range(1, 1 + network.depth):
        pattern[place, (place - 1) % schedule.period] = 1
    control = RingBuffer(data=pattern)
    outputs = {IMAGE: _Delayed(image, _IMAGE_BITS, int(np.prod(network.input_shape)))}
    for layer, recorder in zip(network.layers, recorders, strict=True):
        place, shape = network.depth_of[layer.name], network.shape_of[layer.name]
        population = _Population(layer, shape, place, schedule.period)
        population.add_constants(control.s_out, network.depth, place)
        for c in layer.connections:
            waits = place - network.depth_of[c.source] - 1
            delayed = outputs[c.source]
            population.add_connection(c, network.shape_of[c.source], delayed.after(waits), delayed.bits)
        probe = Probe(shape=(population.size,), layer_shape=shape, recorder=recorder)
        probe.name = f"probe of {layer.name}"
        population.output.connect(probe.a_in)
        if not layer.is_readout:
            outputs[layer.name] = _Delayed(population.output, _SPIKE, population.size)


class _Delayed:
    """What one source sends, now and after any number of steps.

    Args:
        port: of the source, flat.
        bits: num_message_bits of the synapses behind it, also an attribute.
        size: of the port.
    """

    def __init__(self, port: OutPort, bits: int, size: int) -> None:
        self.bits, self._size = bits, size
        self._chain = [port]

    def after(self, steps: int) -> OutPort:
        """A port that sends what the source sent ``steps`` steps before."""
        while len(self._chain) <= steps:
            synapse = _synapse(diags(np.ones(self._size, np.int64)), bits=self.bits)
            relay = GradedVec(shape=(self._size,), vth=0)
            self._chain[-1].connect(synapse.s_in)
            synapse.a_out.connect(relay.a_in)
            self._chain.append(relay.s_out)
        return self._chain[steps]


class _Population:
    """The neurons of one layer, flat in (W, H, C) order, with their loop, feedback and resets.

    Args:
        layer: what they compute.
        shape: (O, H, W) or (O,).
        place: l, in the pipeline.
        period: P = T + gap.

    Attributes:
        size: number of neurons.
        output: port of the spikes (graded, and not 0 where there is one) or, of the read-out, of v.
    """

    def __init__(self, layer: Layer, shape: tuple[int, ...], place: int, period: int) -> None:
        self.size = int(np.prod(shape))
        self._layer, self._shape = layer, shape
        integrator = GradedVec(shape=(self.size,), vth=0)
        integrator.name = layer.name
        self._inputs: list[InPort] = [integrator.a_in]
        self.output: OutPort = integrator.s_out
        unit = diags(np.ones(self.size, np.int64))
        feedback: list[tuple[OutPort, AbstractProcess]] = [(integrator.s_out, _synapse(unit, bits=_GRADED))]
        if layer.threshold is not None:
            comparator = GradedReluVec(shape=(self.size,), vth=0)
            comparator.name = f"comparator of {layer.name}"
            self._inputs.append(comparator.a_in)
            self.output = comparator.s_out
            constant = self._spread(layer.threshold)
            if layer.reset == "hard":
                constant = constant - 1
                feedback.append((comparator.s_out, _synapse(-unit, bits=_GRADED)))
            feedback += [
                (comparator.s_out, _synapse(diags(digit), exponent=exponent, bits=_SPIKE))
                for exponent, digit in _digits(-constant)
            ]
        for port, synapse in feedback:
            port.connect(synapse.s_in)
            self._receive(synapse.a_out)
            # Reset acts at the end of a step: here at the last one before a sample starts at place l.
            Reset(reset_value=0, interval=period, offset=place - 1).connect_var(synapse.a_buff)

    def add_constants(self, control: OutPort, depth: int, place: int) -> None:
        """The bias at every step, and v(0) − θ + 1 (v(0) in the read-out) at the start of a sample."""
        start = self._spread(self._layer.v0)
        if self._layer.threshold is not None:
            start = start - self._spread(self._layer.threshold) + 1
        weight = np.zeros((self.size, 1 + depth), np.int64)
        weight[:, 0], weight[:, place] = self._spread(self._layer.bias), start
        for exponent, digit in _digits(weight):
            synapse = _synapse(digit, exponent=exponent, bits=_SPIKE)
            control.connect(synapse.s_in)
            self._receive(synapse.a_out)

    def add_connection(self, connection: Connection, shape: tuple[int, ...], port: OutPort, bits: int) -> None:
        """Synapses from ``port``, whose source has the given shape (C, H, W) or (N,)."""
        weight: NDArray[np.int64] | spmatrix = connection.weight.astype(np.int64)
        if connection.is_convolution:
            kernel = weight.transpose(0, 3, 2, 1)[:, ::-1, ::-1]  # Lava keeps (O, W, H, I) kernels, flipped
            geometry = [value[::-1] for value in (connection.stride, connection.padding, connection.dilation)]
            if connection.exponent == 0:
                stride, padding, dilation = geometry
                convolution = Conv(
                    weight=kernel,
                    input_shape=shape[::-1],
                    stride=stride,
                    padding=padding,
                    dilation=dilation,
                    groups=connection.groups,
                    num_message_bits=bits,
                )
                port.reshape(shape[::-1]).connect(convolution.s_in)
                self._receive(convolution.a_out.flatten())
                return
            to, source, values = conv_to_sparse(shape[::-1], self._shape[::-1], kernel, *geometry, connection.groups)
            weight = csr_matrix((values, (to, source)), (self.size, int(np.prod(shape))))
        else:
            weight = weight.reshape(-1, *shape).transpose(0, *range(len(shape), 0, -1)).reshape(len(weight), -1)
        synapse = _synapse(weight, exponent=connection.exponent, bits=bits)
        port.connect(synapse.s_in)
        self._receive(synapse.a_out)

    def _receive(self, port: OutPort) -> None:
        for target in self._inputs:
            port.connect(target)

    def _spread(self, value: NDArray[np.int32]) -> NDArray[np.int64]:
        """A parameter (O,) or (O, H, W) for every neuron, flat in (W, H, O) order."""
        value = value.reshape(value.shape + (1,) * (len(self._shape) - value.ndim))
        return np.broadcast_to(value, self._shape).T.reshape(-1).astype(np.int64)


def _synapse(weight: NDArray[np.int64] | spmatrix, *, exponent: int = 0, bits: int) -> Any:
    """Dense or Sparse synapses that compute 2^exponent · Σ w · in, exactly, for w of −128 … 127.

    With weights of both signs Lava keeps 8 bits of 2 · w, and drops the last bit of an odd w.
    """
    kind = Dense if isinstance(weight, np.ndarray) else Sparse
    return kind(
        weights=2 * weight, weight_exp=exponent - 1, num_weight_bits=8, sign_mode=SignMode.MIXED, num_message_bits=bits
    )


def _digits(values: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(exponent, d) with d from −128 to 127 and Σ 2^exponent · d = values; without those that are 0 everywhere."""
    exponent = 0
    while values.any():
        digit = (values + 128 & 255) - 128
        if digit.any():
            yield exponent, digit
        values, exponent = values - digit >> 8, exponent + 8
