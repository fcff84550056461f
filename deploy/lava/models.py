"""CPU models of the processes."""

from collections import deque
from collections.abc import Mapping, Sequence

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import torch
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray
from torch import Tensor

from deploy.lava.processes import (
    BatchSource,
    IFNeuron,
    ImageSource,
    Integrator,
    LayerGroup,
    Probe,
    in_port,
    message_bytes,
    out_port,
)
from deploy.lava.schedule import Recorder
from nqlava.engine.cpu.layer import CpuLayer
from nqlava.engine.layer import exact_arithmetic, fire, integrate
from nqlava.network import IMAGE, Layer
from nqlava.trace import pack


class TorchModel(PyLoihiProcessModel):
    """A model that computes with PyTorch: one thread, as more of them hang or crawl in a forked process."""

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        torch.set_num_threads(1)
        self._arithmetic = exact_arithmetic()
        self._arithmetic.__enter__()  # for the life of the process, which does nothing else


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
    """What one layer receives from one source, after it has waited.

    Args:
        nothing: a message as before the first one arrives.
        delay: steps to wait.
        bits: neurons of the source, if messages hold their spikes as bits; 0 where they hold bytes.
    """

    def __init__(self, nothing: NDArray[np.uint8], delay: int, bits: int) -> None:
        self._waiting = deque([nothing] * (delay + 1))
        self._bits = bits

    def push(self, received: NDArray[np.uint8]) -> None:
        """Takes what arrives at a step; the sender may change its memory as soon as all layers have computed once."""
        self._waiting.append(received if len(self._waiting) == 1 else received.copy())
        self._waiting.popleft()

    def values(self) -> NDArray[np.uint8]:
        """What arrived ``delay`` steps before the last message: uint8 (samples, 1, size)."""
        now = self._waiting[0]
        return (np.unpackbits(now, axis=-1, count=self._bits) if self._bits else now)[:, None]


class _Member:
    """One layer of a group, with its state.

    Args:
        layer: what to compute.
        samples: in one batch.
        shapes, depths: of all layers, by name.
        outside: sources that send from other processes.
        recorder: receives the results.
    """

    def __init__(
        self,
        layer: Layer,
        samples: int,
        shapes: Mapping[str, tuple[int, ...]],
        depths: Mapping[str, int],
        outside: Sequence[str],
        recorder: Recorder,
    ) -> None:
        self._layer = CpuLayer(layer, shapes)
        self._recorder = recorder
        self._potentials = np.zeros((samples, self._layer.size), np.int32)
        self._range = np.zeros(2, np.int64)
        self._constants: dict[int, Tensor] = {}
        self.outputs: NDArray = np.zeros((samples, self._layer.size), np.int32 if layer.is_readout else np.uint8)
        self.inputs: dict[str, _Input] = {}
        for source in layer.sources:
            size = int(np.prod(shapes[source]))
            bits = size if source in outside and source != IMAGE else 0
            length = message_bytes(source, shapes[source]) if source in outside else size
            nothing = np.zeros((samples, length), np.uint8)
            self.inputs[source] = _Input(nothing, depths[layer.name] - depths[source] - 1, bits)

    def advance(self, t: int) -> NDArray:
        """Computes ``outputs`` from what was received before; records and returns them, spikes as bits."""
        saturations = np.zeros(len(self.outputs), np.int64)
        self._layer.advance(
            {source: waiting.values() for source, waiting in self.inputs.items()},
            self.outputs[:, None],
            self._potentials,
            first=self._recorder.starts(t),
            saturations=saturations,
            potentials=self._range,
            constants=self._constants,
        )
        message = self.outputs if self._layer.is_readout else pack(self.outputs)
        self._recorder.record(t, message, saturations, self._potentials)
        return message


@implements(proc=LayerGroup, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyLayerGroup(TorchModel):
    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        shapes, depths, outside = (proc_params[key] for key in ("shapes", "depths", "incoming"))
        self.members = {
            layer.name: _Member(layer, proc_params["samples"], shapes, depths, outside, recorder)
            for layer, recorder in zip(proc_params["layers"], proc_params["recorders"], strict=True)
        }

    def run_spk(self) -> None:
        # Backwards: a layer reads what its source computed at the step before, and only then the source computes again.
        messages = {name: member.advance(self.time_step) for name, member in reversed(self.members.items())}
        for index, name in enumerate(self.proc_params["outgoing"]):
            getattr(self, out_port(index)).send(messages[name])
        arrived = {name: member.outputs for name, member in self.members.items()}
        for index, name in enumerate(self.proc_params["incoming"]):
            arrived[name] = getattr(self, in_port(index)).recv()
        for member in self.members.values():
            for source, waiting in member.inputs.items():
                waiting.push(arrived[source])


def group_model(group: LayerGroup) -> type[PyLayerGroup]:
    """PyLayerGroup with the ports of a process.

    Lava reads the ports of a model from its class, where none may be missing or too many. So there is a class for each
    process; Lava's search finds only the classes written above, and the process names its model itself.
    """
    ports = {in_port(i): LavaPyType(PyInPort.VEC_DENSE, np.uint8) for i in range(len(group.incoming))}
    ports |= {out_port(i): LavaPyType(PyOutPort.VEC_DENSE, np.uint8) for i in range(len(group.outgoing))}
    return type(f"PyLayerGroupWith{len(group.incoming)}And{len(group.outgoing)}Ports", (PyLayerGroup,), ports)


class _NeuronModel(TorchModel):
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
            self.proc_params["recorder"].record_map(self.time_step, values, saturated, self.v)


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
