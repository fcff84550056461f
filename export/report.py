"""What an export made, in numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from export.calibrate.calibrate import Loss
from nqlava.network import MEMBRANE_MAX


@dataclass(frozen=True)
class LayerReport:
    """One layer of the integer network; u = v + I + b within T steps, in integers.

    Attributes:
        name, shape: of the layer and its output.
        weights, bits: number and width of the weights.
        scale: least and largest weight scale Δ.
        threshold: least and largest θ; None for the read-out.
        worst: bound on |u| for any image (nqlava.bounds); at most 2²³ − 1 proves that 24 bits cannot saturate.
        low, high: least and largest u on the calibration images.
        error: of the input current, a share (export.round.calibration.output_errors).
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    bits: int
    scale: tuple[float, float]
    threshold: tuple[int, int] | None
    worst: int
    low: int
    high: int
    error: float

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
        layers: in order.
        steps, images: T, and the number of calibration images.
        ann, float_snn, integer_snn: accuracy in percent on the calibration images, the SNNs after T steps.
        rounding: how the weights were rounded.
        unused: modules that forward does not use.
        softmax: the softmax at the end that was left out; empty where there is none.
        grown: layers with more weights than the modules that were multiplied out to them: name, weights, the modules'.
        maxima: number of layers that take the maximum of spikes step by step.
        conversion: of a ReLU network.
    """

    layers: tuple[LayerReport, ...]
    steps: int
    images: int
    ann: float
    float_snn: float
    integer_snn: float
    rounding: str
    unused: tuple[str, ...] = ()
    softmax: str = ""
    grown: tuple[tuple[str, int, int], ...] = ()
    maxima: int = 0
    conversion: Conversion | None = None
