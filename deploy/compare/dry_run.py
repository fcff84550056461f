"""What deploy.run_lava would run."""

import os

import numpy as np

from deploy.compare.job import Job, Part
from deploy.compare.verify import backend_traces
from nqlava.network import IntegerNetwork


def plan(job: Job, network: IntegerNetwork, whole: Part, *, workers: int, scheduler: str | None) -> str:
    """The run in a few lines; ``workers`` and ``scheduler`` as the options of the command.

    A Lava network of depth N takes n·T + N steps for n batches (docs/semantics.md), for backend "stock" more: it has
    several processes for one layer.

    Raises:
        InputError, LavaMissingError, Loihi2UnavailableError: the backend cannot run this network here.
    """
    samples, steps = len(whole.images), job.steps
    if scheduler is None:
        backend_traces(job, network, whole).close()  # checks, and starts nothing
    networks = 1 if scheduler is not None else min(workers, samples)
    most = -(-samples // networks)
    together = min(job.batch, most) if job.backend == "cpu" else 1
    batches = -(-most // together)
    weights = sum(connection.weight.nbytes for layer in network.layers for connection in layer.connections)
    neurons = sum(int(np.prod(shape)) for shape in network.shapes)
    if scheduler is not None:
        where = f"parts of the images on the Dask cluster {scheduler}"
    else:
        where = f"{networks} Lava network{'s' if networks > 1 else ''} on {len(os.sched_getaffinity(0))} cores"
    lines = [
        f"runs: {where}, backend {job.backend}, {neurons:,} neurons in {len(network.layers)} layers",
        f"memory: images {_megabytes(whole.images.nbytes)}, weights {_megabytes(weights)} per network, spikes of a "
        f"batch {_megabytes(together * steps * neurons // 8)}; the whole is known after a run (docs/performance.md)",
        "dry run: nothing was run",
    ]
    if scheduler is None and job.backend != "stock":
        lines.insert(
            1,
            f"Lava steps: {batches * steps + network.depth:,} per network, {batches} "
            f"batch{'es' if batches > 1 else ''} of {together} with T = {steps}, and {network.depth} to end",
        )
    return "\n".join(lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
