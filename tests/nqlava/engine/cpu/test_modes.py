"""The kernels, the engine and the benchmarks on other processors, which child processes are told to have.

``make test CPU=avx2`` runs all tests so.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from numba.core.registry import cpu_target

from nqlava.engine.cpu import machine
from nqlava.testing import cpu_modes

ROOT = Path(__file__).resolve().parents[4]
MODE = os.environ.get(cpu_modes.NAME, "")

INT8 = ("tests/nqlava/engine/cpu/test_synapses.py", "tests/benchmarks/test_timing.py")
ENGINE = (
    "tests/nqlava/engine/cpu/test_layer.py",
    "tests/test_golden.py",
    "tests/nqlava/engine/test_edges.py::test_engine",
    "tests/nqlava/engine/test_integer.py::test_engine_equals_brute_force[fastest]",
    "tests/nqlava/engine/test_integer.py::test_engine_equals_brute_force[events]",
    "tests/nqlava/engine/test_integer.py::test_saturating_networks_equal_brute_force[fastest]",
    "tests/benchmarks/test_speed.py::test_parts_can_be_chosen",
)
COMPILED = (
    "tests/nqlava/engine/cpu/test_kernels.py",
    "tests/nqlava/engine/cpu/test_events.py::test_any_convolution",
    "tests/nqlava/engine/cpu/test_events.py::test_by_hand",
    "tests/nqlava/engine/cpu/test_events.py::test_count",
    "tests/nqlava/engine/cpu/test_events.py::test_thousands_of_the_largest_weights_do_not_wrap",
)
ESSENTIAL = {"avx512": INT8, "avx2": INT8 + ENGINE + COMPILED, "no-int8": ENGINE}
"""What differs there and takes seconds: numba's code is compiled anew where AVX-512 is missing."""

LEFT_OUT = "other_instructions or lava or stock"
"""What starts processes of its own, and Lava, whose layers have the engine's kernels."""


@pytest.mark.parametrize("mode", ESSENTIAL)
def test_essential_tests_pass_in(mode: str) -> None:
    if lacking := cpu_modes.missing(mode):
        pytest.skip(f"this processor has no {', '.join(lacking)}")
    options = ("-p", "no:cacheprovider", "-k", f"not ({LEFT_OUT})", "--tb=short", "-rs")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"{__file__}::test_mode", *ESSENTIAL[mode], *options],
        cwd=ROOT,
        env=cpu_modes.environment(mode) | {"EXAMPLES": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"mode {mode}:\n{done.stdout[-8000:]}"


@pytest.mark.skipif(MODE not in ESSENTIAL, reason="for processes in one of these modes")
def test_mode() -> None:
    """The libraries obey: 16-bit saturation occurs, and no register is wider than the mode's processor has."""
    if MODE == "no-int8":
        assert machine.int8_limit() == 0
        return
    assert machine.int8_limit() < 255 and not machine._is_exact(255) and machine._is_exact(128)
    assert torch.backends.cpu.get_cpu_capability() == MODE.upper()
    assert cpu_target.target_context.codegen().magic_tuple()[1:] == (cpu_modes.MODES[MODE]["NUMBA_CPU_NAME"], "")

    @numba.njit(fastmath=True)
    def total(values):
        found = np.float32(0)
        for value in values:
            found += value
        return found

    assert total(np.ones(100, np.float32)) == 100
    (code,) = total.inspect_asm().values()
    assert ("zmm" in code) <= (MODE == "avx512") and re.search("[yz]mm", code)
