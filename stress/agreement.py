"""One truth: on random networks the reference and every way to run a network agree, in every bit that they give.

The reference (nqlava/reference.py) is docs/semantics.md as a program. With it are compared: the integer engine with
each of its kernels and with small parts, the path of GPUs (on the CPU), and Lava, with any batch, gap and number of
processes; for some networks also the written file through lava-dl's reader, and Lava's own parts, where these can run
them. Compared are the spikes of every layer and step, the read-out at every step, the saturations and, of all but
Lava's own parts, which hold it nowhere, the potential of every neuron after the last step.

oneDNN, PyTorch and numba have other code for other processors: the networks are shared out among processes that are
told to be one of them. A network that fails is made smaller, and left as a file.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

from campaign.plan import Figure, Outcome, Plan
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from deploy.lava import build, netx_network, stock
from nqlava import netx
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.cpu.network import CpuNetwork
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork
from nqlava.trace import concatenate
from tests.engines import KINDS, assert_same, judged, kernels
from tests.nqlava.engine.cpu_modes import MODES
from tests.strategies import images_for, networks
from tests.with_lava_dl import LAVA_DL

NETWORKS = 1000
PROCESSORS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "with AVX-512 VNNI": MODES["avx512-vnni"],
    "with AVX-512": MODES["avx512"],
    "with AVX2 VNNI": MODES["avx2-vnni"],
    "with AVX2": MODES["avx2"],
    "with SSE 4.1": MODES["sse41"],
}
"""What the libraries are told that the processor is."""

_OTHER_LAVA = ("",) * 8 + ("lava-dl", "stock")
"""What takes seconds runs one network in ten."""


def run(plan: Plan) -> Outcome:
    """The campaign: 1,000 networks at share 1, a part of them on each processor."""
    total = plan.count(NETWORKS)
    seen: Counter[str] = Counter()
    failures = []
    for index, (name, variables) in enumerate(PROCESSORS.items()):
        begun = time.monotonic() - plan.began
        seconds = max(0.0, plan.seconds - begun) / (len(PROCESSORS) - index)
        count = (total + index) // len(PROCESSORS)
        if not count:
            continue
        folder = plan.folder / name.replace(" ", "_")
        command = [sys.executable, "-m", "campaign.agreement", f"{count}", f"{plan.seed + index}", f"{seconds}", folder]
        done = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failures.append(f"processor {name}: ended with exit code {done.returncode}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        seen.update(found["seen"])
        seen[f"processor {name}"] = found["seen"].get("networks", 0)
        failures += [f"processor {name}: {line}" for line in found["failures"]]
    figures: dict[str, Figure] = dict(seen.most_common())
    return Outcome(figures | {"planned": total, "mismatches": len(failures)}, failures)


def agree(count: int, number: int, seconds: float, folder: Path) -> tuple[Counter[str], list[str]]:
    """Compares on so many random networks, for so long: what they had, and a line for a smallest one that failed.

    Args:
        count: networks.
        number: seed.
        seconds: after which no further one begins.
        folder: gets the network that failed as ``failed.h5``.
    """
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    failed: list[str] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(), st.integers(1, 9), st.integers(0, 2), st.integers(1, 3), st.integers(1, 5), _others())
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

    with patch(
        "nqlava.engine.cpu.machine._is_faster", return_value=True
    ):  # int8 wherever it is exact, whatever it costs
        int8_limit.cache_clear()
        try:
            compared()
        except Exception as error:
            failed = failed or [f"{type(error).__name__}: {error}"]
        finally:
            int8_limit.cache_clear()
    return seen, failed


def _others() -> st.SearchStrategy[str]:
    return st.sampled_from(_OTHER_LAVA)


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
    if other == "lava-dl" and LAVA_DL and netx.version_of(network) == 1:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.h5"
            netx.write(network, path)
            traces = netx_network.run(path, images[:2], steps, gap=gap, membranes=2)
            assert_same(judged(network, images[:2], steps), concatenate(list(traces)))
        seen["Lava behind lava-dl's reader"] += 1
    if other == "stock" and _is_for_stock_parts(network, steps):
        assert_same(judged(network, images[:2], steps), concatenate(list(stock.run(network, images[:2], steps))))
        seen["Lava's own parts"] += 1
    seen["spiking"] += any(values.any() for run in expected for values in run.spikes)
    seen["saturating"] += any(any(run.saturations) for run in expected)


def _is_for_stock_parts(network: IntegerNetwork, steps: int) -> bool:
    try:
        stock.require_buildable(network, steps)
    except InputError:
        return False
    return True


def features(network: IntegerNetwork) -> Iterator[str]:
    """What a network has, and the kernels that the engine chooses for it, for the summary."""
    connections = [c for layer in network.layers for c in layer.connections]
    yield "networks"
    for name, present in {
        "version 1 (lava-dl)": netx.version_of(network) == 1,
        "shortcut": any(len(layer.connections) > 1 for layer in network.layers),
        "shortcut over several places": any(
            network.depth_of[layer.name] - network.depth_of[c.source] > 1
            for layer in network.layers
            for c in layer.connections
        ),
        "hard reset": any(layer.reset == "hard" for layer in network.layers),
        "exponent": any(c.exponent for c in connections),
        "convolution": any(c.is_convolution for c in connections),
        "stride": any(c.stride != (1, 1) for c in connections),
        "dilation": any(c.dilation != (1, 1) for c in connections),
        "groups": any(c.groups > 1 for c in connections),
        "bias per neuron": any(layer.bias.ndim == 3 for layer in network.layers),
        "not square": network.input_shape[1] != network.input_shape[2],
    }.items():
        if present:
            yield name
    yield from {f"kernel {kernel}" for kernels in CpuNetwork(network).kernels.values() for kernel in kernels}


def _main(count: str, number: str, seconds: str, folder: str) -> None:
    seen, failures = agree(int(count), int(number), float(seconds), Path(folder))
    print(json.dumps({"seen": seen, "failures": failures}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
