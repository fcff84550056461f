"""Interleaving, ratios, counts and fits behind the speed tables."""

import numpy as np
import pytest

from benchmarks.lava_speed import without_start
from benchmarks.markdown import significant, table, with_spread
from benchmarks.networks import uniform
from benchmarks.peak import int8_product, multiplications_by_layer
from benchmarks.scaling import exponent, growth
from benchmarks.timing import Contestant, interleaved, rates, ratios
from nqlava.engine.cpu.machine import int8_limit
from nqlava.network import Connection, IntegerNetwork, Layer


def test_every_repeat_runs_all_and_starts_with_another() -> None:
    order: list[str] = []
    contestants = {name: Contestant(lambda name=name: order.append(name), work=2) for name in "abc"}
    times = interleaved(contestants, 4)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
    order.clear()
    interleaved(contestants, 1, warm=True)
    assert "".join(order) == "abc"


def test_ratios_are_formed_within_a_repeat() -> None:
    assert ratios([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert rates([0.5, 0.25]) == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert without_start([1.0, 2.0], [5.0, 4.0], 4) == [1.0, 0.5]


def test_exponent_of_a_power() -> None:
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx((1.5, 1.0))
    grown = growth([1, 10], {"1": [1.0, 2.0, 1.0], "10": [10.0, 2.0, 100.0]})
    assert grown["medians"] == [1.0, 10.0]
    assert grown["exponent"] == pytest.approx({"median": 1.0, "min": 0.0, "max": 2.0}, abs=1e-12)
    assert growth([1, 2], {"1": [-0.1], "2": [1.0]})["exponent"] is None


def test_multiplications_of_a_network() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-9, 10, (2, 3, 3, 3)).astype(np.int8)
    bias, theta = np.zeros(2, np.int32), np.ones(2, np.int32)
    first = Layer("a", (Connection("input", weight, padding=(1, 1)),), bias, theta, bias)
    pooled = rng.integers(-9, 10, (5, 2, 2, 3)).astype(np.int8).repeat(2, 2).repeat(2, 3).reshape(5, -1)
    last = Layer("b", (Connection("a", pooled),), np.zeros(5, np.int32), None, np.zeros(5, np.int32))
    network = IntegerNetwork((3, 4, 6), (first, last))
    assert sum(multiplications_by_layer(network, 4).values()) == 2 * 27 * 24 + 4 * 5 * 2 * 2 * 3
    assert sum(multiplications_by_layer(uniform(8, 2), 2).values()) == 256 * (8 * 27 + 2 * 8 * 72) + 2 * 10 * 8 * 256


@pytest.mark.skipif(not int8_limit(), reason="no int8 kernels in use on this machine")
def test_int8_product_is_exact_at_any_size() -> None:
    for size in (16, 64, 200):
        assert int8_product(size)().shape == (size, size)


def test_tables() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert [significant(value) for value in (12345.6, 123.4, 12.34, 0.01234, 1)] == [
        "12,346",
        "123",
        "12.3",
        "0.0123",
        "1",
    ]
    assert with_spread({"median": 2.0, "min": 1.5, "max": 100.0}) == "2 (1.5 … 100)"
