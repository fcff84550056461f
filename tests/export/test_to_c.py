"""export.to_c: what it prints and writes, and what it refuses in one line."""

import subprocess
from pathlib import Path

import pytest

from export import to_netx
from export.to_c import main
from nqlava import netx
from nqlava.c.folder import FILES
from tests.nqlava.c.networks import needs_compiler, needs_emulation, readout_alone
from tests.test_run_lava import small_network


@pytest.fixture
def net(tmp_path: Path) -> Path:
    netx.write(small_network({"T": 2}), tmp_path / "net.h5")
    return tmp_path / "net.h5"


@needs_compiler
def test_writes_a_program_that_passes_its_test(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = net.parent / "net-c"
    assert main([str(net), str(folder), "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("RAM: all static variables") < printed.index("wrote ")
    assert "self test: 2 images of sample, seed 0, T = 2" in printed
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(folder), "check"], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("EXACT: every spike and read-out is equal\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--T", "0"], "T is 0; allowed: 1..4096"),
        (["--samples", "256"], "--samples is 256; allowed: 1..255"),
        (["--samples", "0"], "--samples is 0; allowed: 1..255"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_options(net: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(net), str(net.with_name("c")), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not net.with_name("c").exists()


def test_images_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    netx.write(readout_alone(), tmp_path / "net.h5")
    assert main([str(tmp_path / "net.h5"), str(tmp_path / "c")]) == 2
    assert "data: images are (3, 32, 32); allowed: (3, 2, 5) as the network" in capsys.readouterr().err


def test_a_damaged_file_is_not_written_as_c(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(net.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    net.write_bytes(content)
    assert main([str(net), str(net.with_name("c"))]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not net.with_name("c").exists()


@needs_emulation
@pytest.mark.slow
def test_a_shipped_network_on_an_emulated_microcontroller(tmp_path: Path) -> None:
    net, folder = tmp_path / "net.h5", tmp_path / "c"
    assert to_netx.main(["--pretrained", "resnet20", str(net), "--calibration", "20"]) == 0
    assert main([str(net), str(folder), "--samples", "1"]) == 0
    done = subprocess.run(["make", "-C", str(folder), "emulate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EXACT: every spike and read-out is equal" in done.stdout
