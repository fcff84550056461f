"""The comparison on a few networks; EXAMPLES=300 in the environment tries that many."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from nqlava import netx
from nqlava.engine.cpu.layer import CpuLayer
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.testing.cpu_modes import MODES
from nqlava.trace import Trace
from stress import agreement

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
    monkeypatch.setattr("stress.agreement.KINDS", ("fastest",))
    monkeypatch.setattr("stress.agreement.build.run", only_the_engine)
    seen, (line,) = agreement.agree(50, 0, 3600, tmp_path)
    assert re.search(r"failed\.h5, T \d, gap \d, batch \d, processes \d: ", line)
    assert [layer.reset for layer in netx.read(tmp_path / "failed.h5").layers].count("hard") == 1
    assert 0 < seen["networks"] < 50


def test_every_processor_gets_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own, told to be other processors; here one that prints what it was given."""
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho "$@" >> calls\necho "$NQ_LAVA_CPU_MODE" >> calls\n'
        'echo \'{"seen": {"networks": 2}, "failures": []}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NQ_LAVA_CPU_MODE", raising=False)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(agreement, "missing", lambda mode: ["avxvnni"] if mode == "avx2-vnni" else [])
    figures, failures = agreement.run(60, 3, tmp_path)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].startswith("-m stress.agreement 3000000 ") and calls[2].startswith("-m stress.agreement 3010000 ")
    assert calls[1::2] == ["", *(mode for mode in MODES if mode != "avx2-vnni")]
    assert failures == [] and figures["networks"] == len(calls)
