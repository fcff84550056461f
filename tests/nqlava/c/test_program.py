"""The C program computes what the reference computes, without a warning and without undefined behaviour."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nqlava.c.errors import CompilerError, ProgramError
from nqlava.c.plan import plan
from nqlava.c.program import Program, build, compiler
from nqlava.network import IntegerNetwork
from nqlava.testing.engines import assert_same, judged
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks
from tests.nqlava.c.networks import EDGES, decided_early, needs_compiler, readout_alone

WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
QUICK = [*WARNINGS, "-O0"]


def assert_exact(folder: Path, networks: Sequence[IntegerNetwork], flags: Sequence[str]) -> Program:
    """Every spike, potential, read-out and saturation of all the networks, in one program."""
    program = build([plan(network) for network in networks], folder, flags)
    for number, network in enumerate(networks):
        images, steps = images_for(network, 3), 1 + number % 6
        trace = program.traces(number, images, steps, potentials=True, processes=1 + number % 2)
        assert_same(judged(network, images, steps), trace)
    return program


@needs_compiler
def test_edges(tmp_path: Path) -> None:
    made = [edge() for edge in EDGES]
    assert plan(made[1]).wide and not plan(made[0]).wide
    assert_exact(tmp_path, made, QUICK)


@needs_compiler
@settings(max_examples=2, phases=[Phase.generate])
@given(st.lists(networks(), min_size=6, max_size=6))
def test_random_networks(tmp_path_factory: pytest.TempPathFactory, made: list[IntegerNetwork]) -> None:
    assert_exact(tmp_path_factory.mktemp("program"), made, QUICK)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("gcc", ["-O1", *SANITIZERS]),
        ("clang", ["-O1", "-DSNN_KEEP_CURRENT=0", *SANITIZERS]),
        ("gcc", ["-O1", "-m32"]),
    ],
)
def test_compilers_and_sanitizers(
    command: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    monkeypatch.setenv("CC", command)
    (tmp_path / "main.c").write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
    trial = [command, *flags, str(tmp_path / "main.c"), "-o", str(tmp_path / "main")]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip(f"{command} has no libraries for {' '.join(flags)}")
    made = [edge() for edge in EDGES]

    @settings(max_examples=1, phases=[Phase.generate], derandomize=True)
    @given(st.lists(networks(), min_size=5, max_size=5))
    def more(drawn: list[IntegerNetwork]) -> None:
        made.extend(drawn)

    more()
    (tmp_path / "program").mkdir()
    assert_exact(tmp_path / "program", made, [*WARNINGS, *flags])


@needs_compiler
def test_early_exit_takes_fewer_steps_and_gives_the_same_class(tmp_path: Path) -> None:
    made = [decided_early(), readout_alone()]
    program = build([plan(network, early=True) for network in made], tmp_path, QUICK)
    for number, network in enumerate(made):
        images = images_for(network, 12)
        expected = [int(run.classes[-1]) for run in judged(network, images, 8)]
        found, steps = program.classes(number, images, 8)
        assert found.tolist() == expected
        assert steps.min() >= 1 and (steps.max() < 8 or number == 1)


@needs_compiler
@settings(max_examples=2, phases=[Phase.generate])
@given(st.lists(networks(), min_size=5, max_size=5))
def test_early_exit_of_random_networks(tmp_path_factory: pytest.TempPathFactory, made: list[IntegerNetwork]) -> None:
    program = build([plan(network, early=True) for network in made], tmp_path_factory.mktemp("early"), QUICK)
    for number, network in enumerate(made):
        images = images_for(network, 4)
        for steps in (1, 5):
            expected = [int(run.classes[-1]) for run in judged(network, images, steps)]
            assert program.classes(number, images, steps)[0].tolist() == expected


def test_no_compiler_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerError, match=r"^no C compiler .* is installed; install gcc or clang, or name"):
        compiler()
    monkeypatch.setenv("CC", "nowhere -O3")
    with pytest.raises(CompilerError, match=r"^CC is nowhere, which is no program; install"):
        compiler()


@needs_compiler
def test_failures_of_compiler_and_program(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(CompilerError, match=r"--no-such-flag: ended with status 1: "):
        build([plan(readout_alone())], tmp_path / "one", ["--no-such-flag"])
    (tmp_path / "two").mkdir()
    program = build([plan(readout_alone())], tmp_path / "two", QUICK)
    program.path.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(ProgramError, match="program: ended with status 3: broken"):
        program.traces(0, np.zeros((1, 3, 2, 5), np.uint8), 2)
