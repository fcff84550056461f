"""Every piece that the engine and Lava share, damaged one at a time: the comparison must notice.

A damage is noticed where ``run_lava`` exits with 1 and names a first mismatch, or where the trial of the kernels at the
start refuses the damaged one, so that it computes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy import run_lava
from deploy.lava import build
from nqlava import netx
from nqlava.engine.cpu import events, kernels
from nqlava.engine.cpu.layer import CpuLayer
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.cpu.synapses import Synapses
from nqlava.engine.integer import Engine
from nqlava.network import MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from tests.tiny import image_set, write_folder
from tests.with_lava_dl import needs_lava_dl

pytestmark = pytest.mark.slow
SAMPLES, STEPS = 12, 3
Damage = Callable[[pytest.MonkeyPatch], None]


def layer(name: str, connections: list[Connection], threshold: int | None, **more: Any) -> Layer:
    outputs = connections[0].outputs
    values = {"bias": np.arange(outputs, dtype=np.int32), "v0": np.full(outputs, (threshold or 0) // 2, np.int32)}
    theta = None if threshold is None else np.arange(threshold, threshold + outputs, dtype=np.int32)
    return Layer(name, tuple(connections), threshold=theta, **(values | more))


def graph() -> IntegerNetwork:
    """All that the format has: padding, biases per neuron, pooling, shortcuts, exponents, hard reset, saturation, and
    neurons that reach their threshold exactly."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.integers(-90, 100, shape).astype(np.int8)

    bias = rng.integers(-500, 500, (16, 8, 10)).astype(np.int32)
    bias[3], bias[5] = MEMBRANE_MAX, -MEMBRANE_MAX
    pool = weight(16, 16, 3, 3).repeat(2, 2).repeat(2, 3)
    identity = np.diag(np.full(16, 64)).reshape(16, 16, 1, 1).astype(np.int8)
    dense = weight(12, 16 * 4 * 5)
    dense[0] = 0  # with a bias of 1, θ = 2 and v(0) = 0 it reaches θ at steps 2, 4, ...
    stem = layer("stem", [Connection("input", weight(16, 3, 3, 3), padding=(1, 1))], 20000, bias=bias)
    pooled = layer("pooled", [Connection("stem", pool, stride=(2, 2), padding=(2, 2))], 2500)
    block = [Connection("pooled", weight(16, 16, 3, 3), padding=(1, 1), exponent=2), Connection("pooled", identity, 5)]
    hidden = replace(layer("hidden", [Connection("block", dense)], 700))
    edge = {
        key: np.where(np.arange(12) == 0, value, getattr(hidden, key)).astype(np.int32) for key, value in EDGE.items()
    }
    layers = (stem, pooled, layer("block", block, 5000, reset="hard"), replace(hidden, **edge))
    return IntegerNetwork((3, 8, 10), (*layers, layer("read-out", [Connection("hidden", weight(5, 12))], None)))


EDGE = {"bias": 1, "threshold": 2, "v0": 0}


def sequence() -> IntegerNetwork:
    """What lava-dl's reader and Lava's own parts know: no shortcut, no saturation."""
    rng = np.random.default_rng(1)
    kernel = rng.integers(-20, 40, (4, 3, 3, 3)).astype(np.int8)
    stem = layer("stem", [Connection("input", kernel, stride=(2, 2))], 40000)
    read = layer("read-out", [Connection("stem", rng.integers(-90, 90, (5, 48)).astype(np.int8))], None)
    return IntegerNetwork((3, 8, 10), (stem, read))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks' files and a folder of images."""
    made = tmp_path_factory.mktemp("sabotage")
    images = image_set(SAMPLES)
    pixels = torch.randint(0, 256, (SAMPLES, 8, 10, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_folder(made / "images", train=replace(images, images=pixels), test=replace(images, images=pixels))
    for network in (graph(), sequence()):
        netx.write(network, made / ("sequence.h5" if network.is_sequence else "graph.h5"))
    return made


@pytest.fixture(autouse=True)
def uncached(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trials are made anew, and none by the clock: int8 and single spikes are used wherever they are exact."""
    monkeypatch.setattr("nqlava.engine.cpu.machine._is_faster", lambda: True)
    monkeypatch.setattr("nqlava.engine.cpu.events._TRIALS", {})
    int8_limit.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    int8_limit.cache_clear()


def around(target: str, change: Callable[..., Any]) -> Damage:
    """The function or class ``target`` is called, and ``change`` gets what it returns."""

    def damage(patch: pytest.MonkeyPatch) -> None:
        module, name = target.rsplit(".", 1)
        owner = _resolve(module)
        real = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **named: change(real(*args, **named)))

    return damage


def _resolve(dotted: str) -> Any:
    """A module, or a class in a module."""
    module, _, name = dotted.rpartition(".")
    if name.lstrip("_")[0].isupper():
        return getattr(__import__(module, fromlist=[name]), name)
    return __import__(dotted, fromlist=[name])


def after(target: str, change: Callable[..., None]) -> Damage:
    """The function or method ``target`` is called, and ``change`` then gets its arguments."""

    def damage(patch: pytest.MonkeyPatch) -> None:
        module, name = target.rsplit(".", 1)
        owner = _resolve(module)
        real = getattr(owner, name)

        def changed(*args: Any, **named: Any) -> Any:
            result = real(*args, **named)
            change(*args)
            return result

        patch.setattr(owner, name, changed)

    return damage


def instead(target: str, function: Callable[..., Any]) -> Damage:
    """``function`` in place of ``target``."""
    return lambda patch: patch.setattr(target, function)


def in_kernel(name: str, function: Callable[..., Any]) -> Damage:
    """``function`` in place of one that the compiled kernels call; the two that call it run uncompiled."""

    def damage(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(kernels, name, function)
        for caller in ("integrate_fire", "integrate"):
            patch.setattr(f"nqlava.engine.cpu.layer.{caller}", getattr(kernels, caller).py_func)

    return damage


def together(*damages: Damage) -> Damage:
    def damage(patch: pytest.MonkeyPatch) -> None:
        for one in damages:
            one(patch)

    return damage


def only_many(run: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A kernel that is wrong for more than four samples, or wide rows: the trial, which has two, cannot see it."""
    return lambda x: run(x) + (1 if len(x) > 4 or x.shape[-1] > 60 else 0)


always_events = instead("nqlava.engine.cpu.events.Events.break_even", lambda *_: 9.0)
no_int8 = instead("nqlava.engine.cpu.synapses.int8_limit", lambda: 0)


def fire_late(v: np.ndarray, threshold: np.ndarray, spikes: np.ndarray) -> None:
    spikes[:] = v > threshold
    v -= threshold * spikes


def keep_all(v: np.ndarray, threshold: np.ndarray, spikes: np.ndarray) -> None:
    spikes[:] = v >= threshold


def reset_to_one(v: np.ndarray, threshold: np.ndarray, spikes: np.ndarray) -> None:
    spikes[:] = v >= threshold
    v[spikes == 1] = 1


def clip_late(v: np.ndarray, extremes: np.ndarray) -> int:
    """Clips at ±2²³ instead of ±(2²³ − 1)."""
    outside = np.abs(v.astype(np.int64)) > MEMBRANE_MAX
    np.clip(v, -(2**23), 2**23, out=v)
    return int(outside.sum())


def clip_uncounted(v: np.ndarray, extremes: np.ndarray) -> int:
    np.clip(v, -MEMBRANE_MAX, MEMBRANE_MAX, out=v)
    return 0


def without_bias(v: np.ndarray, current: np.ndarray, bias: np.ndarray) -> None:
    v += current.astype(np.int32)


def packed_from_below(spikes: np.ndarray) -> np.ndarray:
    return np.packbits(spikes, axis=-1, bitorder="little")


def first_lost(packed: np.ndarray) -> np.ndarray:
    packed[..., 0] &= 0x7F
    return packed


PACKED = ("nqlava.trace.pack", "nqlava.engine.integer.pack", "deploy.lava.models.pack", "deploy.lava.schedule.pack")


def pack_everywhere(function: Callable[..., Any]) -> Damage:
    return together(*(instead(target, function) for target in PACKED))


def upside_down(patch: pytest.MonkeyPatch) -> None:
    """Images, as engine and Lava get them."""
    for owner, name in ((Engine, "run"), (build, "run")):
        real = getattr(owner, name)

        def turned(first: Any, images: np.ndarray, *args: Any, real: Any = real, **named: Any) -> Any:
            return real(first, images[:, :, ::-1], *args, **named)

        patch.setattr(owner, name, turned)


def other_weights(merged: Any) -> None:
    weight = merged.weight.copy()
    weight[0].flat[0] += 1 if weight[0].flat[0] < 100 else -1
    merged.convolution = replace(merged.convolution, weight=weight)


def more(name: str, by: int) -> Callable[[Any], Any]:
    """Neurons of a layer with one kind of value changed."""
    return lambda neurons: neurons._replace(**{name: neurons._asdict()[name] + np.int32(by)})


def digest_without_readout(trace: Any, network: str, start: int = 0) -> int:
    return start + sum(int(layer.sum()) for layer in trace.spikes)


def image_overwritten(patch: pytest.MonkeyPatch) -> None:
    real = Synapses.sums

    def sums(synapses: Synapses, inputs: torch.Tensor) -> torch.Tensor:
        if synapses.source == "input":
            inputs[..., 0] = 0
        return real(synapses, inputs)

    patch.setattr(Synapses, "sums", sums)


SHARED: dict[str, Damage] = {
    "image overwritten by a kernel": image_overwritten,
    "count of spikes": instead("nqlava.trace._ones", lambda packed: 0),
    "synaptic sums": around("nqlava.engine.cpu.synapses.Synapses.sums", lambda sums: sums + 7),
    "sums of the first source left out": around("nqlava.engine.cpu.layer.merge", lambda merged: merged[-1:]),
    "merged weights": after("nqlava.merged.Merged.__init__", lambda merged, *_: other_weights(merged)),
    "shared exponent": around(
        "nqlava.merged.Merged", lambda merged: (setattr(merged, "exponent", merged.exponent + 1), merged)[1]
    ),
    "float kernel": together(no_int8, around("nqlava.engine.cpu.synapses._floating", lambda run: lambda x: run(x) + 1)),
    "int8 convolution": around("nqlava.engine.cpu.synapses.prepare_int8", only_many),
    "int8 convolution, seen by the trial": around(
        "nqlava.engine.cpu.synapses.prepare_int8", lambda run: lambda x: run(x) + 1
    ),
    "int8 product": around("nqlava.engine.cpu.synapses.prepare_int8_product", only_many),
    "events": together(always_events, around("nqlava.engine.cpu.events.Events.sums", lambda sums: sums + 1)),
    "pooling": around("nqlava.network.find_window", lambda c: replace(c, weight=np.roll(c.weight, 1, 2))),
    "window sums": after("nqlava.engine.cpu.synapses.window_sums", lambda *args: args[-1].__iadd__(1)),
    "addition of currents": in_kernel("_add32", without_bias),
    "threshold reached": in_kernel("_fire_soft", fire_late),
    "soft reset": in_kernel("_fire_soft", keep_all),
    "hard reset": in_kernel("_fire_hard", reset_to_one),
    "clip": in_kernel("_observe", clip_late),
    "count of saturations": in_kernel("_observe", clip_uncounted),
    "shortcut": in_kernel("_add_shortcut", lambda v, spikes, factor: None),
    "read-out": after("nqlava.engine.cpu.layer.integrate", lambda *args: args[-1].__iadd__(1)),
    "bias": around("nqlava.engine.cpu.layer.Neurons", more("bias", 1)),
    "threshold": around("nqlava.engine.cpu.layer.Neurons", more("threshold", 1)),
    "v(0)": around("nqlava.engine.cpu.layer.Neurons", more("v0", 1)),
    "potentials kept": in_kernel("_copy", lambda values, to: to.__setitem__(slice(None), values | 1)),
    "currents of all steps": around("nqlava.engine.cpu.layer._currents", lambda found: found._replace(steps=1)),
    "order of the bits": pack_everywhere(packed_from_below),
    "a bit lost": pack_everywhere(lambda spikes: first_lost(np.packbits(spikes, axis=-1))),
    "axis order of the image": upside_down,
    "axis order of weights": around(
        "nqlava.network.find_window", lambda c: replace(c, weight=c.weight[..., ::-1].copy())
    ),
    "delay of spikes": around("deploy.lava.models._Input.values", lambda values: values[::-1].copy()),
    "schedule": around("deploy.lava.schedule.Schedule.local", lambda local: local and (local[0], local[1] % STEPS + 1)),
    "recorder": after("deploy.lava.schedule.Recorder.record", lambda r, t, *_: r.values.__setitem__((0, 0), 0)),
    "comparison of engine and Lava": together(
        instead("deploy.compare.compare.count_differences", lambda one, two: (0,) * (len(one.spikes) + 1)),
        after("deploy.lava.schedule.Recorder.record", lambda r, t, *_: r.values.__setitem__((0, 0), 0)),
    ),
    "digest": instead("nqlava.trace.Trace.digest", digest_without_readout),
    "classes": around("nqlava.trace.Trace.classes", lambda classes: (classes + 1) % 5),
}
"""What the engine shares with Lava's processes of whole layers, and what damages it."""

BEHIND_SYNAPSES: dict[str, Damage] = {
    "integration": around("deploy.lava.models.integrate", lambda saturated: torch.ones(1, dtype=torch.int64)),
    "firing": around("deploy.lava.models.fire", torch.logical_not),
    "sums": around("nqlava.engine.layer.Sums.sums", lambda sums: sums + 1),
}
"""What only the backend netx has."""
EVERYWHERE = ("order of the bits", "a bit lost", "axis order of the image", "schedule", "recorder", "digest", "classes")
CASES = [
    *(pytest.param("cpu", damage, id=f"cpu-{name}") for name, damage in SHARED.items()),
    *(
        pytest.param("netx", damage, id=f"netx-{name}", marks=needs_lava_dl)
        for name, damage in (BEHIND_SYNAPSES | {name: SHARED[name] for name in EVERYWHERE}).items()
    ),
    *(pytest.param("stock", SHARED[name], id=f"stock-{name}") for name in EVERYWHERE),
]


def run(folder: Path, backend: str) -> int:
    net = folder / ("graph.h5" if backend == "cpu" else "sequence.h5")
    samples = SAMPLES if backend == "cpu" else 2
    options = ["--T", str(STEPS), "--samples", str(samples), "--data", str(folder / "images"), "--backend", backend]
    return run_lava.main([str(net), *options, "--reference-samples", "all", "--batch", "12"])


@pytest.mark.parametrize("backend", ["cpu", pytest.param("netx", marks=needs_lava_dl), "stock"])
def test_undamaged(folder: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, backend) == 0
    assert "EXACT: Lava = engine" in capsys.readouterr().out


def used() -> list[tuple[str, ...]]:
    """Kernels of the layers of ``graph``."""
    network = graph()
    return [CpuLayer(one, network.shape_of).kernels for one in network.layers]


@pytest.mark.parametrize(("backend", "damage"), CASES)
def test_damage_is_noticed(
    folder: Path, backend: str, damage: Damage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = used()
    int8_limit.cache_clear()
    events._TRIALS.clear()
    damage(monkeypatch)
    status = run(folder, backend)
    printed = capsys.readouterr().out
    if status == 0:
        assert backend == "cpu" and used() != before, "the damage passed unseen"
        return
    assert status == 1
    assert "NOT EXACT: " in printed.splitlines()[-1]
    assert "sample 0, " in printed.splitlines()[-1] or "the first: sample " in printed.splitlines()[-1]


def test_a_backend_that_runs_fewer_steps_is_found_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = build.Pipeline
    monkeypatch.setattr(
        build, "Pipeline", lambda network, images, steps, **more: real(network, images, steps - 1, **more)
    )
    assert run(folder, "cpu") == 3
    assert "2 time steps were run; expected: 3" in capsys.readouterr().err


def test_every_piece_is_in_the_log() -> None:
    page = (Path(__file__).resolve().parents[2] / "lab" / "reliability.md").read_text(encoding="utf-8")
    assert [name for name in (*SHARED, *BEHIND_SYNAPSES) if f"| {name} |" not in page] == []
