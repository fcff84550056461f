"""Run a netx file in Lava and check it against the reference: ``python -m deploy.run_lava net.h5 --T 4``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.errors import LavaMissingError, LavaRunError, Loihi2UnavailableError
from deploy.images import add_arguments, channels_first, check_steps, load_for, steps_for

EXIT_EXACT, EXIT_MISMATCH, EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
_BACKENDS = ("cpu", "netx", "stock", "loihi2")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.run_lava",
        description="Run test images through a netx file in Lava and compare every spike of every layer at every step, "
        "and the read-out, with the exact integer engine.",
        epilog="exit status: 0 exact; 1 a mismatch, or accuracy lost beyond the tolerance; 2 bad input; 3 Lava failed. "
        "example: python -m deploy.run_lava net.h5 --T 4 --samples 1000 --data cifar10-archives/",
    )
    parser.add_argument("net", type=Path, help="netx file written by export.to_netx")
    add_arguments(parser)
    parser.add_argument("--batch", type=int, default=16, help="images in one message (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    parser.add_argument(
        "--model",
        type=Path,
        help="the model file that was exported: the float SNN runs on the same images "
        "(without it, the drop measured at export on the calibration images counts)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="accuracy, in points, that may be lost against the float SNN (default: 0.5 + 30/√images)",
    )
    parser.add_argument(
        "--backend",
        choices=_BACKENDS,
        default="cpu",
        help="cpu: one Lava process per layer, with batches; netx: lava-dl's own reader and stock synapses, one image "
        "at a time; stock: neurons of Lava's own parts too; loihi2: a chip (default: %(default)s)",
    )
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, low, high in (("samples", 1, 10_000_000), ("batch", 1, 4096)):
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"--{name} is {getattr(options, name)}; allowed: {low}..{high}")
    check_steps(options.steps)
    if options.tolerance is not None and not options.tolerance >= 0:
        raise ValueError(f"--tolerance is {options.tolerance}; allowed: 0 or more")


def _run(options: argparse.Namespace) -> int:
    _check(options)
    from tqdm import tqdm

    from deploy.files import write_json
    from deploy.reference import float_accuracy
    from deploy.verify import backend_traces, verify
    from export import netx
    from train.checkpoint import check_writable

    if options.json is not None:
        check_writable(options.json, inputs=[options.net, options.model])
    network = netx.read(options.net)
    steps = steps_for(options.net, network, options.steps)
    data = load_for(options.net, network, options.data)
    if len(data.classes) != network.classes:
        raise ValueError(f"data: {len(data.classes)} classes; allowed: {network.classes} as {options.net}")
    data = data.sample(options.samples, options.seed)
    images = channels_first(data)
    expected = json.loads(str(network.info.get("classes", "null")))
    if expected is not None and expected != list(data.classes):
        raise ValueError(f"data: classes are {', '.join(data.classes)}; allowed: those of {options.net}")
    floating = float_accuracy(network, options.model, data, steps)
    print(
        f"{options.net}: {len(network.layers)} layers, network {network.digest()[:16]}; "
        f"{len(data)} test images, T = {steps}, backend {options.backend}",
        flush=True,
    )
    chunks = backend_traces(options.backend, options.net, network, images, steps, options.batch)
    with tqdm(total=len(data), unit="image", disable=None, leave=False) as bar:

        def progress(done: int, accuracy: float) -> None:
            bar.set_postfix(accuracy=f"{accuracy:.2f} %")
            bar.update(done - bar.n)

        verdict = verify(network, images, data.labels.numpy(), chunks, progress)
    width = max(map(len, verdict.layers))
    print(f"{'layer'.ljust(width)}  spikes per neuron and step  mismatches  saturations")
    rates = [f"{rate:.4f}" for rate in verdict.spike_rates] + ["read-out"]
    for row in zip(verdict.layers, rates, verdict.mismatches, verdict.saturations, strict=True):
        print(f"{row[0].ljust(width)}  {row[1]:>26}  {row[2]:>10,}  {row[3]:>11,}")
    print("accuracy after step     " + "".join(f"{step:>9}" for step in range(1, steps + 1)))
    for name, values in (("Lava", verdict.deployed), ("integer reference", verdict.reference)):
        print(f"  {name:<22}" + "".join(f"{value:>8.2f}%" for value in values))
    drop, tolerance = 0.0, options.tolerance
    if floating is None:
        print(f"not compared with the float SNN: the file does not hold its accuracy at T={steps}; give --model")
    else:
        drop = floating.drop(verdict.deployed[-1])
        tolerance = floating.default_tolerance if tolerance is None else tolerance
        print(f"{floating.describe()}; lost {drop:+.2f} points (tolerance {tolerance:.2f})")
    print(f"Lava: {verdict.seconds:.1f} s with its start, {len(data) / verdict.seconds:.1f} images/s")
    good = verdict.exact and (floating is None or drop <= tolerance)
    if not verdict.exact:
        print(f"NOT EXACT: {sum(verdict.mismatches):,} mismatches; the first: {verdict.first}")
    elif not good:
        print(f"EXACT, but {drop:.2f} points below the float SNN; allowed: {tolerance:.2f}")
    else:
        print(f"EXACT: every spike and every read-out of {len(data)} images equals the reference")
    if options.json is not None:
        write_json(
            options.json,
            {
                "net": str(options.net),
                "network_sha256": network.digest(),
                "backend": options.backend,
                "data": options.data,
                "seed": options.seed,
                "samples": verdict.samples,
                "T": steps,
                "exact": verdict.exact,
                "mismatches": dict(zip(verdict.layers, verdict.mismatches, strict=True)),
                "first_mismatch": None if verdict.first is None else str(verdict.first),
                "saturations": dict(zip(verdict.layers, verdict.saturations, strict=True)),
                "spikes_per_neuron_and_step": dict(zip(verdict.layers, verdict.spike_rates, strict=False)),
                "accuracy_lava": verdict.deployed,
                "accuracy_integer": verdict.reference,
                "accuracy_float_snn": floating and floating.snn,
                "accuracy_ann": floating and floating.ann,
                "float_accuracy_on": floating and floating.images,
                "points_lost": floating and drop,
                "tolerance": tolerance,
                "seconds": verdict.seconds,
                "images_per_second": verdict.samples / verdict.seconds,
            },
        )
    return EXIT_EXACT if good else EXIT_MISMATCH


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except (ValueError, OSError, LavaMissingError, Loihi2UnavailableError) as error:
        print(f"deploy.run_lava: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except LavaRunError as error:
        print(f"deploy.run_lava: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("\ndeploy.run_lava: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
