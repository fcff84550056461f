"""The pipelined Lava network of an integer network, processes of whole layers, and its run configuration."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import deploy.lava.compatibility  # noqa: F401 — before Lava

import numpy as np
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg, RunConfig
from lava.utils import loihi
from numpy.typing import NDArray

from deploy.errors import Loihi2UnavailableError
from deploy.lava.guard import GuardedRun
from deploy.lava.models import PyBatchSource, group_model  # also imports PyTorch before anything is forked
from deploy.lava.placement import place
from deploy.lava.processes import BatchSource, IFNeuron, ImageSource, Integrator, LayerGroup
from deploy.lava.schedule import Recorder, Schedule, shared_array
from nqlava.engine.cpu import events, kernels
from nqlava.errors import InputError
from nqlava.network import IMAGE, IntegerNetwork
from nqlava.trace import Trace

_CHUNK_BYTES = 2**26
_CHUNK_SECONDS = 1.0
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
    stall_timeout: float = 600.0,
    on_progress: Callable[[int], None] | None = None,
) -> Generator[Trace, None, None]:
    """Runs ``network`` in Lava, and yields a Trace for every few batches of samples, in order.

    One runtime serves all samples: batches follow each other without draining the pipeline, and the run pauses only to
    hand over results, which bounds the memory.

    Args:
        network: what to run.
        images: uint8 (N, C, H, W); N need not be a multiple of ``batch``.
        steps: T.
        batch: samples in one message.
        gap: idle steps between batches.
        processes: over how many the layers are spread, at most; None for one per core.
        backend: "cpu"; "loihi2" is refused, since layers that hold whole batches exist only on a CPU
            (deploy/lava/netx_network.py builds the network from neurons and synapses).
        membranes: number of the first samples whose traces hold v(T), up to a whole number of batches.
        stall_timeout: seconds without a time step after which the run is given up.
        on_progress: called with the number of samples done.

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
    check_arguments(network, images, steps, batch, gap)
    processes = len(os.sched_getaffinity(0)) if processes is None else processes
    if processes < 1:
        raise InputError(f"processes is {processes}; allowed: at least 1")
    return _run(network, images, steps, batch, gap, processes, run_cfg, membranes, stall_timeout, on_progress)


def check_arguments(network: IntegerNetwork, images: NDArray[np.uint8], steps: int, batch: int, gap: int) -> None:
    """InputError naming the argument that is not valid."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != network.input_shape:
        found = f"{images.dtype} of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"images are {found}; allowed: uint8 of shape (N, {', '.join(map(str, network.input_shape))})")
    for name, value, low in (("steps", steps, 1), ("batch", batch, 1), ("gap", gap, 0)):
        if value < low:
            raise InputError(f"{name} is {value}; allowed: at least {low}")


def _run(
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    steps: int,
    batch: int,
    gap: int,
    processes: int,
    run_cfg: RunConfig,
    membranes: int,
    stall_timeout: float,
    on_progress: Callable[[int], None] | None,
) -> Generator[Trace, None, None]:
    if not len(images):
        return
    batch = min(batch, len(images))
    batches = -(-len(images) // batch)
    kept = -(-membranes // batch)
    schedule, chunk = plan(network, steps=steps, gap=gap, batch=batch, batches=batches, kept=kept)
    buffer = shared_array((chunk, batch, int(np.prod(network.input_shape))), np.uint8)
    recorders = make_recorders(network, schedule, batch, kept)
    kernels.load()
    events.load()
    source = BatchSource(images=buffer, schedule=schedule)
    run_cfg.exception_proc_model_map[source] = PyBatchSource  # or Lava would execute all of this package to find it
    ports: dict[str, OutPort] = {IMAGE: source.s_out}
    for group in _groups(network, processes, batch, recorders):
        run_cfg.exception_proc_model_map[group] = group_model(group)
        for name in group.incoming:
            ports[name].connect(group.port_of(name))
        ports |= {name: group.port_of(name) for name in group.outgoing}
    in_order = images.transpose(0, 2, 3, 1)  # a view: copied chunk by chunk
    yield from stream(source, run_cfg, network, in_order, schedule, buffer, recorders, stall_timeout, on_progress)


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


def plan(
    network: IntegerNetwork, *, steps: int, gap: int, batch: int, batches: int, kept: int = 0
) -> tuple[Schedule, int]:
    """The schedule, and the largest number of batches between two pauses; v(T) of ``kept`` batches is kept.

    While a chunk of m batches enters, the results of the ⌊(T + N) / P⌋ + 1 batches before it may still be in flight.
    """
    neurons = sum(int(np.prod(shape)) for shape in network.shapes)
    bits = steps + (32 if kept > 1 else 0)
    size = batch * (bits * neurons // 8 + int(np.prod(network.input_shape)))
    chunk = max(1, min(batches, _CHUNK_BYTES // size))
    slots = chunk + (steps + network.depth) // (steps + gap) + 1
    return Schedule(steps, gap, batches, slots), chunk


def make_recorders(network: IntegerNetwork, schedule: Schedule, batch: int, kept: int = 0) -> list[Recorder]:
    """One recorder per layer; they keep v(T) of the first ``kept`` batches."""
    return [
        Recorder(
            schedule,
            network.depth_of[layer.name],
            samples=batch,
            size=int(np.prod(network.shape_of[layer.name])),
            readout=layer.is_readout,
            kept=kept,
        )
        for layer in network.layers
    ]


def stream(
    source: ImageSource | BatchSource,
    run_cfg: RunConfig,
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    schedule: Schedule,
    buffer: NDArray[np.uint8],
    recorders: list[Recorder],
    stall_timeout: float,
    on_progress: Callable[[int], None] | None,
) -> Generator[Trace, None, None]:
    """Runs the network behind ``source`` chunk by chunk: fills ``buffer``, advances, and collects what is complete.

    The first chunk is one batch; chunks grow while they take less than _CHUNK_SECONDS, as far as ``buffer`` goes, so
    that results come soon and often, and the pauses between chunks cost little.

    ``images`` (N, ...) hold pixels in the order in which ``source`` reads them from ``buffer``, (slots, samples, ...).
    """
    longest, batch = buffer.shape[:2]
    pixels = buffer.reshape(longest, batch, *images.shape[1:])
    first = now = done = 0
    chunk = 1
    with GuardedRun(
        source, run_cfg, progress=lambda: int(recorders[-1].step[0]), stall_timeout=stall_timeout
    ) as guarded:
        while first < schedule.batches:
            last = min(first + chunk, schedule.batches)
            for index in range(first, last):
                part = images[index * batch : (index + 1) * batch]
                pixels[index % longest, : len(part)] = part
                pixels[index % longest, len(part) :] = 0
            end = schedule.total(network.depth) if last == schedule.batches else last * schedule.period
            began = time.monotonic()
            guarded.run(end - now)
            if time.monotonic() - began < _CHUNK_SECONDS:
                chunk = min(2 * chunk, longest)
            first = last
            now = end
            finished = schedule.finished(now, network.depth)
            if finished > done:
                kept = recorders[0].kept
                parts = [(done, min(finished, kept)), (max(done, kept), finished)]
                for begin, stop in parts:
                    if begin < stop:
                        samples = min(stop * batch, len(images)) - begin * batch
                        trace = _collect(network, recorders, np.arange(begin, stop), samples)
                        if on_progress is not None:
                            on_progress(min(stop * batch, len(images)))
                        yield trace
                done = finished


def _collect(network: IntegerNetwork, recorders: list[Recorder], batches: NDArray[np.intp], samples: int) -> Trace:
    """Copies the first ``samples`` samples of the batches, of all or none of which v(T) is kept."""

    def of_samples(values: NDArray) -> NDArray:
        found = values[batches % len(values)]  # (batches, samples of a batch, …)
        return found.reshape(-1, *found.shape[2:])[:samples]

    kept = batches[-1] < recorders[0].kept
    membranes = tuple(of_samples(r.membranes) for r in recorders if kept and r.membranes is not None)
    return Trace(
        shapes=network.shapes[:-1],
        spikes=tuple(of_samples(recorder.values) for recorder in recorders[:-1]),
        readout=of_samples(recorders[-1].values),
        saturations=np.stack([of_samples(recorder.saturations) for recorder in recorders]),
        membranes=membranes if len(membranes) == len(network.shapes) - 1 else None,
    )
