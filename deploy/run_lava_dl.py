"""Run a network of lava-dl without Lava: ``python -m deploy.run_lava_dl network.net inputs.npy --out outputs.npz``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deploy.compare.settings import EXIT_EXACT, EXIT_MISMATCH, FAILURES
from nqlava.command.parser import Parser
from nqlava.errors import InputError
from nqlava.info import Info

if TYPE_CHECKING:
    from deploy.lava_dl.check import Comparison
    from deploy.lava_dl.engine import Activity, LifEngine
    from deploy.lava_dl.reader import LifNetwork

_VALUES = 2**25
"""Values per step and neuron that are held at once."""
_ALL = 2**31


def _samples(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _ALL:
        raise argparse.ArgumentTypeError(
            f"{text!r}; allowed: a number of samples, or nothing and then not before a file"
        )
    return int(text)


def parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "deploy.run_lava_dl",
        "Run a netx file of lava-dl (SLAYER's export_hdf5; CUBA neurons, dense and conv layers) in an exact integer "
        "engine, and with --check in lava-dl's own network in Lava's CPU simulator beside it.",
        [
            "deploy.run_lava_dl network.net spikes.npy --out outputs.npz",
            "deploy.run_lava_dl network.net images.npy --T 16 --check 4",
        ],
        "exit status: 0 done, and exact where checked; 1 a mismatch; 2 bad input; 3 Lava failed; 70 an internal error; "
        "130 interrupted, 143 ended by SIGTERM",
    )
    parser.add_argument("net", type=Path, help="netx file written by lava-dl's export_hdf5")
    parser.add_argument(
        "inputs",
        type=Path,
        help="a .npy file, or a .npz file with one array: (N, C, H, W, T) or (N, F, T) in SLAYER's order, time last; "
        "or without time, then every step gets the same and --T is needed. 0 and 1, or integers with --graded or "
        "for input neurons",
    )
    parser.add_argument("--T", type=int, dest="steps", help="time steps per sample (default: all in the inputs)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write spikes and potentials of the last layer, time last, to FILE (.npz)",
    )
    parser.add_argument("--graded", action="store_true", help="inputs are graded spikes, integers of 16 bits")
    parser.add_argument(
        "--clock",
        choices=("local", "global"),
        default="local",
        help="local: every layer's own steps, at rest before the first, as with lava-dl's reset_interval; global: "
        "Lava's time steps, all layers at rest before t = 1, as in SLAYER (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        type=_samples,
        nargs="?",
        const=_ALL,
        metavar="N",
        help="also run the first N samples (default: all) in lava-dl's own network in Lava, and compare every spike "
        "and membrane potential of every layer; needs Lava",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    Info().steps_or(options.steps)
    from deploy.arrays import load_array, whole_numbers, write_arrays
    from deploy.compare.backends import require_lava, require_lava_dl
    from deploy.lava_dl import reader as lava_dl
    from deploy.lava_dl.engine import LifEngine
    from nqlava.command.files import check_output

    if options.out is not None:
        check_output(options.out, inputs=[options.net, options.inputs])
    if options.check is not None:
        require_lava()
        require_lava_dl("--check", "without it every network runs")
    array = whole_numbers(options.inputs, load_array(options.inputs))
    network = lava_dl.read(options.net, tuple(array.shape[1:4]) if array.ndim in (4, 5) else None)
    engine = LifEngine(network, graded=options.graded)
    try:
        engine.check_clock(options.clock)
    except InputError as error:
        raise InputError(f"{options.net}: {error}") from None
    try:
        inputs = time_second(array, network.input_shape, options.steps)
        engine.check(inputs)
    except InputError as error:
        raise InputError(f"{options.inputs}: {error}") from None
    print(_heading(options, network, inputs), flush=True)
    outcome = _evaluate(options, engine, inputs)
    print(_table(network, outcome.counts / (inputs.shape[0] * inputs.shape[1])))
    steps = inputs.shape[0] * inputs.shape[1]
    print(f"engine: {outcome.seconds:.3f} s, {1e3 * outcome.seconds / steps:.3f} ms per sample and step")
    if options.out is not None:
        write_arrays(options.out, {"spikes": outcome.spikes, "potentials": outcome.potentials})
        print(f"{options.out}: spikes and potentials of layer {network.layers[-1].name}, {outcome.spikes.shape}")
    return EXIT_EXACT if outcome.comparison is None else _verdict(outcome)


@dataclass
class _Outcome:
    """What came out.

    Attributes:
        counts: spikes per layer.
        spikes, potentials: of the last layer, (N, *shape, T); empty where they are not asked for.
        seconds: in the engine.
        comparison: with lava-dl's network, or None.
        lava_seconds: in Lava, its start included.
    """

    counts: NDArray[np.int64]
    spikes: NDArray[np.uint8]
    potentials: NDArray[np.int32]
    seconds: float = 0.0
    comparison: "Comparison | None" = None
    lava_seconds: float = 0.0


def _evaluate(options: argparse.Namespace, engine: "LifEngine", inputs: NDArray[np.integer]) -> _Outcome:
    """Runs all samples, some at a time, and those to be checked in Lava too."""
    from nqlava.command.progress import progress

    network = engine.network
    steps = inputs.shape[1]
    shape = (len(inputs) if options.out is not None else 0, *network.layers[-1].shape, steps)
    counts = np.zeros(len(network.layers), np.int64)
    outcome = _Outcome(counts, np.empty(shape, np.uint8), np.empty(shape, np.int32))
    checked = 0
    if options.check is not None:
        from deploy.lava import lava_dl_network
        from deploy.lava_dl.check import Comparison

        lava_dl_network.load()  # not counted as its time; and before tqdm, which would choose how processes start
        outcome.comparison = Comparison(network)
        checked = min(options.check, len(inputs))
    engine.run(inputs[:1, :1], options.clock)  # compiles
    at_once = max(1, _VALUES // (steps * sum(int(np.prod(layer.shape)) for layer in network.layers)))
    with progress(len(inputs), "samples", "engine") as bar:
        for start in range(0, len(inputs), at_once):
            part = slice(start, min(start + at_once, len(inputs)))
            began = time.monotonic()
            activity = engine.run(inputs[part], options.clock)
            outcome.seconds += time.monotonic() - began
            outcome.counts += [int(spikes.sum()) for spikes in activity.spikes]
            if options.out is not None:
                outcome.spikes[part] = np.moveaxis(activity.spikes[-1], 1, -1)
                outcome.potentials[part] = np.moveaxis(activity.potentials[-1], 1, -1)
            if start < checked:
                _compare(options, outcome, activity, inputs[start : min(part.stop, checked)])
            bar.update(part.stop - start)
    return outcome


def _compare(options: argparse.Namespace, outcome: _Outcome, activity: "Activity", inputs: NDArray[np.integer]) -> None:
    """Runs ``inputs`` in Lava and compares with the beginning of ``activity``."""
    from deploy.lava import lava_dl_network

    comparison = outcome.comparison
    assert comparison is not None
    done = 0
    began = time.monotonic()
    runs = lava_dl_network.run(options.net, comparison.network, inputs, options.clock, graded=options.graded)
    for lava in runs:
        outcome.lava_seconds += time.monotonic() - began
        samples = len(lava.spikes[0])
        comparison.add(lava, activity.samples(slice(done, done + samples)))
        done += samples
        began = time.monotonic()


def time_second(array: NDArray, input_shape: tuple[int, ...], steps: int | None) -> NDArray:
    """Inputs (N, *input_shape, T), or (N, *input_shape) for the same at ``steps`` steps, as (N, T, *input_shape).

    Raises:
        InputError: inputs of another shape, or steps that they do not have.
    """
    sizes = ", ".join(map(str, input_shape))
    if array.shape[1:] == input_shape and len(array):
        if steps is None:
            raise InputError(f"inputs are of shape {array.shape}, without time; allowed: with --T, or (N, {sizes}, T)")
        return np.broadcast_to(array[:, None], (len(array), steps, *input_shape))
    if array.shape[1:-1] != input_shape or not array.size:
        raise InputError(f"inputs are of shape {array.shape}; allowed: (N, {sizes}, T), or (N, {sizes}) with --T")
    if steps is not None and steps > array.shape[-1]:
        raise InputError(f"--T is {steps}; allowed: 1..{array.shape[-1]}, the steps in the inputs")
    return np.moveaxis(array[..., :steps], -1, 1)


def _heading(options: argparse.Namespace, network: "LifNetwork", inputs: NDArray[np.integer]) -> str:
    """What is run, and what to know about it."""
    from deploy.lava_dl.engine import is_changed

    shape = ", ".join(map(str, network.input_shape))
    lines = [
        f"{options.net}: {len(network.layers)} layers of lava-dl behind an input ({shape}); "
        f"{len(inputs)} samples, T = {inputs.shape[1]}, {options.clock} clock"
    ]
    if network.transform is not None:
        weight, bias = network.transform
        lines.append(
            f"note: inputs are the currents of the input neurons; training scaled images with weight {weight:g} "
            f"and bias {bias:g}, which neither lava-dl nor this command does"
        )
    lines += [
        f"note: layer {layer.name}: Lava's synapses hold other weights than the file (docs/lava_dl.md, Synapses)"
        for layer in network.layers
        if is_changed(layer)
    ]
    return "\n".join(lines)


def _table(network: "LifNetwork", counts: NDArray[np.float64]) -> str:
    """Parameters of the layers, and ``counts`` spikes per step as a rate of each neuron."""
    rows = [("layer", "neurons", "iDecay", "vDecay", "threshold", "delay", "spikes per neuron and step")]
    for layer, count in zip(network.layers, counts, strict=True):
        rows.append(
            (
                layer.name,
                " x ".join(map(str, layer.shape)),
                _range(layer.current_decay),
                _range(layer.voltage_decay),
                str(layer.threshold),
                "-" if layer.delay is None else _range(layer.delay),
                f"{count / np.prod(layer.shape):.4f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _range(values: NDArray[np.int64]) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low}..{high}"


def _verdict(outcome: _Outcome) -> int:
    comparison = outcome.comparison
    assert comparison is not None
    print(f"lava-dl in Lava: {outcome.lava_seconds:.1f} s with its start, for {comparison.samples} samples")
    if comparison.exact:
        print(
            f"EXACT: every spike and every membrane potential of all {len(comparison.network.layers)} layers of "
            f"{comparison.samples} samples equals lava-dl's network in Lava"
        )
        return EXIT_EXACT
    print(
        f"NOT EXACT: {sum(comparison.spikes):,} spikes and {sum(comparison.potentials):,} membrane potentials differ; "
        f"the first (expected: lava-dl in Lava), a {comparison.first_is}: {comparison.first}"
    )
    return EXIT_MISMATCH


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv, FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
