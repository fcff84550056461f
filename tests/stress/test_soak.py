"""The soak runs real deployments, and finds what a run leaves behind."""

import tempfile
from itertools import repeat
from pathlib import Path

import pytest

from stress import soak
from stress.soak import COUNTS, MEMORY, Bench, grown, rise

NAMES = ("seconds", *MEMORY, *COUNTS)
FLAT = [
    dict(zip(NAMES, (second, 500.0 + second % 2, 11.0, 400.0, 8, 1, 1, 0, 0), strict=True))
    for second in range(0, 3601, 60)
]


def test_a_short_soak(tmp_path: Path) -> None:
    figures, failures = soak.run(0.01, 0, tmp_path)
    assert failures == []
    assert figures["runs"] == figures["runs: engine alone"] == 1
    assert "own memory, fitted rise after the warm-up" in figures
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("kind", [soak.lava, soak.written_file, soak.bad_files, soak.command])
def test_runs_hold_what_they_claim(kind: soak.Kind, tmp_path: Path) -> None:
    kind(Bench(tmp_path, 0))


def test_other_results_than_before_are_a_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 0)
    bench.same("00", "net", 3)
    bench.same("11", "net", 4)
    with pytest.raises(AssertionError, match="digest 11, at first 00"):
        bench.same("11", "net", 3)


def test_what_a_run_leaves_is_measured(tmp_path: Path) -> None:
    before = soak.measure(tmp_path)
    with tempfile.NamedTemporaryFile(dir=tmp_path):
        after = soak.measure(tmp_path)
    assert (after["open files"], after["temporary files"]) == (before["open files"] + 1, 1)
    assert soak.measure(tmp_path)["open files"] == before["open files"]


def test_runs_that_fail_end_the_soak(tmp_path: Path) -> None:
    def fails(bench: Bench) -> None:
        raise ValueError("this is why")

    figures, failures = soak.soak(repeat(fails), Bench(tmp_path, 0), 600, tmp_path, tmp_path / "table.csv")
    assert failures[0] == "fails, number 1: this is why"
    assert figures["runs: fails"] == soak._FAILURES


def test_flat_is_flat() -> None:
    assert grown(FLAT) == []


def test_nothing_rises_in_no_time() -> None:
    assert rise([FLAT[0], FLAT[0] | {"own memory": 900.0}], "own memory") == 0


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("own memory", lambda s, old: old + s / 100, ["own memory: rises by 27"]),
        ("own memory", lambda s, old: old + s / 200, []),  # 13.5 MiB
        ("own memory", lambda s, old: 300.0 if s < 600 else old, []),  # the warm-up
        ("threads", lambda s, old: old + (s == 1800), ["threads: 1 to 2"]),
        ("child processes", lambda s, old: old + (s == 3600), ["child processes: 1 to 2"]),
        ("open files", lambda s, old: old - (s < 600), []),
    ],
)
def test_what_grew(name: str, change, found: list[str]) -> None:
    changed = grown([sample | {name: change(sample["seconds"], sample[name])} for sample in FLAT])
    assert len(changed) == len(found)
    assert all(line.startswith(start) for line, start in zip(changed, found, strict=True))
