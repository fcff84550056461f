"""The second way into Lava: the file itself, through lava-dl's own netx reader, as synapses and neurons.

lava-dl builds a Conv or Dense process and a neuron process per layer, for one sample at a time. It knows no neuron with
reset by subtraction, so its neuron lookup is extended while it reads. It reads sequences only: networks with shortcuts,
exponents or hard resets are refused. This is the network that a chip would get; it is much slower than
deploy/lava/build.py, and both must give the same Trace.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import RunConfig
from lava.proc.conv.process import Conv
from numpy.typing import NDArray

from deploy.compare.backends import require_lava_dl
from deploy.lava.build import run_configuration
from deploy.lava.convolution import PyExactConv
from deploy.lava.hardware import from_chip, to_chip
from deploy.lava.pipeline import Pipeline
from deploy.lava.processes import IFNeuron, ImageSource, Integrator, Probe
from deploy.lava.schedule import Recorder, Schedule
from nqlava.errors import InputError
from nqlava.network import IMAGE, IntegerNetwork
from nqlava.netx import INTEGRATOR, SPIKING, read
from nqlava.trace import Trace

_IMAGE_BITS, _POTENTIAL_BITS = 8, 24


def run(
    path: str | os.PathLike[str],
    images: NDArray[np.uint8],
    steps: int,
    *,
    gap: int = 0,
    backend: str = "cpu",
    process_models: Mapping[type[AbstractProcess], type[AbstractProcessModel]] | None = None,
    callbacks: Sequence[object] = (),
    stock_convolution: bool = False,
    membranes: int = 0,
) -> Generator[Trace, None, None]:
    """Runs the network in a netx file, read by lava-dl, and yields a Trace for every few samples, in order.

    Args:
        path: the file; nqlava.netx.read checks it first.
        images: uint8 (N, C, H, W).
        steps: T.
        gap: idle steps between samples.
        backend: "cpu" or "loihi2", with Lava's adapters at the ends (docs/loihi.md; never run on a chip).
        process_models: models for some processes, such as microcoded ones for IFNeuron and Integrator.
        callbacks: called by Lava around a run on a chip, such as its profilers; for "loihi2" only.
        stock_convolution: run Lava's own model of Conv, which computes in float32 and clips sums to 24 bits, instead
            of deploy.lava.convolution.PyExactConv.
        membranes: number of the first samples whose traces hold v(T); 0 with backend "loihi2", where nothing but
            messages leaves a chip.

    Raises:
        LavaMissingError: lava-dl is not installed; it needs Python 3.10.
        NetxError: an invalid file.
        InputError: a network that lava-dl's reader cannot build, or an invalid argument.
        Loihi2UnavailableError: backend "loihi2", and something is missing.
        LavaRunError: a process failed, was killed or stalled.
    """
    name = "netx" if backend == "cpu" else backend
    require_lava_dl(f"--backend {name}", "--backend cpu runs every network")
    chosen = dict(process_models or {})
    if backend == "cpu" and not stock_convolution:
        chosen.setdefault(Conv, PyExactConv)
    run_cfg = run_configuration(backend, chosen, callbacks=callbacks)
    network = read(path)
    _require_readable(network, name)
    on_chip = backend == "loihi2"
    if on_chip and membranes:
        raise InputError("membranes are asked for with backend loihi2; allowed: with backend cpu")
    pipeline = Pipeline(network, images, steps, gap=gap, membranes=membranes)
    return _run(os.fspath(path), network, pipeline, on_chip, run_cfg)


def _require_readable(network: IntegerNetwork, backend: str) -> None:
    """InputError where the network has what lava-dl's reader does not know."""
    before = (IMAGE, *(layer.name for layer in network.layers))
    for source, layer in zip(before, network.layers, strict=False):
        if layer.sources != (source,):
            found = f"is fed by {', '.join(layer.sources)}"
        elif len(layer.connections) > 1:
            found = f"has {len(layer.connections)} connections from {source}"
        elif layer.connections[0].exponent:
            found = f"has exponent {layer.connections[0].exponent}"
        elif layer.reset != "soft":
            found = f"has a {layer.reset} reset"
        else:
            continue
        raise InputError(
            f"--backend {backend}: layer {layer.name} {found}; allowed: one connection per layer, from the layer "
            "before it, with exponent 0, and soft reset; --backend cpu runs every network"
        )


def _run(
    path: str, network: IntegerNetwork, pipeline: Pipeline, on_chip: bool, run_cfg: RunConfig
) -> Generator[Trace, None, None]:
    schedule, recorders = pipeline.schedule, pipeline.recorders
    convolution = network.layers[0].is_convolution
    source = ImageSource(images=pipeline.buffer, schedule=schedule, transpose=convolution, flatten=not convolution)
    with _neurons_registered(recorders, schedule, on_chip):
        from lava.lib.dl.netx.hdf5 import Network

        lava_network = Network(net_config=path, input_message_bits=_IMAGE_BITS)
    for block, layer in zip(lava_network.layers, network.layers, strict=True):
        block.neuron.name, block.synapse.name = layer.name, f"synapses of {layer.name}"
    try:
        if on_chip:
            to_chip(source.s_out, _IMAGE_BITS).connect(lava_network.inp)
            _add_probes(lava_network.layers, network, recorders)
        else:
            source.s_out.connect(lava_network.inp)
        yield from pipeline.run(source, run_cfg)
    finally:
        lava_network.net_config.f.close()


def _add_probes(blocks: list[Any], network: IntegerNetwork, recorders: list[Recorder]) -> None:
    """Records what the neurons on a chip send, in Python processes, since their models there cannot."""
    neurons = [block.neuron for block in blocks]
    for neuron, shape, recorder in zip(neurons, network.shapes, recorders, strict=True):
        port = from_chip(neuron.s_out, _POTENTIAL_BITS if recorder.readout else 0)
        probe = Probe(shape=port.shape, layer_shape=shape, recorder=recorder)
        port.connect(probe.a_in)


@contextmanager
def _neurons_registered(recorders: list[Recorder], schedule: Schedule, on_chip: bool) -> Iterator[None]:
    """Lets lava-dl's reader create IFNeuron and Integrator neurons, and keeps it from changing dense weights.

    The reader asks for the neurons of the layers in order, so the l-th request is that of layer l. Its choice of a
    weight exponent fails for a matrix without positive weights; Lava's Dense is exact for every int8 matrix when it
    gets 2·w with exponent −1.
    """
    from lava.lib.dl.netx import hdf5
    from lava.lib.dl.netx.utils import SYNAPSE_SIGN_MODE, NetDict

    remaining = iter(recorders)

    def neuron_parameters(neuron: NetDict, **_: object) -> dict[str, object]:
        recorder = next(remaining)
        kind = neuron["type"]
        parameters = {
            "neuron_proc": {SPIKING: IFNeuron, INTEGRATOR: Integrator}[kind],
            "v0": neuron.f["v0"][()],
            "period": schedule.period,
            "phase": recorder.place + 1,
            "recorder": None if on_chip else recorder,
            "num_message_bits": 0 if kind == SPIKING else _POTENTIAL_BITS,
        }
        if kind == SPIKING:
            parameters["threshold"] = neuron["vThMant"]
        return parameters

    def doubled(weight: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, int, SYNAPSE_SIGN_MODE]:
        return 2 * weight, 8, -1, SYNAPSE_SIGN_MODE.MIXED

    with (
        patch.object(hdf5.Network, "get_neuron_params", staticmethod(neuron_parameters)),
        patch.object(hdf5, "optimize_weight_bits", doubled),
    ):
        yield
