"""What the export commands say of the network that they made."""

import math
from collections.abc import Sequence
from pathlib import Path

from export.report import Conversion, LayerReport, Report
from nqlava import netx
from nqlava.network import MEMBRANE_MAX, IntegerNetwork

_HEADER = ("layer", "output", "weights", "bits", "scale Δ", "threshold θ", "worst |u|", "calibrated u", "error")
_LOSS = 2.0  # points of accuracy that are worth a word
_SHOWN = 5  # layers that a line names


def describe(report: Report) -> str:
    """The report of an export as a table and lines below it."""
    steps = report.steps
    header = [f"{title}, T={steps}" if title.startswith("worst") else title for title in _HEADER]
    rows: list[Sequence[str]] = [header, *map(_row, report.layers)]
    if report.conversion is not None:
        losses = {loss.name: (loss.quantized, loss.spikes) for loss in report.conversion.losses}
        lost = [[f"{100 * loss:.1f} %" for loss in losses[row[0]]] if row[0] in losses else ["", ""] for row in rows]
        lost[0] = [f"lost by {steps} levels", "by spikes"]
        rows = [[*row, *more] for row, more in zip(rows, lost, strict=True)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    saturating = [layer for layer in report.layers if layer.may_saturate]
    if saturating:
        lines.append(f"24 bits may saturate for some image in: {', '.join(layer.name for layer in saturating)}")
        lines += [
            f"  {r.name}: worst case {r.worst:,}, calibrated max |u| {r.calibrated:,}: {r.margin_bits:.1f} bits "
            f"({r.margin_percent:.1f} %) below the limit {MEMBRANE_MAX:,}"
            for r in saturating
        ]
    else:
        lines.append(f"no layer can saturate at 24 bits (limit {MEMBRANE_MAX:,}) within {steps} steps")
    lines.append(
        f"{report.images} calibration images: ANN {report.ann:.2f} %, float SNN T={steps} {report.float_snn:.2f} %, "
        f"integer SNN T={steps} {report.integer_snn:.2f} %; rounding: {report.rounding}"
    )
    lines += _remarks(report)
    return "\n".join([*lines, *(_lost(report.conversion, steps) if report.conversion is not None else [])])


def _row(layer: LayerReport) -> tuple[str, ...]:
    return (
        layer.name,
        "x".join(map(str, layer.shape)),
        f"{layer.weights:,}",
        str(layer.bits),
        f"{layer.scale[0]:.3g}..{layer.scale[1]:.3g}",
        "read-out" if layer.threshold is None else f"{layer.threshold[0]}..{layer.threshold[1]}",
        f"{layer.worst:,}",
        f"{layer.low:,}..{layer.high:,}",
        f"{100 * layer.error:.2g} %",
    )


def _remarks(report: Report) -> list[str]:
    """What was left out, and layers that have more weights than the modules that were multiplied out to them."""
    found = []
    if report.unused:
        found.append(f"left out, as forward does not use them: {_first(report.unused)}")
    if report.softmax:
        found.append(f"{report.softmax} at the end is left out: the largest score stays the largest")
    if report.grown:
        grown = [f"{name} {made:,} of {of:,}" for name, made, of in report.grown]
        found.append(
            "without an activation between them, modules are multiplied out; layers with more weights than their "
            f"modules: {_first(grown)}"
        )
    if report.maxima:
        found.append(
            f"{report.maxima} layers take the maximum of spikes step by step, which exceeds that of their rates"
        )
    return found


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def describe_plan(network: IntegerNetwork, out: Path) -> str:
    """What an export would write to a file."""
    weights = sum(connection.weight.size for layer in network.layers for connection in layer.connections)
    neurons = sum(math.prod(shape) for shape in network.shapes)
    return (
        f"network: {len(network.layers)} layers, {neurons:,} neurons, {weights:,} weights\n"
        f"writes: {out}, netx version {netx.version_of(network)}{', replacing it' if out.exists() else ''}\n"
        "dry run: nothing was written"
    )


def _lost(made: Conversion, steps: int) -> list[str]:
    """Accuracies of a ReLU network, and what to do about what is lost."""
    accuracies = ", ".join(f"T={t} {share:.2f} %" for t, share in made.integer.items())
    lines = [
        f"{made.count} {made.images}: ReLU network {made.relu:.2f} %, with {steps} levels {made.quantized:.2f} %, "
        f"integer SNN {accuracies}"
    ]
    lost = made.relu - made.integer[steps]
    if lost > _LOSS:
        where = "levels" if made.relu - made.quantized > lost / 2 else "spikes that come unevenly"
        lines.append(
            f"{lost:.1f} points are lost at T={steps}, most of them by {where}; a larger T loses less, and so does "
            "a training of some epochs, --fine-tune 3"
        )
    return lines
