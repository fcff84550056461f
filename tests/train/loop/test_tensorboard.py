"""Curves by epoch for TensorBoard, which a resumed training continues."""

import resource
import sys
import threading
from pathlib import Path

import pytest

from tests.tiny import image_set, tiny, write_folder
from train.choices import MODEL_SIZES
from train.cifar import main
from train.loop.checkpoint import load
from train.loop.tensorboard import EpochLog
from train.model.models import MODELS


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    monkeypatch.setitem(MODEL_SIZES, "tiny", 0.0)
    data = write_folder(tmp_path / "data", train=image_set(60), test=image_set(10, seed=1))
    words = "--model tiny --epochs 2 --batch 12 --device cpu --precision float32 --T 3"
    return [*words.split(), "--data", str(data), "--out", str(tmp_path / "m.pt"), "--tensorboard", str(tmp_path / "tb")]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(epoch, value) of every curve, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_curves_hold_what_the_model_file_tells(tmp_path: Path, options: list[str]) -> None:
    assert main(options) == 0
    found, history = curves(tmp_path / "tb"), load(tmp_path / "m.pt")["info"]["history"]
    for tag, key in (
        ("loss", "loss"),
        ("accuracy/train", "train"),
        ("accuracy/ANN", "ann"),
        ("accuracy/SNN T=3", "snn"),
    ):
        assert found[tag] == [(entry["epoch"], pytest.approx(entry[key])) for entry in history]
    activations = {tag for tag in found if tag.startswith(("sigma/", "threshold/"))}
    assert activations == {f"{name}/activation {index}" for name in ("sigma", "threshold") for index in (1, 2, 3)}


def test_a_resumed_training_continues_its_curves_and_a_new_one_starts_them_anew(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.loop import trainer

    epoch = trainer.Training.epoch

    def interrupted(training: trainer.Training, number: int) -> tuple[float, float]:
        if number == 1:
            raise KeyboardInterrupt
        return epoch(training, number)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Training, "epoch", interrupted)
        assert main(options) == 130
    assert [step for step, _ in curves(tmp_path / "tb")["loss"]] == [1]
    assert main([*options, "--resume"]) == 0
    first = curves(tmp_path / "tb")["loss"]
    assert [step for step, _ in first] == [1, 2]
    assert main([*options, "--seed", "1"]) == 0
    again = curves(tmp_path / "tb")["loss"]
    assert [step for step, _ in again] == [1, 2] and again != first


def test_refused_before_the_training_where_it_cannot_be_written(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        assert main(options) == 2
    found = capsys.readouterr().err
    assert found.startswith("train.cifar: --tensorboard needs TensorBoard, which cannot be imported (")
    assert found.endswith("): pip install -e '.[tensorboard]' -c constraints.txt\n")
    (tmp_path / "tb").write_text("")
    assert main(options) == 2
    assert capsys.readouterr().err == f"train.cifar: --tensorboard is {tmp_path / 'tb'}, a file; allowed: a folder\n"
    assert not (tmp_path / "m.pt").exists()


def test_a_full_disk_is_named_and_not_a_traceback_of_a_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # restored afterwards
    log = EpochLog(tmp_path / "tb")
    log(1, {"loss": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=f"^{tmp_path / 'tb'}: cannot be written: File too large$"):
            log(2, {"loss": 1.0})
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr().err == ""
