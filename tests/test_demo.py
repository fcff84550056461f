"""The demo runs commands that exist, with options that they know."""

from pathlib import Path

import pytest

import export.to_netx
import train.cifar
import train.command
from deploy import demo, run_lava


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


def test_stops_at_the_first_command_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(demo.__file__).parent.parent))
    demo.PRETRAINED.parent.mkdir(parents=True)
    demo.PRETRAINED.write_bytes(b"not a model")
    assert demo.main(["--out", "out"]) == 2
    assert "python -m train.cifar ended with status 2" in capsys.readouterr().err
