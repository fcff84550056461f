"""Register widths against every value that the registers can hold, and the wording of what is found."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.fit import findings as module
from deploy.fit.chips import LOIHI1, LOIHI2, Chip
from deploy.fit.findings import Finding, best_scale, findings
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer


@pytest.mark.parametrize("k", module.SCALES)
def test_thresholds_against_the_rule_of_the_chip(k: int) -> None:
    """Some mantissa makes v > mantissa · 64 true for v = θ · 2^k and false for (θ − 1) · 2^k."""
    thresholds = np.unique(
        [1, 2, 63, 64, 65, 66, 129, 131071, 131072, 131073, *((131071 * 64 >> k) + np.arange(-2, 4))]
    )
    fits = module._threshold_fits(thresholds.astype(np.int64), k)
    for threshold, found in zip(thresholds.tolist(), fits.tolist(), strict=True):
        near = threshold * 2**k // 64
        mantissas = [m for m in range(near - 2, near + 3) if 0 <= m <= 2**17 - 1]
        assert found == any((threshold - 1) * 2**k <= m * 64 < threshold * 2**k for m in mantissas), threshold


@pytest.mark.parametrize("k", module.SCALES)
def test_biases_against_every_value_of_the_register(k: int) -> None:
    mantissas = np.arange(-4096, 4096)
    values = {int(v) // 2**k for e in range(8) for v in mantissas * 2**e if v % 2**k == 0}
    bias = np.concatenate([np.arange(-9000, 9000), [2**19, 2**19 - 1, -(2**19), 2**23 - 1]])
    assert module._bias_fits(bias, k).tolist() == [int(b) in values for b in bias]


def dense(
    threshold: int | None = None,
    bias: int = 0,
    exponent: int = 0,
    source: str = IMAGE,
    inputs: int = 1,
    name: str = "readout",
) -> Layer:
    return Layer(
        name,
        (Connection(source, np.full((1, inputs), 5, np.int8), exponent),),
        bias=np.array([bias], np.int32),
        threshold=None if threshold is None else np.array([threshold], np.int32),
        v0=np.zeros(1, np.int32),
    )


def network(*hidden: Layer) -> IntegerNetwork:
    """An image of one pixel, a layer "first", the layers given, and a read-out behind the last."""
    layers = (dense(1, name="first"), *hidden)
    return IntegerNetwork((1, 1, 1), (*layers, dense(source=layers[-1].name)))


def of_layer(found: IntegerNetwork, chip: Chip) -> list[Finding]:
    """Findings that name a layer."""
    scales = {layer.name: best_scale(layer) for layer in found.layers if chip.fixed_registers}
    return [one for one in findings(found, chip, scales) if one.layer]


def test_small_numbers_fit() -> None:
    assert of_layer(network(dense(131072, 4095, 8, source="first", name="if")), LOIHI1) == []


def test_threshold_that_does_not_fit() -> None:
    """300,000 − 1 is odd, so it needs steps of 1 (scale 6), where the mantissa ends at 131,071."""
    (found,) = of_layer(network(dense(300_000, source="first", name="if")), LOIHI1)
    assert found.blocks
    assert str(found) == (
        "if: 1 of 1 thresholds do not fit, the largest is 300000 (19 bits): a 17-bit mantissa << 6 holds up to 8388544 "
        "in steps of 64; export with --granularity layer: smaller thresholds, or make every θ − 1 a multiple of 64"
    )


def test_threshold_in_steps_that_the_register_has() -> None:
    """299,968 = 64 · 4,687, so θ = 299,969 is v > 64 · 4,687: it fits without a shift."""
    layer = dense(299_969, source="first", name="if")
    assert of_layer(network(layer), LOIHI1) == []
    assert best_scale(layer).exponent == 0


def test_bias_that_does_not_fit() -> None:
    (found,) = of_layer(network(dense(1, 5001, source="first", name="if")), LOIHI1)
    assert "1 of 1 biases do not fit, the largest is ±5001 (14 bits): a 13-bit mantissa" in str(found)


def test_weight_exponent_that_does_not_fit() -> None:
    """The threshold 100 needs scale 6, for 99 is odd; there 2^15 needs weight exponent 15 + 6 − 7 = 14; 7 exists."""
    (found,) = of_layer(network(dense(100, 0, 15, source="first", name="if")), LOIHI1)
    assert "weight exponent 15 does not fit: at this scale at most 8" in str(found)


def test_registers_of_loihi2_are_programs() -> None:
    assert of_layer(network(dense(300_000, 5001, 15, source="first", name="if")), LOIHI2) == []


def test_delay_of_a_shortcut() -> None:
    """'join' has place 4; spikes of 'first', place 1, wait 4 − 1 − 1 = 2 steps more than those of 'b', place 3."""
    a, b = dense(1, source="first", name="a"), dense(1, source="a", name="b")
    join = replace(
        dense(1, source="b", name="join"),
        connections=(dense(source="b").connections + dense(source="first").connections),
    )
    assert of_layer(network(a, b, join), replace(LOIHI2, delay=2)) == []
    (found,) = of_layer(network(a, b, join), replace(LOIHI2, delay=1))
    assert "join: spikes from first wait 2 steps; a synapse holds them back by at most 1" in str(found)
    assert found.blocks


def test_what_the_chips_lack_is_said() -> None:
    texts = " ".join(str(one) for one in findings(network(), LOIHI1, {}))
    assert "the 8-bit image cannot be sent" in texts and "2 compartments per neuron" in texts
    texts = " ".join(str(one) for one in findings(network(), LOIHI2, {}))
    assert "no public program" in texts


def test_modules_named_in_the_code_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    for file in (root / "deploy").rglob("*.py"):
        for name in re.findall(r"\b(?:deploy|export|train|tests)(?:/\w+)+\.py\b", file.read_text(encoding="utf-8")):
            assert (root / name).is_file(), f"{file.name} names {name}"
