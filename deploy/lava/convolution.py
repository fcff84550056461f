"""An exact model of Lava's stock Conv process, whose import brings all of SciPy's signal processing."""

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
import torch
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.process import Conv
from numpy.typing import NDArray

from deploy.lava.models import TorchModel
from nqlava.engine.layer import Synapses
from nqlava.merged import Merged
from nqlava.network import INPUT_MAX, Connection

_SUM_MAX = 2**30  # of a synaptic sum in a 32-bit message


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("exact")
class PyExactConv(TorchModel):
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
        return Synapses(Merged([connection], self.s_in.shape[::-1], largest), torch.device("cpu"))

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
