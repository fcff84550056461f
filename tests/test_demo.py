"""The demo runs commands that exist, with options that they know."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import export.to_netx
import train.cifar
import train.command
from deploy import demo, run_lava
from tests.processes import alive, children, wait_until

ROOT = Path(__file__).resolve().parent.parent


def test_commands_parse() -> None:
    parsers = {
        "train.cifar": train.command.parser(train.cifar.COMMAND),
        "export.to_netx": export.to_netx.parser(),
        "deploy.run_lava": run_lava.parser(),
    }
    trained, exported, deployed = (
        parsers[module].parse_args(options) for module, *options in demo.commands(Path("a folder"), 7)
    )
    assert trained.out == exported.model == deployed.model == Path("a folder/vgg_small.pt")
    assert exported.net == deployed.net == Path("a folder/vgg_small.h5")
    assert deployed.samples == 7


def test_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.main([]) == 2
    assert "train/pretrained/vgg_small.pt: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_stops_at_the_first_command_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(demo.__file__).parent.parent))
    demo.PRETRAINED.parent.mkdir(parents=True)
    demo.PRETRAINED.write_bytes(b"not a model")
    assert demo.main(["--out", "out"]) == 2
    assert "python -m train.cifar ended with status 2" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_commands_end_with_it(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.demo", "--out", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: bool(children(process.pid)), "no command was started")
    family = children(process.pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    wait_until(lambda: not any(map(alive, family)), "a command is left")
    if number == signal.SIGTERM:
        assert (process.returncode, errors.splitlines()[-1]) == (143, "deploy.demo: ended by SIGTERM")


def test_an_interrupted_fine_tuning_is_continued(tmp_path: Path) -> None:
    def resumes() -> bool:
        return "--resume" in demo.commands(tmp_path, 7)[0]

    assert not resumes()
    model, saved = tmp_path / "vgg_small.pt", tmp_path / "vgg_small.pt.checkpoint"
    saved.touch()
    assert resumes()
    model.touch()
    assert not resumes()
    os.utime(saved, (model.stat().st_mtime + 1,) * 2)
    assert resumes()
