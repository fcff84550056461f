"""The soak runs real deployments, and finds what a run leaves behind."""

import tempfile
from dataclasses import replace
from itertools import repeat
from multiprocessing import shared_memory
from pathlib import Path

import pytest
from campaign import soak
from campaign.plan import Plan
from campaign.soak import Bench, Sample, grown, rise

FLAT = [Sample(float(second), 500.0 + second % 2, 11.0, 400.0, 8, 1, 1, 0, 0) for second in range(0, 3601, 60)]


def test_a_short_soak(tmp_path: Path) -> None:
    outcome = soak.run(Plan(share=0.0001, seconds=60, seed=0, folder=tmp_path))
    assert outcome.failures == []
    assert outcome.figures["runs"] == outcome.figures["runs: engine alone"] == 1
    assert "fitted rise" in str(outcome.figures["own memory, MiB"])
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
    meter = soak.Meter(tmp_path)
    before = meter.measure()
    with tempfile.NamedTemporaryFile(dir=tmp_path):
        after = meter.measure()
    assert (after.files, after.temporary) == (before.files + 1, 1)
    assert meter.measure().files == before.files


def test_runs_that_fail_end_the_soak(tmp_path: Path) -> None:
    def fails(bench: Bench) -> None:
        raise ValueError("this is why")

    outcome = soak.soak(repeat(fails), Bench(tmp_path, 0), 600, tmp_path, tmp_path / "table.csv")
    assert outcome.failures[0] == "fails, number 1: this is why"
    assert outcome.figures["runs: fails"] == soak._FAILURES


@pytest.mark.slow
def test_shared_memory_of_other_programs_does_not_count(tmp_path: Path) -> None:
    meter = soak.Meter(tmp_path)
    one = shared_memory.SharedMemory(create=True, size=1)
    try:
        assert [meter.measure().shared for _ in range(2)] == [1, 1]
        assert soak.Meter(tmp_path).measure().shared == 0  # it was there before
    finally:
        one.close()
        one.unlink()
    assert meter.measure().shared == 0


def test_flat_is_flat() -> None:
    assert grown(FLAT) == []


def test_nothing_rises_in_no_time() -> None:
    assert rise([FLAT[0], replace(FLAT[0], memory=900.0)], "memory") == 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s: {"memory": s.memory + s.seconds / 100}, ["own memory, MiB: rises by 27"]),
        (lambda s: {"memory": s.memory + s.seconds / 200}, []),  # 13.5 MiB
        (lambda s: {"memory": 300.0 if s.seconds < 600 else s.memory}, []),  # the warm-up
        (lambda s: {"threads": 1 + (s.seconds == 1800)}, ["threads: 1 to 2"]),
        (lambda s: {"children": 1 + (s.seconds == 3600)}, ["child processes: 1 to 2"]),
        (lambda s: {"files": 8 - (s.seconds < 600)}, []),
    ],
)
def test_what_grew(change, found: list[str]) -> None:
    changed = grown([replace(sample, **change(sample)) for sample in FLAT])
    assert len(changed) == len(found)
    assert all(line.startswith(start) for line, start in zip(changed, found, strict=True))
