"""What deploy.run_lava would run."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.verify import backend_traces
from export.network import IntegerNetwork


def plan(
    net: Path,
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    *,
    backend: str,
    steps: int,
    batch: int,
    workers: int,
    scheduler: str | None,
) -> str:
    """The run in a few lines; arguments as the options of the command.

    A Lava network of depth N takes n·T + N steps for n batches (docs/semantics.md), for backend "stock" more: it has
    several processes for one layer.

    Raises:
        InputError, LavaMissingError, Loihi2UnavailableError: the backend cannot run this network here.
    """
    samples = len(images)
    if scheduler is None:
        backend_traces(backend, net, network, images, steps, batch, 1).close()  # checks, and starts nothing
    networks = 1 if scheduler is not None else min(workers, samples)
    most = -(-samples // networks)
    together = min(batch, most) if backend == "cpu" else 1
    batches = -(-most // together)
    weights = sum(connection.weight.nbytes for layer in network.layers for connection in layer.connections)
    neurons = sum(int(np.prod(shape)) for shape in network.shapes)
    if scheduler is not None:
        where = f"parts of the images on the Dask cluster {scheduler}"
    else:
        where = f"{networks} Lava network{'s' if networks > 1 else ''} on {len(os.sched_getaffinity(0))} cores"
    lines = [
        f"runs: {where}, backend {backend}, {neurons:,} neurons in {len(network.layers)} layers",
        f"memory: images {_megabytes(images.nbytes)}, weights {_megabytes(weights)} per network, spikes of a batch "
        f"{_megabytes(together * steps * neurons // 8)}; the whole is not known before a run (docs/performance.md)",
        "dry run: nothing was run",
    ]
    if scheduler is None and backend != "stock":
        lines.insert(
            1,
            f"Lava steps: {batches * steps + network.depth:,} per network, {batches} "
            f"batch{'es' if batches > 1 else ''} of {together} with T = {steps}, and {network.depth} to end",
        )
    return "\n".join(lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
