"""The campaign on a few networks; EXAMPLES=300 in the environment tries that many."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from campaign import agreement
from campaign.plan import Plan

from nqlava import netx
from nqlava.engine.cpu.layer import CpuLayer
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace

EXAMPLES = int(os.environ.get("EXAMPLES", "8"))


@pytest.mark.slow
def test_every_way_to_run_a_random_network_gives_the_same(tmp_path: Path) -> None:
    seen, failures = agreement.agree(EXAMPLES, 0, 3600, tmp_path)
    assert failures == []
    print(", ".join(f"{name}: {count}" for name, count in seen.most_common()))
    assert seen["networks"] == EXAMPLES and seen["spiking"] > EXAMPLES / 3


@pytest.mark.slow
def test_a_difference_is_found_made_smaller_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that forgets hard resets agrees with the reference wherever there is none."""
    right = CpuLayer.__init__

    def forgets(self: CpuLayer, *arguments: object) -> None:
        right(self, *arguments)  # type: ignore[arg-type]
        self._neurons = self._neurons._replace(hard=False)

    def only_the_engine(network: IntegerNetwork, images: np.ndarray, steps: int, **_: object) -> list[Trace]:
        return [Engine(network).run(images, steps)]

    monkeypatch.setattr(CpuLayer, "__init__", forgets)
    monkeypatch.setattr("campaign.agreement.KINDS", ("fastest",))
    monkeypatch.setattr("campaign.agreement.build.run", only_the_engine)
    seen, (line,) = agreement.agree(50, 0, 3600, tmp_path)
    assert re.search(r"failed\.h5, T \d, gap \d, batch \d, processes \d: ", line)
    assert [layer.reset for layer in netx.read(tmp_path / "failed.h5").layers].count("hard") == 1
    assert 0 < seen["networks"] < 50


def test_every_processor_gets_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own, told to be other processors; here one that prints what it was given."""
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho "$@" >> calls\necho "$ONEDNN_MAX_CPU_ISA" >> calls\n'
        'echo \'{"seen": {"networks": \'$3\'}, "failures": []}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(program))
    outcome = agreement.run(Plan(share=0.007, seconds=60, seed=3, folder=tmp_path))
    assert outcome.failures == [] and outcome.figures["networks"] == 7
    assert json.dumps(outcome.figures)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].startswith("-m campaign.agreement 1 3 ") and calls[1] == ""
    assert calls[3::2] == [variables["ONEDNN_MAX_CPU_ISA"] for variables in list(agreement.PROCESSORS.values())[1:]]
