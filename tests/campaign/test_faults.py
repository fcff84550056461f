"""The campaigns of faults notice what they look for, and find nothing in a few faults of each kind."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest

from campaign import full_disk, lava_faults
from campaign.plan import Plan
from campaign.sandbox import Sandbox
from campaign.training_kills import differences
from deploy.lava.models import PyLayerGroup
from nqlava import netx
from tests.tiny import random_tiny, tiny
from train.loop import checkpoint
from train.model.models import MODELS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("nothing", None),
        ("process", r"ended only after .* sleep 3"),
        ("memory", "left /dev/shm/psm_left"),
        ("folder", r"left \$TMPDIR/pymp-"),
        ("traceback", "a traceback on stderr"),
    ],
)
def test_what_a_command_leaves_is_noticed(tmp_path: Path, what: str, problem: str | None) -> None:
    with Sandbox(tmp_path) as sandbox:
        if what == "memory" and not sandbox.private:
            pytest.skip("needs a mount namespace, so that other programs do not count")
        found = sandbox.start(["tests.campaign.leaving", what]).end(0.1 if what == "process" else 60).check([0])
    assert (problem is None and not found) or (problem and re.search(problem, " ".join(found)))


def test_commands_heed_signals_that_the_campaign_ignores(tmp_path: Path) -> None:
    """As one that was started with nohup."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Sandbox(tmp_path) as sandbox:
            watched = sandbox.start(["http.server", "0"])
            watched.signal(signal.SIGHUP, group=True)
            assert watched.end(60).status == -signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_changed_weights_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        content = checkpoint.model_content(random_tiny(seed), "tiny", tuple("abcde"), {"epoch": 1})
        checkpoint.save(tmp_path / name, content)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    assert "differs from that of the uninterrupted training" in differences(tmp_path / "a", tmp_path / "c")[0]


def test_every_process_model_of_the_project_fails_in_the_campaign() -> None:
    from deploy.lava import convolution, lava_dl_network, models

    tried = {model for names in lava_faults.MODELS.values() for model in names}
    own = {
        f"{module.__name__.removeprefix('deploy.lava.')}.{name}"
        for module in (models, convolution, lava_dl_network)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and name.startswith("Py")
    }
    assert own - tried == {"lava_dl_network.PyRecordedLif"}, "of networks whose neurons are never reset"
    assert {name for name in tried - own if not name.startswith("lava.")} == set(), "of Lava, or not there any more"


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    outcome = full_disk.run(Plan(0.1, 60, 0, tmp_path))
    assert not outcome.failures, outcome.failures
    assert outcome.figures.get("refused, the old file kept", 1) == 1


@pytest.mark.slow
def test_a_model_that_fails_in_a_command(tmp_path: Path) -> None:
    net = tmp_path / "net.h5"
    netx.write(lava_faults.small_network(0), net)
    with Sandbox(tmp_path / "sandbox") as sandbox:
        command = ["campaign.failing", "after", f"{PyLayerGroup.__module__}.PyLayerGroup", "deploy.run_lava", str(net)]
        ending = sandbox.start([*command, "--T", "2", "--samples", "2"]).end(60)
    assert ending.check([lava_faults.FAILED], said="on purpose", traceback=True) == []


def test_the_small_network_spikes() -> None:
    from nqlava.engine.integer import Engine

    network = lava_faults.small_network(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    trace = Engine(network).run(images, 4)
    assert all(count > 0 for count in trace.spike_counts())
