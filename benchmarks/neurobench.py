"""NeuroBench's metrics beside our own counts, on the same images: ``python -m benchmarks.neurobench net.h5``.

The integer network runs in NeuroBench's own Benchmark as PyTorch modules in float64, in which its counts are exact.
Every metric is an integer over all images, or follows from one, and has to equal ours after what the row says.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import machine
from benchmarks.markdown import table
from benchmarks.torch_modules import Neurons, TorchNetwork
from deploy.files import write_json
from deploy.fit.activity import measure
from deploy.fit.wiring import wire
from deploy.images import add_arguments, load_for
from nqlava import netx
from nqlava.command.files import check_output
from nqlava.command.parser import Parser
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from nqlava.info import Info
from nqlava.network import IMAGE, Connection, IntegerNetwork

_FLOAT64, _INT32, _INT8, _INT24 = 8, 4, 1, 3  # bytes


@dataclass(frozen=True)
class Row:
    """One metric, as a sum over all images.

    Attributes:
        name: of the metric.
        neurobench: what NeuroBench counts.
        ours: what ``deploy.fit`` or the file counts.
        steps: what ours becomes by NeuroBench's definition, one (description, integer added) after the other.
    """

    name: str
    neurobench: int
    ours: int
    steps: tuple[tuple[str, int], ...] = ()

    @property
    def agrees(self) -> bool:
        return self.ours + sum(change for _, change in self.steps) == self.neurobench


def run_neurobench(
    network: IntegerNetwork, images: NDArray[np.uint8], labels: NDArray[np.int64], steps: int, batch: int
) -> dict[str, Any]:
    """The results of NeuroBench's Benchmark for images (N, C, H, W) over T = ``steps`` steps, ``batch`` at a time."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, ClassificationAccuracy, SynapticOperations
    from neurobench.models import TorchModel

    model = TorchModel(TorchNetwork(network, steps))
    model.add_activation_module(Neurons)
    loader = DataLoader(TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)), batch_size=batch)
    metrics = [
        [Footprint, ParameterCount, ConnectionSparsity],
        [ClassificationAccuracy, ActivationSparsity, SynapticOperations],
    ]
    benchmark = Benchmark(model, loader, [], [lambda scores: scores.argmax(dim=-1)], metrics)
    with redirect_stdout(sys.stderr):  # a metric that fails prints why, and counts 0
        return benchmark.run()


def compare(
    network: IntegerNetwork, images: NDArray[np.uint8], labels: NDArray[np.int64], steps: int, batch: int = 4
) -> tuple[list[Row], dict[str, Any]]:
    """All metrics beside ours, and NeuroBench's own results; arguments as of ``run_neurobench``."""
    found = run_neurobench(network, images, labels, steps, batch)
    count = len(images)
    wired = wire(network)
    activity = measure(network, wired, images, steps)
    correct = int((Engine(network).classify(images, steps)[:, -1] == labels).sum())
    neurons = sum(layer.neurons for layer in activity.layers[:-1]) * count * steps
    synapses = sum(wiring.synapses for several in wired.values() for wiring in several)
    parameters = sum(c.weight.size for layer in network.layers for c in layer.connections)
    zeros = sum(int((c.weight == 0).sum()) for layer in network.layers for c in layer.connections)
    per_neuron = sum(
        value.size for layer in network.layers for value in (layer.bias, layer.threshold, layer.v0) if value is not None
    )
    unused, unused_image = (
        sum(
            over_zero_weights(c, activity.counts[c.source])
            for layer in network.layers
            for c in layer.connections
            if (c.source == IMAGE) == image
        )
        for image in (False, True)
    )
    operations: Mapping[str, float] = found["SynapticOperations"]
    image = activity.image_operations
    macs = (("the image at every step", (steps - 1) * image), ("pixels over weights of 0", -steps * unused_image))
    wider = (
        ("weights in float64", (_FLOAT64 - _INT8) * parameters),
        ("biases, thresholds and v(0) in int32", (_INT32 - _INT24) * per_neuron),
    )
    theirs = {name: round(value * count) for name, value in operations.items()}
    every_step = (("at every step", (steps - 1) * synapses * count),)
    return [
        Row("correct images", round(found["ClassificationAccuracy"] * count), correct),
        Row("spikes", neurons - round(found["ActivationSparsity"] * neurons), activity.spikes),
        Row("effective ACs", theirs["Effective_ACs"], activity.operations, (("spikes over weights of 0", -unused),)),
        Row("effective MACs", theirs["Effective_MACs"], image, macs),
        Row("dense operations", theirs["Dense"], synapses * count, every_step),
        Row("weights", found["ParameterCount"], parameters),
        Row("weights of 0, in 10,000", round(found["ConnectionSparsity"] * 10_000), round(10_000 * zeros / parameters)),
        Row("footprint, bytes", found["Footprint"], _INT8 * parameters + _INT24 * per_neuron, wider),
    ], found


def over_zero_weights(connection: Connection, counts: NDArray[np.int64]) -> int:
    """Events that meet a weight of 0: such weights are synapses to us, and no operations to NeuroBench.

    Args:
        connection: from a source.
        counts: events of every neuron of the source, as ``deploy.fit.activity`` has them.
    """
    zero = torch.from_numpy(connection.weight == 0).double()
    events = torch.from_numpy(counts).double()
    if not connection.is_convolution:
        return int(F.linear(events.flatten(), zero).sum())
    return int(F.conv2d(events[None], zero, None, *connection.geometry).sum())


def report(rows: Sequence[Row], samples: int) -> str:
    """The rows in Markdown, with sums over all images."""
    lines = []
    for row in rows:
        how = "; ".join(f"{what}: {change:+,}" for what, change in row.steps if change) or "as it is"
        agrees = "yes" if row.agrees else "NO"
        lines.append([row.name, f"{row.neurobench:,}", f"{row.ours:,}", how, agrees])
    return f"Sums over {samples} images.\n\n" + table(
        ["metric", "NeuroBench", "ours", "ours by its definition", "equal"], lines
    )


def _parser() -> Parser:
    parser = Parser(
        "benchmarks.neurobench",
        "Run an integer network in NeuroBench's harness, and compare its metrics with our own counts.",
        ["benchmarks.neurobench net.h5 --T 4 --samples 100"],
        notes="Exit status: 0 all equal; 1 some metric differs; 2 bad input.",
    )
    parser.add_argument("net", type=Path, help="netx file written by export.to_netx")
    add_arguments(parser)
    parser.add_argument("--batch", type=int, default=4, help="images at once (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.samples < 1 or options.batch < 1:
        raise InputError(f"--samples {options.samples} --batch {options.batch}: both must be at least 1")
    if options.json is not None:
        check_output(options.json, inputs=[options.net])
    settings = machine.describe()
    network = netx.read(options.net)
    steps = Info.of(network.info).steps_or(options.steps)
    data = load_for(options.net, network, options.data).sample(options.samples, options.seed)
    try:
        rows, found = compare(network, data.pixels, data.labels.numpy(), steps, options.batch)
    except ModuleNotFoundError as error:
        raise InputError(f"{error}: install NeuroBench as docs/fit.md says") from None
    print(report(rows, len(data)))
    if options.json is not None:
        run: dict[str, Any] = {"samples": len(data), "steps": steps, "data": options.data, "seed": options.seed}
        written = [asdict(row) | {"equal": row.agrees} for row in rows]
        run |= {"machine": settings, "network": network.digest(), "rows": written, "results": found}
        write_json(options.json, run)
    return 0 if all(row.agrees for row in rows) else 1


def main(argv: Sequence[str] | None = None) -> int:
    return _parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
