"""deploy.classify: the class of pictures of any size, and the step from which it did not change."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy import classify
from nqlava import netx, reference
from nqlava.engine.integer import Engine
from tests.test_run_lava import small_network
from train.data.images import load
from train.data.views import STREAMED, fitted, view

CLASSES = tuple("abcdefghij")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.h5"
    netx.write(small_network({"T": 4, "classes": json.dumps(CLASSES)}), path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    data = load(["sample"], "test").sample(3, 0)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, data.images.numpy(), strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_classes_and_scores_are_those_of_the_reference(
    net: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    assert classify.main([str(net), *map(str, pictures), "--json", str(result)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(result.read_text())
    assert (found["T"], found["backend"], tuple(found["classes"])) == (4, "engine", CLASSES)
    network = netx.read(net)
    for path, line, row in zip(pictures, lines, found["pictures"], strict=True):
        pixels = np.asarray(Image.open(path)).transpose(2, 0, 1)
        readout = reference.run(network, pixels, 4).readout
        best = int(readout[-1].argmax())
        assert (row["scores"], row["index"], row["class"]) == (readout[-1].tolist(), best, CLASSES[best])
        assert line.startswith(
            f"{path}: {CLASSES[best]}, from step {row['from_step']} of 4 on; scores: {CLASSES[best]} "
        )
        classes = readout.argmax(axis=1)
        assert (classes[row["from_step"] - 1 :] == best).all()
        assert row["from_step"] == 1 or classes[row["from_step"] - 2] != best


def test_the_step_from_which_the_class_held() -> None:
    readout = np.array([[[1, 0], [1, 0], [1, 0]], [[1, 0], [0, 1], [0, 1]], [[0, 1], [1, 0], [0, 1]]], np.int32)
    classes, steps = classify.classified(readout)
    assert classes.tolist() == [0, 1, 1] and steps.tolist() == [1, 2, 3]


@pytest.mark.slow
def test_lava_is_compared(net: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert classify.main([str(net), str(pictures[0]), "--T", "2", "--backend", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("EXACT: Lava = engine in every read-out of 1 picture\n")


def test_another_answer_of_lava_is_not_exact(
    net: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(_settings: object, network: object, images: np.ndarray) -> object:
        trace = Engine(network).run(images, 4)  # type: ignore[arg-type]
        trace.readout[0, 2, 1] += 1
        yield trace

    monkeypatch.setattr("deploy.compare.backends.traces", wrong)
    assert classify.main([str(net), str(pictures[0]), "--backend", "cpu"]) == 1
    assert capsys.readouterr().out.endswith("NOT EXACT: 1 values differ\n")


def test_pictures_of_another_size_are_resized(tmp_path: Path) -> None:
    """Two grey halves, of which the middle is cut out, so that the border stays in the middle."""
    halves = np.repeat(np.repeat([[[50]], [[200]]], 40, axis=0), 200, axis=1).astype(np.uint8)
    Image.fromarray(np.repeat(halves, 3, axis=2)).save(tmp_path / "wide.png")
    found = fitted(tmp_path / "wide.png", 8, 6)
    assert found.shape == (8, 6, 3) and (found[:3] == 50).all() and (found[5:] == 200).all()
    same = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(same).save(tmp_path / "same.png")
    assert np.array_equal(fitted(tmp_path / "same.png", 8, 6), same)
    assert np.array_equal(fitted(tmp_path / "wide.png", STREAMED, STREAMED), view(tmp_path / "wide.png", STREAMED))


def test_what_is_wrong_is_named(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no image")
    other = tmp_path / "other.h5"
    netx.write(small_network({"classes": '["a"]'}), other)
    cases = {
        "text.png is not a readable image; allowed: WEBP": [net, tmp_path / "text.png"],
        "gone.png is not a readable image (No such file or directory)": [net, tmp_path / "gone.png"],
        "T is 0; allowed: 1..4096": [net, tmp_path / "text.png", "--T", "0"],
        "other.h5 names 1 classes for 10 outputs; export it again": [other, tmp_path / "text.png"],
    }
    for message, words in cases.items():
        assert classify.main(list(map(str, words))) == 2
        error = capsys.readouterr().err
        assert error.startswith("deploy.classify: ") and message in error and error.count("\n") == 1
