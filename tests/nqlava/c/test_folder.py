"""The written folder: its bytes, its self test here and on an emulated Cortex-M, and what it leaves alone."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nqlava.c.folder import FILES, write
from nqlava.c.plan import plan
from nqlava.errors import FileError, InputError
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, small_networks
from tests.nqlava.c.networks import needs_compiler, needs_emulation


def written(network: IntegerNetwork, folder: Path, *, early: bool = False) -> dict[str, bytes]:
    write(plan(network, early=early), folder, images_for(network, 3), 3)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "-C", str(folder), *words], capture_output=True, text=True, check=False
    )


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    network = small_networks()[1]
    one, two = written(network, tmp_path / "new" / "one"), written(network, tmp_path / "two")
    assert one == two and sorted(one) == sorted(FILES)
    assert written(network, tmp_path / "two") == two, "its own files are replaced"
    assert not any(b"@" in text for name, text in one.items() if name != "Makefile"), "every place is filled"


@needs_compiler
@pytest.mark.parametrize("number", range(3))
def test_self_test_passes_and_can_fail(number: int, tmp_path: Path) -> None:
    written(small_networks()[number], tmp_path, early=number == 1)
    done = make(tmp_path, "check", "CFLAGS=-O1 -Werror")
    assert done.returncode == 0 and done.stdout.endswith("EXACT: every spike and read-out is equal\n"), done.stderr
    source = (tmp_path / "network.c").read_text()
    *_, bias = re.finditer(r"_bias\[\d+\] = {\s*(-?\d+)", source)  # of the read-out
    changed = source[: bias.start(1)] + str(int(bias[1]) + 1) + source[bias.end(1) :]
    (tmp_path / "network.c").write_text(changed)
    done = make(tmp_path, "check")
    assert done.returncode != 0 and "NOT EXACT" in done.stdout


@needs_compiler
def test_names_from_a_file_cannot_write_code(tmp_path: Path) -> None:
    network = small_networks()[0]
    names = ['*/ #error "x"', 'x"; int y = 1 /* \\', "??/"]
    renamed = dict(zip([layer.name for layer in network.layers], names, strict=False))
    layers = [
        replace(
            layer,
            name=renamed[layer.name],
            connections=tuple(replace(c, source=renamed.get(c.source, c.source)) for c in layer.connections),
        )
        for layer in network.layers
    ]
    files = written(IntegerNetwork(network.input_shape, tuple(layers), {"T": 3}), tmp_path)
    assert not any(name.encode() in text for name in names for text in files.values())
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-trigraphs", "-c", "network.c"]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    network = small_networks()[0]
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(InputError, match=r"Makefile: was not written by export.to_c; name another folder"):
        written(network, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
    with pytest.raises(InputError, match=r"Makefile: is not a folder"):
        written(network, tmp_path / "Makefile")
    with pytest.raises(FileError, match=r"Makefile/deeper/.* cannot be written; choose"):
        written(network, tmp_path / "Makefile" / "deeper")


@needs_emulation
@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_emulated_cortex_m(number: int, tmp_path: Path) -> None:
    planned = plan(small_networks()[number])
    written(planned.network, tmp_path)
    done = make(
        tmp_path, "emulate", "WARNINGS=-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Werror"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("EXACT: every spike and read-out is equal\n")
    counts = [int(found) for found in re.findall(r"^image \d: class \d+, instructions (\d+)$", done.stdout, re.M)]
    assert len(counts) == 3 and all(1000 < count < 10**8 for count in counts)
    command = "arm-none-eabi-gcc -mcpu=cortex-m7 -mthumb -std=c99 -c network.c -o network.o"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    sizes = subprocess.run(
        ["arm-none-eabi-size", "network.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    tables = int(sizes.stdout.splitlines()[1].split()[0])
    assert abs(tables - planned.memory.tables) < 100, "but for alignment"
