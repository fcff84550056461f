"""The pipelined Lava network of an integer network, processes of whole layers, and its run configuration."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg, RunConfig
from lava.utils import loihi
from numpy.typing import NDArray

from deploy.errors import Loihi2UnavailableError
from deploy.lava.models import PyBatchSource, group_model  # also imports PyTorch before anything is forked
from deploy.lava.pipeline import Pipeline
from deploy.lava.placement import place
from deploy.lava.processes import BatchSource, IFNeuron, Integrator, LayerGroup
from deploy.lava.schedule import Recorder
from nqlava.engine.cpu import events, kernels
from nqlava.errors import InputError
from nqlava.network import IMAGE, IntegerNetwork
from nqlava.trace import Trace

BACKENDS = ("cpu", "loihi2")


def run_configuration(
    backend: str,
    process_models: Mapping[type[AbstractProcess], type[AbstractProcessModel]] | None = None,
    *,
    callbacks: Sequence[object] = (),
) -> RunConfig:
    """Lava's configuration for "cpu" (simulation) or "loihi2" (a chip; this path was never run on one).

    Args:
        backend: "cpu" or "loihi2".
        process_models: models for some processes, such as microcoded NcProcessModels for IFNeuron and Integrator.
        callbacks: callback_fxs of Loihi2HwCfg, such as the profilers of lava.utils.loihi2_profiler.

    Raises:
        Loihi2UnavailableError: what "loihi2" needs is missing.
        InputError: another backend, or callbacks for "cpu".
    """
    chosen = dict(process_models or {})
    if backend == "cpu":
        if callbacks:
            raise InputError("callbacks are given; allowed: none with backend cpu, as only a chip calls them")
        return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=chosen)
    if backend != "loihi2":
        raise InputError(f"backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
    if not loihi.is_installed():
        raise Loihi2UnavailableError(
            "Loihi 2 is not available: Intel's Loihi extension of Lava is not installed; join Intel's neuromorphic "
            "research community (INRC) for the extension and a Loihi 2 system, or use backend cpu"
        )
    missing = " and ".join(process.__name__ for process in (IFNeuron, Integrator) if process not in chosen)
    if missing:
        raise Loihi2UnavailableError(
            f"Loihi 2 needs a microcoded NcProcessModel for {missing}, which only members of Intel's research "
            "community can build; pass it in process_models, or use backend cpu"
        )
    return Loihi2HwCfg(exception_proc_model_map=chosen, callback_fxs=list(callbacks))


def run(
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    steps: int,
    *,
    batch: int = 64,
    gap: int = 0,
    processes: int | None = None,
    backend: str = "cpu",
    membranes: int = 0,
) -> Generator[Trace, None, None]:
    """Runs ``network`` in Lava, and yields a Trace for every few batches of samples, in order.

    Args:
        network: what to run.
        images, steps, batch, gap, membranes: as of deploy.lava.pipeline.Pipeline.
        processes: over how many the layers are spread, at most; None for one per core.
        backend: "cpu"; "loihi2" is refused, since layers that hold whole batches exist only on a CPU
            (deploy/lava/netx_network.py builds the network from neurons and synapses).

    Raises:
        InputError: an invalid argument.
        Loihi2UnavailableError: backend "loihi2".
        LavaRunError: a process failed, was killed or stalled.
    """
    if backend == "loihi2" and loihi.is_installed():
        raise Loihi2UnavailableError(
            "backend cpu runs whole layers with batches inside, which no chip has; deploy.lava.netx_network runs the "
            "network as synapses and neurons with backend loihi2"
        )
    run_cfg = run_configuration(backend)
    processes = len(os.sched_getaffinity(0)) if processes is None else processes
    if processes < 1:
        raise InputError(f"processes is {processes}; allowed: at least 1")
    pipeline = Pipeline(network, images, steps, batch=batch, gap=gap, membranes=membranes, channels_last=True)
    return _run(network, pipeline, processes, run_cfg)


def _run(
    network: IntegerNetwork, pipeline: Pipeline, processes: int, run_cfg: RunConfig
) -> Generator[Trace, None, None]:
    kernels.load()
    events.load()
    slots, batch = pipeline.buffer.shape[:2]
    source = BatchSource(images=pipeline.buffer.reshape(slots, batch, -1), schedule=pipeline.schedule)
    run_cfg.exception_proc_model_map[source] = PyBatchSource  # or Lava would execute all of this package to find it
    ports: dict[str, OutPort] = {IMAGE: source.s_out}
    for group in _groups(network, processes, batch, pipeline.recorders):
        run_cfg.exception_proc_model_map[group] = group_model(group)
        for name in group.incoming:
            ports[name].connect(group.port_of(name))
        ports |= {name: group.port_of(name) for name in group.outgoing}
    yield from pipeline.run(source, run_cfg)


def _groups(
    network: IntegerNetwork, processes: int, samples: int, recorders: Sequence[Recorder]
) -> Iterator[LayerGroup]:
    """The processes of all layers, in order, not connected yet."""
    for part in place(network, processes, samples):
        layers = network.layers[part]
        outside = [layer for layer in network.layers if layer not in layers]
        yield LayerGroup(
            layers=layers,
            samples=samples,
            shapes=network.shape_of,
            depths=network.depth_of,
            recorders=recorders[part],
            outgoing=[layer.name for layer in layers if any(layer.name in other.sources for other in outside)],
        )
