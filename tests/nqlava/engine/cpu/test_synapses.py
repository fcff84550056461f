"""Every kernel gives the exact sums, and is chosen where it should be."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nqlava.engine.cpu import synapses
from nqlava.engine.cpu.machine import int8_limit
from nqlava.engine.cpu.synapses import EXACT_FLOAT32, Synapses
from nqlava.merged import Merged
from nqlava.network import Connection
from nqlava.reference import synaptic_sum
from nqlava.testing.networks import random_connection

ROOT = Path(__file__).resolve().parents[4]

needs_int8 = pytest.mark.skipif(not int8_limit(), reason="no int8 kernels in use on this machine")


def sums(prepared: Synapses, maps: np.ndarray) -> np.ndarray:
    """Σ w · in of maps (n, C, H, W), as (n, O, H', W')."""
    in_order = np.ascontiguousarray(maps.transpose(0, 2, 3, 1))
    return prepared.sums(torch.from_numpy(in_order)).permute(0, 3, 1, 2).numpy()


def assert_exact(prepared: Synapses, connections: list[Connection], maps: np.ndarray) -> None:
    for got, x in zip(sums(prepared, maps), maps.astype(np.int64), strict=True):
        expected = sum(synaptic_sum(c, x) for c in connections)
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)


CASES = {
    "int8 convolution": ((5, 16, 17), {"kernel": (3, 3), "padding": (1, 1)}),
    "int8 convolution of groups": ((6, 5, 9), {"kernel": (3, 2), "groups": 3, "outputs": 9}),
    "int8 convolution of window sums": ((4, 34, 20), {"kernel": (3, 3), "padding": (1, 1), "window": 2}),
    "int8 wide": ((5, 6, 7), {"kernel": (3, 3), "padding": (1, 1)}),
    "int8 wide with stride": ((5, 9, 13), {"kernel": (3, 2), "padding": (0, 1), "stride": (2, 2)}),
    "int8 wide with gaps": ((3, 9, 7), {"kernel": (1, 1), "stride": (2, 2)}),
    "int8 wide without padding": ((3, 5, 8), {"kernel": (2, 2)}),
    "int8 product": ((5, 2, 2), {"kernel": (3, 3), "padding": (1, 1)}),
    "int8 product of all positions": ((5, 3, 3), {"kernel": (3, 3), "padding": (1, 1), "stride": (2, 1)}),
    "int8 product of window sums": ((7, 4, 4), {"window": 4}),
}


@needs_int8
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("largest", [1, 3])
def test_int8_kernels(name: str, largest: int) -> None:
    shape, options = CASES[name]
    rng = np.random.default_rng(0)
    connection = random_connection(rng, "source", shape, **{"outputs": 8, **options})
    prepared = Synapses(Merged([connection], shape, largest), double=False)
    assert name.startswith(prepared.kernel)
    assert_exact(prepared, [connection], rng.integers(0, largest + 1, (5, *shape)).astype(np.uint8))


@needs_int8
def test_factors_that_all_weights_share_are_a_scale() -> None:
    """127 · 2⁷ fits no int8, but is 127 with the scale 128; two digits of one weight add up before that."""
    rng = np.random.default_rng(0)
    shape = (3, 9, 9)
    one = random_connection(rng, "source", shape, outputs=4, kernel=(3, 3), exponent=7)
    prepared = Synapses(Merged([one], shape, 1), double=False)
    maps = rng.integers(0, 2, (3, *shape)).astype(np.uint8)
    assert prepared.kernel == "int8 wide"
    assert_exact(prepared, [one], maps)
    other = random_connection(rng, "source", shape, outputs=4, kernel=(3, 3))
    both = Synapses(Merged([one, other], shape, 1), double=False)
    assert both.kernel == "float32"
    assert_exact(both, [one, other], maps)


@pytest.mark.parametrize(("largest", "double", "kernel"), [(255, False, "float32"), (1, True, "float64")])
def test_without_int8(monkeypatch: pytest.MonkeyPatch, largest: int, double: bool, kernel: str) -> None:
    monkeypatch.setattr(synapses, "int8_limit", lambda: 128)
    rng = np.random.default_rng(0)
    connection = random_connection(rng, "source", (3, 8, 6), outputs=4, kernel=(3, 3), window=2)
    prepared = Synapses(Merged([connection], (3, 8, 6), largest), double=double)
    assert prepared.kernel == kernel
    assert_exact(prepared, [connection], rng.integers(0, largest + 1, (2, 3, 8, 6)).astype(np.uint8))


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("EXAMPLES", "60")), deadline=None)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    """Also where kernels are larger than the map, or lie in the padding as a whole."""

    def pair(low: int, high: int) -> tuple[int, int]:
        alike = st.integers(low, high).map(lambda size: (size, size))
        return data.draw(alike | st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, dilation, padding, stride = pair(1, 5), pair(1, 2), pair(0, 3), pair(1, 3)
    height, width = pair(1, 12)
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    assume(reach[0] <= height and reach[1] <= width)
    groups = data.draw(st.sampled_from((1, 1, 2)))
    channels = groups * data.draw(st.sampled_from((1, 2, 16, 32)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    connection = random_connection(
        rng,
        "source",
        (channels, height, width),
        outputs=groups * data.draw(st.sampled_from((1, 3, 32))),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    merged = Merged([connection], (channels, height, width), 255)
    prepared = Synapses(merged, double=merged.bound >= EXACT_FLOAT32)
    samples = data.draw(st.sampled_from((1, 2, 20)))
    assert_exact(prepared, [connection], rng.integers(0, 256, (samples, channels, height, width)).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["AVX2_VNNI", "AVX512_CORE_VNNI"])
def test_any_convolution_with_other_instructions(instructions: str) -> None:
    """oneDNN has other kernels for other processors: it is told which instructions it may use."""
    test = f"{__file__}::test_any_convolution"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            test,
            "-p",
            "no:cacheprovider",
            "--rootdir",
            ROOT,
            "-c",
            ROOT / "pyproject.toml",
        ],
        cwd=ROOT,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions},
        check=True,
    )


UNCOMMON = {
    "kernel in the padding": ({"kernel": (1, 1), "padding": (1, 1)}, "float64"),
    "padding of more than half": ({"kernel": (3, 3), "padding": (2, 1)}, "float64"),
    "dilated beyond the map": ({"kernel": (1, 5), "padding": (0, 2), "dilation": (1, 4)}, "float64"),
    "dilated": ({"kernel": (3, 3), "padding": (1, 1), "dilation": (2, 2)}, "float32"),
    "different strides": ({"kernel": (3, 3), "padding": (1, 1), "stride": (2, 1)}, "float32"),
    "groups with few outputs in a row": ({"kernel": (3, 3), "stride": (3, 3), "groups": 2}, "float32"),
}


@pytest.mark.parametrize("name", UNCOMMON)
def test_uncommon_geometries_take_no_int8(name: str) -> None:
    options, kernel = UNCOMMON[name]
    rng = np.random.default_rng(0)
    connection = random_connection(rng, "source", (4, 16, 16), **{"outputs": 6, **options})
    prepared = Synapses(Merged([connection], (4, 16, 16), 1), double=False)
    assert prepared.kernel == kernel
    assert_exact(prepared, [connection], rng.integers(0, 2, (3, 4, 16, 16)).astype(np.uint8))


@needs_int8
def test_a_wrong_int8_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial of the machine passes; the trial of this geometry does not."""
    right = synapses.prepare_int8
    monkeypatch.setattr(synapses, "prepare_int8", lambda *a, **options: lambda x: right(*a, **options)(x).add_(1))
    rng = np.random.default_rng(0)
    connection = random_connection(rng, "source", (4, 16, 16), outputs=6, kernel=(3, 3))
    prepared = Synapses(Merged([connection], (4, 16, 16), 1), double=False)
    assert prepared.kernel == "float32"
    assert_exact(prepared, [connection], rng.integers(0, 2, (3, 4, 16, 16)).astype(np.uint8))
