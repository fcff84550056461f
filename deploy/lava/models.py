"""CPU models of the processes, and an exact model of Lava's stock Conv process."""

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

from deploy.lava.processes import ImageSource, Integrator, ReadoutLayer, SoftResetIF, SpikingLayer
from deploy.layer import PreparedLayer, exact_arithmetic, fire, integrate
from export.network import INPUT_MAX, Layer


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


class _LayerModel(_TorchModel):
    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        shape, samples = proc_params["input_shape"], proc_params["samples"]
        self.layer = PreparedLayer(proc_params["layer"], shape, proc_params["input_max"], torch.device("cpu"))
        self.recorder = proc_params["recorder"]
        self.membrane = self.layer.initial(samples)
        self.received = np.zeros((samples, *shape), np.uint8)
        self.current = self.layer.current(torch.from_numpy(self.received))

    def advance(self) -> NDArray[np.int64] | int:
        """Integrates what was received at the step before; saturations per sample."""
        if self.recorder.starts(self.time_step):
            self.membrane = self.layer.initial(len(self.membrane))
        saturated = integrate(self.membrane, self.current)
        return 0 if saturated is None else saturated.numpy()

    def receive(self) -> None:
        received = self.s_in.recv()
        # The image comes T times in a row: equal inputs give equal sums.
        if not np.array_equal(received, self.received):
            self.received = received
            self.current = self.layer.current(torch.from_numpy(received))


@implements(proc=SpikingLayer, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpikingLayer(_LayerModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.uint8)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)

    def run_spk(self) -> None:
        saturated = self.advance()
        spikes = self.layer.fire(self.membrane).numpy()
        self.s_out.send(spikes)
        self.recorder.record(self.time_step, spikes, saturated)
        self.receive()


@implements(proc=ReadoutLayer, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReadoutLayer(_LayerModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.uint8)

    def run_spk(self) -> None:
        saturated = self.advance()
        self.recorder.record(self.time_step, self.membrane.numpy(), saturated)
        self.receive()


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
            self.proc_params["recorder"].record(self.time_step, values.T[None], saturated)


@implements(proc=SoftResetIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySoftResetIF(_NeuronModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    threshold: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def run_spk(self) -> None:
        saturated = self.advance()
        spikes = fire(torch.from_numpy(self.v), torch.from_numpy(self.threshold)).numpy()
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

    def _prepare(self) -> PreparedLayer:
        """Lava keeps (O, W, H, I) kernels, flipped, and (x, y) pairs."""
        zeros = np.zeros(self.weight.shape[0], np.int32)
        layer = Layer(
            "conv",
            self.weight[:, ::-1, ::-1].transpose(0, 3, 2, 1).astype(np.int8),
            bias=zeros,
            threshold=None,
            v0=zeros,
            stride=_pair(self.stride),
            padding=_pair(self.padding),
            dilation=_pair(self.dilation),
            groups=int(self.groups.flat[0]),
        )
        largest = INPUT_MAX if int(self.num_message_bits.flat[0]) else 1
        return PreparedLayer(layer, self.s_in.shape[::-1], largest, torch.device("cpu"))

    def run_spk(self) -> None:
        self.a_out.send(self.a_buf)
        if self.time_step == 1:
            self.layer = self._prepare()
        received = np.ascontiguousarray(self.s_in.recv().T)
        sums = self.layer.current(torch.from_numpy(received)[None])[0]
        self.a_buf = sums.clamp(-_SUM_MAX, _SUM_MAX).to(torch.int32).numpy().T


def _pair(value: NDArray[np.int32]) -> tuple[int, int]:
    x, y = (int(n) for n in value)
    return y, x
