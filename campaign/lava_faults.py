"""Lava processes that fail, are killed or stand still in the middle of a command: it ends and says which, and why."""

import os
import random
import signal
import time
from collections import Counter
from importlib.metadata import distribution
from math import inf
from pathlib import Path

import numpy as np

from campaign.plan import Figure, Outcome, Plan
from campaign.sandbox import END_SECONDS, Sandbox, Watched
from nqlava import netx
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer

FAILED = 3  # exit status of a command whose Lava network failed
_KILLS = 10
MODELS = {
    "cpu": ["models.PyBatchSource", "models.PyLayerGroup"],
    "netx": [
        *("models.PyImageSource", "convolution.PyExactConv", "models.PyIFNeuron", "models.PyIntegrator"),
        "lava.proc.dense.models.PyDenseModelBitAcc",
    ],
    "stock": [
        *("models.PyProbe", "lava.proc.conv.models.PyConvModelFixed", "lava.proc.sparse.models.PySparseModelBitAcc"),
        *("lava.proc.graded.models.PyGradedVecModelFixed", "lava.proc.graded.models.PyGradedReluVecModelFixed"),
        *("lava.proc.io.reset.PyResetFixed", "lava.proc.io.source.PySendModelFixed"),
    ],
    "lava-dl": ["lava_dl_network.PyRecordedLifReset"],
}
"""Process models of each way into Lava."""


def run(plan: Plan) -> Outcome:
    """An exception in every process model, at the beginning and the end of a step; killed processes; stalled ones."""
    rng = random.Random(plan.seed)
    failures: list[str] = []
    counts: Counter[str] = Counter({"exceptions in process models": 0, "Lava processes killed": 0, "stalled": 0})
    longest = 0.0
    with Sandbox(plan.folder / "sandbox") as sandbox:
        net, inputs = sandbox.folder / "net.h5", sandbox.folder / "inputs.npy"
        netx.write(small_network(plan.seed), net)
        np.save(inputs, np.ones((1, 3, 16, 16), np.int32))
        cpu = _command("cpu", net, inputs)

        def expect(kind: str, what: str, watched: Watched, *said: str, limit: float, traceback: bool = False) -> None:
            nonlocal longest
            ending = watched.end(limit)
            problems = [line for text in said for line in ending.check([FAILED], said=text, traceback=traceback)]
            failures.extend(f"{what}: {line}" for line in problems)
            counts[kind] += not problems
            longest = max(longest, 0 if limit == inf else ending.seconds)

        faults = [
            (backend, model, how) for backend in MODELS for model in MODELS[backend] for how in ("before", "after")
        ]
        for backend, model, how in faults[: plan.count(len(faults))]:
            if not plan.over:
                path = model if model.startswith("lava.") else f"deploy.lava.{model}"
                watched = sandbox.start(["campaign.failing", how, path, *_command(backend, net, inputs)])
                what = f"{backend}: {model} {how} it sends"
                expect("exceptions in process models", what, watched, "on purpose", limit=inf, traceback=True)
        began = time.monotonic()
        failures += sandbox.start(cpu).end(inf).check([0])
        seconds = time.monotonic() - began
        for turn in range(plan.count(_KILLS)):
            if not plan.over:
                workers = ["--workers", "2"] if turn % 4 == 3 else []
                watched = sandbox.start([*cpu, *workers, "--samples", "1000", "--batch", "1", "--T", "64"])
                what = f"child {_kill_child(watched, rng, seconds)} killed"
                expect("Lava processes killed", what, watched, "was killed by SIGKILL", limit=END_SECONDS)
        for name, waits in (("source", "first"), ("first", "middle"), ("middle", "last"), ("last", None))[
            -plan.count(4) :
        ]:
            if not plan.over:
                said = [f"{name} does not finish the step"]
                said += [] if waits is None else [f"{waits} waits for a message from {name}"]
                watched = sandbox.start(["campaign.failing", "stall", name, *cpu])
                expect("stalled", f"{name} stalled", watched, *said, limit=inf)
    figures: dict[str, Figure] = {**counts, "longest time until all was gone (s)": round(longest, 2)}
    return Outcome(figures, failures)


def small_network(seed: int) -> IntegerNetwork:
    """Two convolutions, a dense layer and a read-out for the images of the sample, with random weights."""
    rng = np.random.default_rng(seed)

    def layer(name: str, source: str, weight: tuple[int, ...], threshold: int | None, stride: int = 1) -> Layer:
        outputs = weight[0]
        geometry = {"stride": (stride, stride)} if len(weight) == 4 else {}
        connection = Connection(source, rng.integers(-127, 128, weight).astype(np.int8), **geometry)
        none = np.zeros(outputs, np.int32)
        return Layer(name, (connection,), none, None if threshold is None else none + threshold, none)

    layers = (
        layer("first", IMAGE, (4, 3, 4, 4), 20_000, 4),
        layer("middle", "first", (4, 4, 2, 2), 300, 2),
        layer("last", "middle", (10, 64), None),
    )
    return IntegerNetwork((3, 32, 32), layers)


def _command(backend: str, net: Path, inputs: Path) -> list[str]:
    if backend == "lava-dl":
        example = distribution("lava-dl").locate_file("tests/lava/lib/dl/netx/tiny.net")
        return ["deploy.run_lava_dl", str(example), str(inputs), "--T", "8", "--check", "1"]
    return ["deploy.run_lava", str(net), "--T", "4", "--samples", "8", "--batch", "2", "--backend", backend]


def _kill_child(watched: Watched, rng: random.Random, seconds: float) -> int:
    """Kills a process below the command, a while after there is one; which."""
    while watched.process.poll() is None:
        if len(watched.family) > 1:
            time.sleep(rng.uniform(0, seconds / 2))
            children = [pid for pid in watched.family if pid != watched.process.pid]
            if children:
                chosen = rng.choice(children)
                os.kill(chosen, signal.SIGKILL)
                return chosen
        time.sleep(0.05)
    return 0
