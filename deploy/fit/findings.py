"""What a chip cannot do for a network besides holding it: register widths, delays, neurons and inputs it lacks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.fit.chips import Chip
from nqlava.network import IMAGE, IntegerNetwork, Layer

THRESHOLD_MANTISSA = 2**17 - 1
THRESHOLD_SHIFT = 6
BIAS_MANTISSA = (-(2**12), 2**12 - 1)
BIAS_EXPONENT = 7
WEIGHT_EXPONENT = 7
"""Loihi 1: threshold = mantissa · 2⁶, bias = mantissa · 2^(0 … 7) (Davies), both in units of the membrane register, in
which a weight counts mantissa · 2^(6 + exponent) with an exponent of −8 … 7 (Brian2Loihi)."""
SCALES = range(THRESHOLD_SHIFT + 1)


@dataclass(frozen=True)
class Finding:
    """Something to know or to change before the network runs on the chip.

    Attributes:
        layer: its name, or "" for the network.
        what: is found, against which limit.
        change: what would help; "" where there is nothing to change in the network.
        blocks: whether the network as it is cannot run bit-exactly on the chip.
    """

    layer: str
    what: str
    change: str
    blocks: bool

    def __str__(self) -> str:
        place = f"{self.layer}: " if self.layer else ""
        return f"{place}{self.what}" + (f"; {self.change}" if self.change else "")


@dataclass(frozen=True)
class Scale:
    """How one layer's integers fit the fixed registers of Loihi 1, at the scale that expresses most of them.

    Attributes:
        exponent: one unit of the layer is 2^exponent units of the membrane register, 0 … 6. A larger one expresses more
            thresholds and leaves less range.
        thresholds, biases: how many (per channel, or per neuron) the registers cannot express.
        largest_threshold, largest_bias: the largest such value, 0 where there are none.
        weight_exponents: how many connections need a weight exponent that does not exist.
    """

    exponent: int
    thresholds: int
    biases: int
    largest_threshold: int
    largest_bias: int
    weight_exponents: int

    @property
    def exact(self) -> bool:
        return not (self.thresholds or self.biases or self.weight_exponents)


def best_scale(layer: Layer) -> Scale:
    """The scale of a layer at which the fewest values are not expressible; of equal ones the smallest."""
    return min((_at(layer, k) for k in SCALES), key=lambda s: s.thresholds + s.biases + s.weight_exponents)


def _at(layer: Layer, k: int) -> Scale:
    threshold = np.zeros(0, np.int64) if layer.threshold is None else layer.threshold.astype(np.int64)
    # Where the image arrives, the register holds more than the bias of the network: see ``findings``.
    bias = layer.bias.astype(np.int64)[: 0 if IMAGE in layer.sources else None]
    bad_threshold, bad_bias = ~_threshold_fits(threshold, k), ~_bias_fits(bias, k)
    # A signed weight uses even mantissas: the sign costs the lowest bit. So w is 2w · 2^(6 + (exponent + k − 7)).
    exponents = sum(c.exponent + k - 7 > WEIGHT_EXPONENT for c in layer.connections if c.source != IMAGE)
    return Scale(
        k,
        int(bad_threshold.sum()),
        int(bad_bias.sum()),
        int(threshold[bad_threshold].max(initial=0)),
        int(np.abs(bias[bad_bias]).max(initial=0)),
        exponents,
    )


def _threshold_fits(threshold: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Whether v > mantissa · 64, the rule of Loihi 1, can say v ≥ θ · 2^k of a v in steps of 2^k: where
    (θ − 1) · 2^k ≤ mantissa · 64 < θ · 2^k.
    """
    mantissa = ((threshold << k) - 1) >> THRESHOLD_SHIFT
    return (mantissa << THRESHOLD_SHIFT >= (threshold - 1) << k) & (mantissa <= THRESHOLD_MANTISSA)


def _bias_fits(bias: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    scaled, fits = bias << k, np.zeros(bias.shape, np.bool_)
    for exponent in range(BIAS_EXPONENT + 1):
        mantissa = scaled >> exponent
        fits |= (mantissa << exponent == scaled) & (mantissa >= BIAS_MANTISSA[0]) & (mantissa <= BIAS_MANTISSA[1])
    return fits


def findings(network: IntegerNetwork, chip: Chip, scales: Mapping[str, Scale]) -> tuple[Finding, ...]:
    """What stands between the network and the chip, its size apart.

    Args:
        network: the network.
        chip: the chip.
        scales: ``best_scale`` of every layer where the registers of the chip are fixed, else empty.
    """
    found = [_delay(network, layer, chip) for layer in network.layers]
    for layer in network.layers:
        if layer.name in scales:
            found += _registers(layer, scales[layer.name])
    if not chip.graded_input:
        inputs = ", ".join(layer.name for layer in network.layers if IMAGE in layer.sources)
        found.append(
            Finding(
                "",
                f"spikes are binary, so the 8-bit image cannot be sent: what it adds to {inputs} at every step is "
                "counted as a bias that the host writes once per image, unchecked against the bias register",
                "to stay bit-exact the host can compute that layer and send its spikes",
                False,
            )
        )
    if chip.soft_reset_compartments > 1 and any(one.reset == "soft" for one in network.layers[:-1]):
        found.append(
            Finding(
                "",
                f"no compartment resets by subtraction: counted, as in NxTF, are {chip.soft_reset_compartments} "
                "compartments per neuron, and a synapse, an input and an output axon of the neuron onto itself",
                "hard reset would need one compartment",
                False,
            )
        )
    if not chip.fixed_registers:
        found.append(
            Finding(
                "",
                "neurons are programs: integrate-and-fire with soft reset in 24 bits can be written, but no public "
                "program of it exists; the memory for neuron state is not counted",
                "",
                False,
            )
        )
    return tuple(one for one in found if one is not None)


def _delay(network: IntegerNetwork, layer: Layer, chip: Chip) -> Finding | None:
    depth = network.depth_of
    waits = {source: depth[layer.name] - depth[source] - 1 for source in layer.sources if source != IMAGE}
    source = max(waits, key=waits.__getitem__, default=None)
    if source is None or waits[source] <= chip.delay:
        return None
    return Finding(
        layer.name,
        f"spikes from {source} wait {waits[source]} steps; a synapse holds them back by at most {chip.delay}",
        "relay them through a layer in between",
        True,
    )


def _registers(layer: Layer, scale: Scale) -> list[Finding]:
    k, found = scale.exponent, []
    if scale.thresholds:
        value, step = scale.largest_threshold, 64 >> k
        largest = (THRESHOLD_MANTISSA << THRESHOLD_SHIFT) >> k
        what = (
            f"{scale.thresholds} of {layer.outputs} thresholds do not fit, the largest is {value} "
            f"({value.bit_length()} bits): a 17-bit mantissa << 6 holds up to {largest} in steps of {step}"
        )
        steps = f", or make every θ − 1 a multiple of {step}" if step > 1 else ""
        found.append(Finding(layer.name, what, f"export with --granularity layer: smaller thresholds{steps}", True))
    if scale.biases:
        value, step = scale.largest_bias, 1 << (BIAS_EXPONENT - k)
        what = (
            f"{scale.biases} of {layer.bias.size} biases do not fit, the largest is ±{value} "
            f"({value.bit_length() + 1} bits): a 13-bit mantissa · 2^(0..7) holds ±{BIAS_MANTISSA[1]} in steps of 1, "
            f"up to ±{BIAS_MANTISSA[1] * step} in steps of {step}"
        )
        found.append(
            Finding(
                layer.name, what, "export with --granularity layer: smaller biases; or round them to such steps", True
            )
        )
    if scale.weight_exponents:
        worst = max(connection.exponent for connection in layer.connections)
        what = f"weight exponent {worst} does not fit: at this scale at most {WEIGHT_EXPONENT + 7 - k}"
        found.append(Finding(layer.name, what, "split the weight over several synapses", True))
    return found
