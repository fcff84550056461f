"""Interrupted commands: what they leave is noticed, and a few interruptions leave nothing."""

import re
import signal
from pathlib import Path

import pytest

from stress import kills
from stress.kills import Job, differences
from stress.sandbox import Ending, Sandbox
from tests.tiny import random_tiny, tiny
from train.loop import checkpoint
from train.model.models import MODELS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("nothing", None),
        ("process", r"ended only after .*sleep 3"),
        ("folder", r"left \$TMPDIR/pymp-"),
        ("traceback", "a traceback on stderr"),
    ],
)
def test_what_a_command_leaves_is_noticed(tmp_path: Path, what: str, problem: str | None) -> None:
    with Sandbox(tmp_path) as sandbox:
        found = sandbox.start(["tests.stress.leaving", what]).end(0.1 if what == "process" else 60).check()
    assert (problem is None and not found) or (problem and re.search(problem, " ".join(found)))


def test_commands_heed_signals_that_are_ignored_here(tmp_path: Path) -> None:
    """As one that a shell runs in the background."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Sandbox(tmp_path) as sandbox:
            watched = sandbox.start(["http.server", "0"])
            watched.signal(signal.SIGINT, group=True)
            assert watched.end(60).status in (0, 130, -signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_changed_weights_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = checkpoint.ModelFile(random_tiny(seed), "tiny", tuple("abcde"), {"epoch": 1})
        checkpoint.write_model(tmp_path / name, model)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    assert "differs from that of the uninterrupted training" in differences(tmp_path / "a", tmp_path / "c")[0]


def test_what_is_left_in_shared_memory_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "shm").mkdir()
    with Sandbox(tmp_path / "sandbox", tmp_path / "shm") as sandbox:
        watched = sandbox.start(["tests.stress.leaving", "nothing"])
        (tmp_path / "shm" / "psm_left").touch()
        assert watched.end(60).problems == ["left /dev/shm/psm_left"]


def test_an_output_is_new_or_as_it_was(tmp_path: Path) -> None:
    job = Job("copy", [], tmp_path / "out", b"new".__eq__)
    job.begin()
    good, bad = (Ending(status, 0.0, "", "", []) for status in (0, 130))
    assert job.problems(bad) == [] and job.problems(good) == ["out is damaged"]
    job.output.write_bytes(b"ne")
    assert job.problems(bad) == ["out is damaged"]
    job.output.write_bytes(b"new")
    assert job.problems(good) == job.problems(bad) == []


@pytest.mark.slow
def test_a_few_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = kills._jobs
    monkeypatch.setattr(kills, "_jobs", lambda sandbox: [job for job in jobs(sandbox) if job.name == "deployment"])
    figures, failures = kills.run(40, 0, tmp_path)
    assert failures == [] and any("deployment" in name for name in figures)
