"""What export.to_netx says about the network it made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from export.calibrate.calibrate import Loss
from nqlava.network import MEMBRANE_MAX

_HEADER = ("layer", "output", "weights", "bits", "scale Δ", "threshold θ", "worst |u|", "calibrated u", "error")
_LOSS = 2.0  # points of accuracy that are worth a word


@dataclass(frozen=True)
class MembraneRange:
    """Bounds on u = v + I + b of one layer within T steps, in integers.

    Attributes:
        name: of the layer.
        worst: bound on |u| for any image (nqlava.bounds); at most 2²³ − 1 proves that 24 bits cannot saturate.
        low, high: least and largest u on the calibration images.
    """

    name: str
    worst: int
    low: int
    high: int

    @property
    def may_saturate(self) -> bool:
        """Whether the bound leaves it open."""
        return self.worst > MEMBRANE_MAX

    @property
    def calibrated(self) -> int:
        """Largest |u| on the calibration images."""
        return max(-self.low, self.high)

    @property
    def margin_bits(self) -> float:
        """log2 of the limit over the calibrated maximum: how many times u may double."""
        return math.log2(MEMBRANE_MAX / max(1, self.calibrated))

    @property
    def margin_percent(self) -> float:
        """Share of the range that the calibrated maximum leaves unused."""
        return 100 * (1 - self.calibrated / MEMBRANE_MAX)


@dataclass(frozen=True)
class Conversion:
    """What a ReLU network loses on its way to an integer SNN.

    Attributes:
        count, images: number and kind of the images that the accuracies, all in percent, are for.
        relu: of the ReLU network.
        quantized: with T levels in place of every ReLU.
        integer: of the integer SNN, by T.
        losses: per layer, on the calibration images.
    """

    count: int
    images: str
    relu: float
    quantized: float
    integer: Mapping[int, float]
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class Report:
    """Result of an export.

    Attributes:
        rows: per layer its name, output shape, weights, bits, range of Δ and of θ, worst-case |u|, calibrated range of
            u and error of its input current (export.round.calibration.output_errors, in percent).
        ann, float_snn, integer_snn: accuracy in percent on the calibration images, the SNNs after T steps.
        ranges: per layer.
        rounding: how the weights were rounded.
        remarks: what else a user should know about the lowering.
        conversion: of a ReLU network.
    """

    rows: tuple[tuple[str, ...], ...]
    ann: float
    float_snn: float
    integer_snn: float
    ranges: tuple[MembraneRange, ...]
    rounding: str
    remarks: tuple[str, ...] = ()
    conversion: Conversion | None = None

    @property
    def saturating(self) -> tuple[str, ...]:
        """Names of the layers whose worst case exceeds 24 bits."""
        return tuple(r.name for r in self.ranges if r.may_saturate)


def describe(report: Report, steps: int, count: int) -> str:
    """The report of an export for T = ``steps``, calibrated on ``count`` images, as text."""
    header = [f"{title}, T={steps}" if title.startswith("worst") else title for title in _HEADER]
    rows: list[Sequence[str]] = [header, *report.rows]
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
    if report.saturating:
        lines.append(f"24 bits may saturate for some image in: {', '.join(report.saturating)}")
        lines += [
            f"  {r.name}: worst case {r.worst:,}, calibrated max |u| {r.calibrated:,}: {r.margin_bits:.1f} bits "
            f"({r.margin_percent:.1f} %) below the limit {MEMBRANE_MAX:,}"
            for r in report.ranges
            if r.may_saturate
        ]
    else:
        lines.append(f"no layer can saturate at 24 bits (limit {MEMBRANE_MAX:,}) within {steps} steps")
    lines.append(
        f"{count} calibration images: ANN {report.ann:.2f} %, float SNN T={steps} {report.float_snn:.2f} %, "
        f"integer SNN T={steps} {report.integer_snn:.2f} %; rounding: {report.rounding}"
    )
    lines += report.remarks
    return "\n".join([*lines, *(_lost(report.conversion, steps) if report.conversion is not None else [])])


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
            "training with NQ in place of ReLU"
        )
    return lines
