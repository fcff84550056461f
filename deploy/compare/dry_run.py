"""What deploy.run_lava would run."""

import os
from math import prod

from deploy.compare.backends import traces
from deploy.compare.run import Run


def plan(run: Run) -> str:
    """The run in a few lines.

    A Lava network of depth N takes n·T + N steps for n batches (docs/semantics.md), for backend "stock" more: it has
    several processes for one layer.

    Raises:
        InputError, LavaMissingError, Loihi2UnavailableError: the backend cannot run this network here.
    """
    settings, network, images, steps = run.settings, run.network, run.data.pixels, run.settings.T
    if settings.scheduler is None:
        traces(settings, network, images).close()  # checks, and starts nothing
    networks = 1 if settings.scheduler is not None else min(settings.workers, len(images))
    most = -(-len(images) // networks)
    together = min(settings.batch, most) if settings.backend == "cpu" else 1
    batches = -(-most // together)
    weights = sum(connection.weight.nbytes for layer in network.layers for connection in layer.connections)
    neurons = sum(map(prod, network.shapes))
    if settings.scheduler is not None:
        where = f"parts of the images on the Dask cluster {settings.scheduler}"
    else:
        where = (
            f"{networks} {settings.target} network{'s' if networks > 1 else ''} on {len(os.sched_getaffinity(0))} cores"
        )
    lines = [
        f"runs: {where}, backend {settings.backend}, {neurons:,} neurons in {len(network.layers)} layers",
        f"memory: images {_megabytes(images.nbytes)}, weights {_megabytes(weights)} per network, spikes of a "
        f"batch {_megabytes(together * steps * neurons // 8)}; the whole is known after a run (docs/performance.md)",
        "dry run: nothing was run",
    ]
    if settings.scheduler is None and settings.backend not in ("stock", "c"):
        lines.insert(
            1,
            f"Lava steps: {batches * steps + network.depth:,} per network, {batches} "
            f"batch{'es' if batches > 1 else ''} of {together} with T = {steps}, and {network.depth} to end",
        )
    return "\n".join(lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
