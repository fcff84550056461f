"""The int8 kernels are used exactly where they are exact."""

import os
import subprocess
import sys

import pytest

from nqlava.engine.cpu import machine

PROGRAM = """
import numpy as np
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.integer import Engine
from nqlava.network import Connection, IntegerNetwork, Layer
weight = np.full((16, 16 * 9 * 9), 127, np.int8)
zeros = np.zeros(16, np.int32)
network = IntegerNetwork((16, 9, 9), (Layer("readout", (Connection("input", weight),), zeros, None, zeros),))
scores = Engine(network).scores(np.full((2, 16, 9, 9), 255, np.uint8), 1)
print(int8_limit(), set((scores - min(127 * 255 * 16 * 81, 2**23 - 1)).ravel().tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("instructions", "limits"), [("AVX2", {0, 128}), ("ALL", {0, 128, 255})])
def test_processors_without_vnni_saturate_in_16_bits_and_are_found_out(instructions: str, limits: set[int]) -> None:
    """oneDNN is told which instructions it may use; with AVX2 alone it adds two products in 16 bits."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(found[0]) in limits
    assert found[1] == "{0}"


def test_inexact_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = machine.prepare_int8

    def wrong(*arguments, **options):
        run = exact(*arguments, **options)
        return lambda x: run(x).add_(1)

    monkeypatch.setattr(machine, "prepare_int8", wrong)
    machine.int8_limit.cache_clear()
    try:
        assert machine.int8_limit() == 0
        assert machine.describe() == "float32 or spike by spike"
    finally:
        machine.int8_limit.cache_clear()


def test_without_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qconv_prepack'")

    monkeypatch.setattr(machine, "prepare_int8", missing)
    machine.int8_limit.cache_clear()
    try:
        assert machine.int8_limit() == 0
    finally:
        machine.int8_limit.cache_clear()
