"""CPU models of the processes, and an exact model of Lava's stock Conv process."""

from collections import deque

import numpy as np
import torch
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.process import Conv
from numpy.typing import NDArray

from deploy.cpu.layer import CpuLayer
from deploy.lava.processes import (
    BatchSource,
    IFNeuron,
    ImageSource,
    Integrator,
    Probe,
    ReadoutLayer,
    SpikingLayer,
    in_port_name,
    message_bytes,
)
from deploy.layer import Synapses, exact_arithmetic, fire, integrate
from deploy.trace import pack
from export.network import IMAGE, INPUT_MAX, Connection, Layer


class _TorchModel(PyLoihiProcessModel):
    """A model that computes with PyTorch: one thread, as more of them hang or crawl in a forked process."""

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        torch.set_num_threads(1)
        self._arithmetic = exact_arithmetic()
        self._arithmetic.__enter__()  # for the life of the process, which does nothing else


_SUM_MAX = 2**30  # of a synaptic sum in a 32-bit message


@implements(proc=ImageSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyImageSource(PyLoihiProcessModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        images = self.proc_params["images"]
        local = self.proc_params["schedule"].local(self.time_step, 0)
        image = np.zeros_like(images[0]) if local is None else images[local[0] % len(images)]
        if self.proc_params["transpose"]:
            image = image[0].T
        self.s_out.send(image.reshape(self.s_out.shape).astype(np.int32))


@implements(proc=BatchSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBatchSource(PyLoihiProcessModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)

    def run_spk(self) -> None:
        images = self.proc_params["images"]
        local = self.proc_params["schedule"].local(self.time_step, 0)
        self.s_out.send(images[0 if local is None else local[0] % len(images)])


class _Input:
    """What one source sends, after it has waited.

    Args:
        nothing: a message as before the first one arrives.
        delay: steps to wait.
        size: neurons of the source, whose spikes are bits; 0 for the image, whose pixels are bytes.
    """

    def __init__(self, nothing: NDArray[np.uint8], delay: int, size: int) -> None:
        self._waiting = deque([nothing] * (delay + 1))
        self._size = size

    def push(self, received: NDArray[np.uint8]) -> None:
        """Takes what arrives at a step."""
        self._waiting.append(received)
        self._waiting.popleft()

    def values(self) -> NDArray[np.uint8]:
        """What arrived ``delay`` steps before the last message: uint8 (samples, 1, size)."""
        now = self._waiting[0]
        return (np.unpackbits(now, axis=-1, count=self._size) if self._size else now)[:, None]


class _LayerModel(_TorchModel):
    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        layer, shapes, samples = proc_params["layer"], proc_params["shapes"], proc_params["samples"]
        self.layer = CpuLayer(layer, shapes)
        self.recorder = proc_params["recorder"]
        self.potentials = np.zeros((samples, self.layer.size), np.int32)
        self.outputs: NDArray = np.zeros((samples, 1, self.layer.size), np.int32 if layer.is_readout else np.uint8)
        self.range = np.zeros(2, np.int64)
        self.inputs = {
            source: _Input(
                np.zeros((samples, message_bytes(source, shapes[source])), np.uint8),
                proc_params["delays"][source],
                0 if source == IMAGE else int(np.prod(shapes[source])),
            )
            for source in layer.sources
        }

    def advance(self) -> NDArray[np.int64]:
        """Computes ``outputs`` from what was received before; saturations per sample."""
        saturations = np.zeros(len(self.outputs), np.int64)
        self.layer.advance(
            {source: waiting.values() for source, waiting in self.inputs.items()},
            self.outputs,
            self.potentials,
            first=self.recorder.starts(self.time_step),
            saturations=saturations,
            potentials=self.range,
        )
        return saturations

    def receive(self) -> None:
        for index, waiting in enumerate(self.inputs.values()):
            waiting.push(getattr(self, in_port_name(index)).recv())


@implements(proc=SpikingLayer, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpikingLayer(_LayerModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)

    def run_spk(self) -> None:
        saturations = self.advance()
        spikes = pack(self.outputs[:, 0])
        self.s_out.send(spikes)
        self.recorder.record(self.time_step, spikes, saturations)
        self.receive()


@implements(proc=ReadoutLayer, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReadoutLayer(_LayerModel):
    def run_spk(self) -> None:
        saturations = self.advance()
        self.recorder.record(self.time_step, self.outputs[:, 0], saturations)
        self.receive()


def layer_model(layer: Layer) -> type[_LayerModel]:
    """The model of a layer's process: PySpikingLayer or PyReadoutLayer, with an in-port per source.

    Lava reads the ports of a model from its class, where none may be missing or too many. So there is a class for each
    number of ports; its search finds only the classes written above, and the process names its model itself.
    """
    base = PyReadoutLayer if layer.is_readout else PySpikingLayer
    ports = {in_port_name(i): LavaPyType(PyInPort.VEC_DENSE, np.uint8) for i in range(len(layer.sources))}
    return type(f"{base.__name__}With{len(ports)}Ports", (base,), ports)


class _NeuronModel(_TorchModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    v: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    v0: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    reset_period: np.ndarray = LavaPyType(np.ndarray, np.int32)
    reset_phase: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def advance(self) -> NDArray[np.int64] | int:
        """Integrates what arrives at this step, from v0 where a sample starts; saturations of the one sample."""
        elapsed, period = self.time_step - int(self.reset_phase[0]), int(self.reset_period[0])
        if period > 0 and elapsed >= 0 and elapsed % period == 0:
            self.v[:] = self.v0
        u = torch.from_numpy(self.v.astype(np.int64))[None]
        saturated = integrate(u, torch.from_numpy(self.a_in.recv().astype(np.int64) + self.bias)[None])
        self.v[:] = u[0].numpy()
        return 0 if saturated is None else saturated.numpy()

    def record(self, values: NDArray, saturated: NDArray[np.int64] | int) -> None:
        if self.proc_params["recorder"] is not None:
            self.proc_params["recorder"].record_map(self.time_step, values, saturated)


@implements(proc=IFNeuron, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyIFNeuron(_NeuronModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    threshold: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def run_spk(self) -> None:
        saturated = self.advance()
        spikes = fire(torch.from_numpy(self.v), torch.from_numpy(self.threshold), self.proc_params["reset"]).numpy()
        self.s_out.send(spikes)
        self.record(spikes, saturated)


@implements(proc=Integrator, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyIntegrator(_NeuronModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def run_spk(self) -> None:
        saturated = self.advance()
        self.s_out.send(self.v)
        self.record(self.v, saturated)


@implements(proc=Probe, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyProbe(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)

    def run_spk(self) -> None:
        recorder = self.proc_params["recorder"]
        received = self.a_in.recv().reshape(self.proc_params["layer_shape"][::-1])
        received = received.astype(np.int32) << 8 >> 8  # a message has 24 bits, of which the highest is the sign
        recorder.record_map(self.time_step, received if recorder.readout else received != 0, 0)


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("exact")
class PyExactConv(_TorchModel):
    """Lava's Conv with exact sums; the stock model computes in float32 and clips to 24 bits.

    Sums beyond ±2³⁰ are clipped, so that they fit into Lava's 32-bit messages. It changes nothing: |v + b| < 2²⁴, so
    such a sum saturates the membrane potential behind it with or without the clip.

    Chosen through ``exception_proc_model_map``. Timing as in the stock model: what is received at t is sent at t + 1.
    """

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    a_buf: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    weight: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)
    kernel_size: np.ndarray = LavaPyType(np.ndarray, np.int32)
    stride: np.ndarray = LavaPyType(np.ndarray, np.int32)
    padding: np.ndarray = LavaPyType(np.ndarray, np.int32)
    dilation: np.ndarray = LavaPyType(np.ndarray, np.int32)
    groups: np.ndarray = LavaPyType(np.ndarray, np.int32)
    num_message_bits: np.ndarray = LavaPyType(np.ndarray, np.int8, precision=5)
    weight_exp: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)
    num_weight_bits: np.ndarray = LavaPyType(np.ndarray, np.int8, precision=5)

    def _prepare(self) -> Synapses:
        """Lava keeps (O, W, H, I) kernels, flipped, and (x, y) pairs."""
        connection = Connection(
            "source",
            self.weight[:, ::-1, ::-1].transpose(0, 3, 2, 1).astype(np.int8),
            stride=_pair(self.stride),
            padding=_pair(self.padding),
            dilation=_pair(self.dilation),
            groups=int(self.groups.flat[0]),
        )
        largest = INPUT_MAX if int(self.num_message_bits.flat[0]) else 1
        return Synapses([connection], self.s_in.shape[::-1], largest, torch.device("cpu"))

    def run_spk(self) -> None:
        self.a_out.send(self.a_buf)
        if self.time_step == 1:
            self.synapses = self._prepare()
        received = np.ascontiguousarray(self.s_in.recv().T)
        sums = self.synapses.sums(torch.from_numpy(received)[None])[0]
        self.a_buf = sums.clamp(-_SUM_MAX, _SUM_MAX).to(torch.int32).numpy().T


def _pair(value: NDArray[np.int32]) -> tuple[int, int]:
    x, y = (int(n) for n in value)
    return y, x
