"""lava-dl's own network in Lava's CPU simulator, recorded: deploy/lava_dl/engine.py is compared with it.

The network is built by lava-dl's reader, with Lava's stock synapses. Its neurons run the code of Lava's fixed-point
LIF; the models here add nothing but the recording.
"""

import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc
from lava.proc.lif.process import LIF, LIFReset
from numpy.typing import NDArray

from deploy.lava.guard import GuardedRun
from deploy.lava.schedule import Schedule, shared_array
from deploy.lava_dl.engine import Activity, Clock
from deploy.lava_dl.reader import LifNetwork, NetxError

_GRADED_BITS = 16
_RUN_VALUES = 2**26


class _Recorder:
    """Shared memory in which a neuron process leaves its spikes and potentials.

    Attributes:
        spikes, potentials: (samples, T, W, H, C) or (samples, T, N).
        step: the last time step that was computed.
    """

    def __init__(self, schedule: Schedule, place: int, shape: tuple[int, ...]) -> None:
        self._schedule, self._place = schedule, place
        whole = (schedule.batches, schedule.steps, *shape)
        self.spikes, self.potentials = shared_array(whole, np.uint8), shared_array(whole, np.int32)
        self.step = shared_array((1,), np.int64)

    def record(self, t: int, spikes: NDArray[np.bool_], potentials: NDArray[np.int32]) -> None:
        self.step[0] = t
        local = self._schedule.local(t, self._place)
        if local is not None:
            self.spikes[local[0], local[1] - 1] = spikes
            self.potentials[local[0], local[1] - 1] = potentials


class _Recorded:
    """Records what a LIF model does at a step, v after the reset."""

    def spiking_activation(self) -> NDArray[np.bool_]:
        self._fired = super().spiking_activation()  # type: ignore[misc]
        return self._fired

    def run_spk(self) -> None:
        super().run_spk()  # type: ignore[misc]
        self.proc_params["recorder"].record(self.time_step, self._fired, self.v)  # type: ignore[attr-defined]


class PyRecordedLif(_Recorded, PyLifModelBitAcc):
    """Lava's LIF, recorded."""


class PyRecordedLifReset(_Recorded, PyLifResetModelBitAcc):
    """Lava's LIFReset, recorded."""


def run(
    path: str | os.PathLike[str],
    network: LifNetwork,
    inputs: NDArray[np.integer],
    clock: Clock = "local",
    *,
    graded: bool = False,
) -> Iterator[Activity]:
    """Runs the file's network in Lava; yields what its layers do, for consecutive samples, in order.

    With the local clock and without delays, samples follow each other without a pause, reset by lava-dl's
    ``reset_interval``; else every sample has a network of its own.

    Args:
        path: the file, which lava-dl reads.
        network: what deploy.lava_dl.reader.read made of it.
        inputs, clock: as for LifEngine.run.
        graded: lets lava-dl expect messages of 16 bits instead of spikes.

    Raises:
        NetxError: lava-dl cannot read the file.
        LavaRunError: a process failed, was killed or stalled.
    """
    values = sum(int(np.prod(shape)) for shape in (network.input_shape, *(layer.shape for layer in network.layers)))
    fits = max(1, _RUN_VALUES // (values * inputs.shape[1]))
    at_once = fits if clock == "local" and not network.has_delays else 1
    for start in range(0, len(inputs), at_once):
        yield _run(Path(path), network, inputs[start : start + at_once], clock, graded)


def _run(path: Path, network: LifNetwork, inputs: NDArray[np.integer], clock: Clock, graded: bool) -> Activity:
    samples, steps = inputs.shape[:2]
    schedule = Schedule(steps, 0, samples, samples)
    local = clock == "local"
    # The first layer is reset at its local step 1, the others one step later each.
    reset = {"reset_interval": steps, "reset_offset": network.places[0]} if local else {}
    lava_network = _build(path, network, {**reset, "input_message_bits": _GRADED_BITS if graded else 0})
    try:
        recorders = []
        for block, layer, place in zip(lava_network.layers, network.layers, network.places, strict=True):
            recorders.append(_Recorder(schedule, place if local else 0, layer.shape[::-1]))
            block.neuron.proc_params["recorder"] = recorders[-1]
            block.neuron.name = layer.name
        target = lava_network.in_layer.neuron.a_in if network.has_input_neurons else lava_network.inp
        sent = _as_sent(inputs, network.input_shape, target.shape)
        source = RingBuffer(data=sent)
        source.s_out.connect(target)
        models = {LIF: PyRecordedLif, LIFReset: PyRecordedLifReset}
        configuration = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
        last = recorders[-1]
        with GuardedRun(source, configuration, progress=lambda: int(last.step[0])) as guarded:
            guarded.run(samples * steps + (network.places[-1] if local else 0))
    finally:
        lava_network.net_config.f.close()
    return Activity(
        tuple(_channels_first(recorder.spikes) for recorder in recorders),
        tuple(_channels_first(recorder.potentials) for recorder in recorders),
    )


def load() -> type:
    """lava-dl's Network. Its import takes seconds, and prints what packages for other purposes are missing."""
    with redirect_stdout(StringIO()):
        from lava.lib.dl.netx.hdf5 import Network
    return Network


def _build(path: Path, network: LifNetwork, arguments: dict[str, int]) -> Any:
    """lava-dl's network of the file."""
    network_of_lava_dl = load()
    try:
        # It prints that it clips weights, and divides by zero where no weight is positive: both are in docs/lava_dl.md.
        with redirect_stdout(StringIO()), np.errstate(divide="ignore"):
            shape = None if network.has_input_neurons else network.input_shape[::-1]
            return network_of_lava_dl(net_config=str(path), input_shape=shape, **arguments)
    except Exception as error:  # lava-dl raises many kinds
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise NetxError(f"{path}: lava-dl's reader fails, so there is nothing to compare with: {message}") from None


def _as_sent(inputs: NDArray[np.integer], input_shape: tuple[int, ...], target: tuple[int, ...]) -> NDArray[np.int32]:
    """Inputs (N, T, *input_shape) in the order in which lava-dl takes them, all samples in a row, time last."""
    sequence = inputs.reshape(-1, *input_shape)
    if len(target) == 3:
        sequence = sequence.transpose(0, 3, 2, 1)
    return np.ascontiguousarray(np.moveaxis(sequence.reshape(-1, *target), 0, -1), np.int32)


def _channels_first(values: NDArray) -> NDArray:
    """(samples, T, W, H, C) as (samples, T, C, H, W)."""
    return values.transpose(0, 1, 4, 3, 2) if values.ndim == 5 else values
