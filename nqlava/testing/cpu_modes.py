"""Modes in which this machine computes as one with an older processor does.

    python -m nqlava.testing.cpu_modes avx2 python -m pytest tests/nqlava/engine/cpu

runs a command in a mode, as ``make test CPU=avx2`` does with all tests. A mode is what four libraries are told:

* oneDNN (``ONEDNN_MAX_CPU_ISA``): without VNNI its int8 kernels add two products in 16 bits, which saturates.
* PyTorch's own loops (``ATEN_CPU_CAPABILITY``).
* MKL (``MKL_ENABLE_INSTRUCTIONS``): no effect was seen on an AMD processor.
* numba (``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES``): with the name alone it still uses the features of the processor at
  hand. What it compiles is cached under both.

No value of these switches int8 off, as oneDNN has int8 kernels for SSE 4.1 too. ``NQ_LAVA_INT8=0`` does
(nqlava/engine/cpu/machine.py).
"""

import os
import sys
from collections.abc import Mapping, Sequence

from llvmlite.binding import get_host_cpu_features

MODES: Mapping[str, Mapping[str, str]] = {
    "avx512-vnni": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "avx512": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "NUMBA_CPU_NAME": "skylake-avx512",
        "NUMBA_CPU_FEATURES": "",
    },
    "avx2-vnni": {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "",
    },
    "sse41": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NUMBA_CPU_NAME": "nehalem",
        "NUMBA_CPU_FEATURES": "",
    },
    "no-int8": {"NQ_LAVA_INT8": "0"},
}
"""Variables of the environment by mode."""

NAME = "NQ_LAVA_CPU_MODE"
"""Variable with the name of the mode, for the tests."""

_NEEDED = {
    "avx512-vnni": ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"),
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512dq"),
    "avx2-vnni": ("avx2", "avxvnni"),
    "avx2": ("avx2", "fma", "bmi2"),
    "sse41": ("sse4.2",),
    "no-int8": (),
}


def environment(mode: str) -> dict[str, str]:
    """The environment of this process with the variables of one mode, and with those of no other."""
    of_modes = {NAME, *(variable for variables in MODES.values() for variable in variables)}
    return {key: value for key, value in os.environ.items() if key not in of_modes} | {**MODES[mode], NAME: mode}


def missing(mode: str) -> list[str]:
    """Instructions that the mode needs and this processor does not have, as LLVM names them."""
    try:
        found = get_host_cpu_features()
    except RuntimeError:  # LLVM does not know them here
        found = {}
    return [feature for feature in _NEEDED[mode] if not found.get(feature)]


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2 or argv[0] not in MODES:
        print(
            f"usage: python -m nqlava.testing.cpu_modes MODE COMMAND ...; MODE: {', '.join(MODES)}",
            file=sys.stderr,
        )
        return 2
    mode, *command = argv
    if lacking := missing(mode):
        print(f"mode {mode}: this processor has no {', '.join(lacking)}", file=sys.stderr)
        return 2
    print(f"mode {mode}:", *(f"{key}={value}" for key, value in MODES[mode].items()), flush=True)
    os.execvpe(command[0], command, environment(mode))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
