"""Random networks: the reference and every way to run a network agree in every bit that they give.

The reference (nqlava/reference.py) is docs/semantics.md as a program. Compared with it are the integer engine with each
of its kernels and with small parts, the path of GPUs (on the CPU), and Lava, with any batch, gap and number of
processes; for some networks also the C program, the written file through lava-dl's reader, and Lava's own parts, where
there is a compiler and where these can run them. Compared are the spikes of every layer and step, the read-out at every
step, the saturations and the potential of every neuron after the last step (not for Lava's own parts, which do not hold
it).

oneDNN, PyTorch and numba have other code for other processors: each mode of nqlava.testing.cpu_modes that is possible
here gets a process and an equal part of the time. A network that fails is made smaller, and left as a file.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from deploy.lava import build, netx_network, stock
from nqlava import netx
from nqlava.c.plan import plan
from nqlava.c.program import build as build_c
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.cpu.network import CpuNetwork
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork
from nqlava.testing.cpu_modes import MODES, environment, missing
from nqlava.testing.engines import KINDS, assert_same, judged, kernels
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks
from nqlava.trace import concatenate

NATIVE = "native"
_SETTINGS: dict[str, Any] = {"deadline": None, "database": None, "phases": [Phase.generate, Phase.shrink]}
_SETTINGS["suppress_health_check"] = list(HealthCheck)
_AT_ONCE = 20  # networks of one seed
_SEEDS = 10_000  # of one process
_LAVA_DL = sys.version_info < (3, 11)
_OTHERS = st.sampled_from(("",) * 8 + ("c", "lava-dl", "stock"))
"""What takes seconds runs few networks."""


def run(seconds: float, number: int, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Runs a process for each mode of the processor, for so long in all; figures and failures."""
    until = time.monotonic() + seconds
    seen: Counter[str] = Counter()
    failures = []
    modes = [NATIVE, *(mode for mode in MODES if not missing(mode))]
    for index, mode in enumerate(modes):
        part = max(0.0, (until - time.monotonic()) / (len(modes) - index))
        numbers = [f"{(100 * number + index) * _SEEDS}", f"{part}", str(folder / mode)]
        variables = dict(os.environ) if mode == NATIVE else environment(mode)
        command = [sys.executable, "-m", "stress.agreement", *numbers]
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failures.append(f"processor {mode}: ended with exit code {done.returncode}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        seen.update(found["seen"])
        seen[f"processor {mode}"] = found["seen"].get("networks", 0)
        failures += [f"processor {mode}: {line}" for line in found["failures"]]
    return {**dict(seen.most_common()), "mismatches": len(failures)}, failures


def agree(count: int, number: int, seconds: float, folder: Path) -> tuple[Counter[str], list[str]]:
    """Compares on ``count`` networks of seed ``number``: what they had, and a line for a smallest one that failed.

    After ``seconds`` no further one begins. ``folder`` gets the network that failed as ``failed.h5``.
    """
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    failed: list[str] = []

    @seed(number)
    @settings(max_examples=count, **_SETTINGS)
    @given(networks(), st.integers(1, 9), st.integers(0, 2), st.integers(1, 3), st.integers(1, 5), _OTHERS)
    def compared(network: IntegerNetwork, steps: int, gap: int, batch: int, processes: int, other: str) -> None:
        if time.monotonic() > until:
            return
        try:
            _compare(network, steps, gap, batch, processes, other, seen)
        except Exception as error:
            folder.mkdir(parents=True, exist_ok=True)
            netx.write(network, folder / "failed.h5")
            options = f"T {steps}, gap {gap}, batch {batch}, processes {processes}"
            failed[:] = [f"{folder / 'failed.h5'}, {options}: {' '.join(str(error).split())[:500]}"]
            raise
        if not failed:  # what makes a network that failed smaller is not counted
            seen.update(features(network))

    with patch("nqlava.engine.cpu.machine._is_faster", return_value=True):  # int8 wherever it is exact
        int8_limit.cache_clear()
        try:
            compared()
        except Exception as error:
            failed = failed or [f"{type(error).__name__}: {error}"]
        finally:
            int8_limit.cache_clear()
    return seen, failed


def _compare(
    network: IntegerNetwork, steps: int, gap: int, batch: int, processes: int, other: str, seen: Counter[str]
) -> None:
    """AssertionError where something differs."""
    images = images_for(network, 3)
    expected = judged(network, images, steps)
    for kind in KINDS:
        with kernels(kind) as engine:
            assert_same(expected, engine(network).run(images, steps, membranes=True))
    traces = build.run(network, images, steps, batch=batch, gap=gap, processes=processes, membranes=len(images))
    assert_same(expected, concatenate(list(traces)))
    if other == "lava-dl" and _LAVA_DL and netx.version_of(network) == 1:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.h5"
            netx.write(network, path)
            traces = netx_network.run(path, images[:2], steps, gap=gap, membranes=2)
            assert_same(expected[:2], concatenate(list(traces)))
        seen["Lava behind lava-dl's reader"] += 1
    if other == "c" and shutil.which("cc"):
        with tempfile.TemporaryDirectory() as folder:
            program = build_c([plan(network)], Path(folder))
            assert_same(expected, program.traces(0, images, steps, potentials=True))
        seen["C"] += 1
    if other == "stock":
        with suppress(InputError):  # where these cannot run it
            stock.require_buildable(network, steps)
            traces = stock.run(network, images[:2], steps)
            assert_same(expected[:2], concatenate(list(traces)))
            seen["Lava's own parts"] += 1
    seen["spiking"] += any(values.any() for run in expected for values in run.spikes)
    seen["saturating"] += any(any(run.saturations) for run in expected)


def features(network: IntegerNetwork) -> Iterator[str]:
    """What a network has, and the kernels that the engine chooses for it."""
    yield "networks"
    yield f"version {netx.version_of(network)}"
    if any(len(layer.connections) > 1 for layer in network.layers):
        yield "shortcut"
    yield from {f"{layer.reset} reset" for layer in network.layers}
    yield from {f"kernel {kernel}" for kernels in CpuNetwork(network).kernels.values() for kernel in kernels}


def _main(number: int, seconds: float, folder: Path) -> None:
    until = time.monotonic() + seconds
    seen: Counter[str] = Counter()
    failures: list[str] = []
    while not failures and time.monotonic() < until:
        more, failures = agree(_AT_ONCE, number, until - time.monotonic(), folder)
        seen.update(more)
        number += 1
    print(json.dumps({"seen": seen, "failures": failures}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
