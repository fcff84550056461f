"""deploy.run_lava --backend c: the same verdict and digest as in Lava, and a program that is wrong is found."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import run_lava
from nqlava import netx
from nqlava.c import backend
from nqlava.network import IntegerNetwork
from tests.nqlava.c.networks import needs_compiler
from tests.test_run_lava import small_network


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backend, "user_cache_path", lambda _name: tmp_path / "cache")
    netx.write(small_network({"T": 2}), tmp_path / "net.h5")
    return tmp_path / "net.h5"


def run(net: Path, *options: str) -> tuple[int, dict[str, object]]:
    result = net.with_name("result.json")
    status = run_lava.main([str(net), "--samples", "70", *options, "--json", str(result)])
    return status, json.loads(result.read_text())


@needs_compiler
def test_same_digest_as_in_lava(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run(net, "--backend", "c", "--reference-samples", "3")
    printed = capsys.readouterr().out
    assert status == 0 and found["exact"] and found["accuracy_c"] == found["accuracy_integer"]
    line = "EXACT: C = engine in every spike and read-out of 70 images, reference = engine = C on 3 of them"
    assert printed.splitlines()[-1] == line and "Lava" not in printed
    (program,) = (net.parent / "cache" / "c").iterdir()
    built = program.stat().st_mtime_ns
    assert run(net, "--backend", "c")[0] == 0
    assert program.stat().st_mtime_ns == built, "it is built once"
    assert run(net)[1]["digest"] == found["digest"]


@needs_compiler
def test_a_wrong_program_is_not_exact(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = backend.plan

    def of_another(network: IntegerNetwork) -> object:
        first, *others = network.layers
        threshold = first.threshold + np.array([0, 0, 40, 0], np.int32)
        changed = replace(first, threshold=threshold)
        return real(replace(network, layers=(changed, *others)))

    monkeypatch.setattr(backend, "plan", of_another)
    assert run(net, "--backend", "c")[0] == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("NOT EXACT: sample ") and "; C and the engine differ in " in printed[-1]


@pytest.mark.parametrize(("variable", "value"), [("CC", "nowhere"), ("PATH", os.devnull)])
def test_no_compiler(
    net: Path, variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv(variable, value)
    assert run_lava.main([str(net), "--samples", "2", "--backend", "c"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; install gcc or clang, or name a compiler in CC")


def test_no_report(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_lava.main([str(net), "--backend", "c", "--report", str(net.with_name("report.html"))]) == 2
    assert "--report is about runs in Lava; allowed: without --backend c" in capsys.readouterr().err
