"""Model files come back as written, survive a failing write, and run nothing; bad ones are refused in one line."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import image_set, random_tiny, tiny
from train.loop import checkpoint
from train.loop.checkpoint import CheckpointError, ModelFile, load, read_model, save, write_model
from train.model.models import MODELS, vgg_tiny
from train.model.snn import neurons

CLASSES = tuple(f"class{i}" for i in range(5))


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(MODELS):
        monkeypatch.delitem(MODELS, name)
    monkeypatch.setitem(MODELS, "tiny", tiny)


@pytest.fixture
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What torch.load gives of a model file."""
    info = {"epoch": 3, "history": [{"loss": 0.5}]}
    path = tmp_path_factory.mktemp("made") / "model.pt"
    write_model(path, ModelFile(random_tiny(0, levels=3), "tiny", CLASSES, info))
    return load(path)


@pytest.fixture
def path(tmp_path: Path, content: dict[str, Any]) -> Path:
    save(tmp_path / "new" / "model.pt", content)
    return tmp_path / "new" / "model.pt"


def test_round_trip(path: Path, content: dict[str, Any]) -> None:
    model = read_model(path)
    network = model.network
    assert not network.training and network.levels == 3
    assert (model.architecture, model.classes, model.path) == ("tiny", CLASSES, path)
    assert (model.activation, model.reset, model.history) == ("nq", "soft", [{"loss": 0.5}])
    for key, value in network.state_dict().items():
        assert torch.equal(value, content["state"][key]) and value.dtype == content["state"][key].dtype
    images = image_set(3).images.permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.equal(network(images), random_tiny(0, levels=3)(images))
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"] and path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "os.replace"])
def test_a_failing_write_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    before = path.read_bytes()

    def refuse(*arguments: Any) -> None:
        if where == "torch.save":
            arguments[1].write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(where, refuse)
    with pytest.raises(KeyboardInterrupt):
        save(path, {"format": "other"})
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["model.pt"]


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_bomb_is_refused_and_not_run(tmp_path: Path, content: dict, nested: bool, legacy: bool) -> None:
    bomb = Bomb(tmp_path / "exploded")
    path = tmp_path / "bomb.pt"
    what = {**content, "info": {"x": bomb}} if nested else bomb
    torch.save(what, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"{path}: not a model file (it asks to run code, or it is damaged); allowed: a file written by train.cifar"
    )
    path.write_bytes(pickle.dumps(what))
    with pytest.raises(CheckpointError):
        read_model(path)
    assert not bomb.target.exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99, -1])
def test_truncated_files(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(CheckpointError) as caught:
        read_model(path)
    assert str(caught.value).startswith(f"{path}: not a model file (") and "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.builds(lambda data: b"\x80\x02" + data + b".", st.binary(max_size=20)))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        read_model(path)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(CheckpointError, match=r": no such file$"):
            load(path)


def entry(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.__setitem__(key, value)


def state(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["state"].__setitem__(key, value)


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (entry("format", "other"), "not a model file; allowed: a file written by train.cifar"),
    "no format": (lambda c: c.pop("format"), "not a model file; allowed: a file written by train.cifar"),
    "version": (entry("version", 2), "version is 2; allowed: 1"),
    "version type": (entry("version", torch.ones(2)), "version is Tensor; allowed: 1"),
    "no version": (lambda c: c.pop("version"), "version is None; allowed: 1"),
    "architecture": (entry("architecture", "resnet"), "architecture is 'resnet'; allowed: tiny"),
    "architecture type": (entry("architecture", ["tiny"]), "architecture is list; allowed: tiny"),
    "levels": (entry("levels", 0), "levels is 0; allowed: 1..1024"),
    "many levels": (entry("levels", 1025), "levels is 1025; allowed: 1..1024"),
    "levels type": (entry("levels", 4.0), "levels is 4.0; allowed: 1..1024"),
    "activation": (entry("activation", "tanh"), "activation is 'tanh'; allowed: nq, relu"),
    "activation type": (entry("activation", ["nq"]), "activation is list; allowed: nq, relu"),
    "reset": (entry("reset", 0), "reset is 0; allowed: soft, hard"),
    "size type": (entry("size", "32"), "size is '32'; allowed: an integer"),
    "classes": (entry("classes", []), "classes is not a list of 1 to 100000 names"),
    "classes type": (entry("classes", "abc"), "classes is not a list of 1 to 100000 names"),
    "class names": (entry("classes", [1, 2, 3, 4, 5]), "classes is not a list of 1 to 100000 names"),
    "other classes": (entry("classes", ["a"]), "layers.12.weight is (5, 7); allowed: (1, 7)"),
    "state": (entry("state", [1]), "state does not hold the tensors of this network"),
    "no tensor": (lambda c: c["state"].pop("layers.3.sigma"), "state does not hold the tensors of this network"),
    "more tensors": (state("x", torch.ones(1)), "state does not hold the tensors of this network"),
    "shape": (state("layers.1.weight", torch.ones(4, 3, 3, 2)), "layers.1.weight is (4, 3, 3, 2); allowed: (4, 3, 3"),
    "type": (state("layers.1.weight", 5), "layers.1.weight is int; allowed: (4, 3, 3, 3)"),
    "sparse": (
        state("layers.1.weight", torch.zeros(4, 3, 3, 3).to_sparse()),
        "layers.1.weight is torch.float32, torch.s",
    ),
    "complex": (
        state("layers.3.threshold", torch.tensor(1j)),
        "layers.3.threshold is torch.complex64, torch.strided; ",
    ),
    "threshold": (state("layers.3.threshold", torch.tensor(-1.0)), "layers.3.threshold is -1.0; allowed: positive num"),
    "variance": (state("layers.2.running_var", torch.full((4,), -1.0)), "layers.2.running_var is -1.0; allowed: numb"),
    "info": (entry("info", [1]), "info is list; allowed: a dictionary"),
    "checkpoint": (entry("optimizer", {}), "a checkpoint; allowed: the model file, which is written when the training"),
    "nan": (state("layers.3.threshold", torch.tensor(float("nan"))), "layers.3.threshold is not finite"),
    "infinite": (state("layers.10.bias", torch.full((7,), float("inf"))), "layers.10.bias is not finite"),
}


@pytest.mark.parametrize("key", ["architecture", "activation", "reset", "size", "levels", "initial", "info"])
def test_every_entry_is_needed(tmp_path: Path, content: dict[str, Any], key: str) -> None:
    del content[key]
    checkpoint.save(tmp_path / "m.pt", content)
    with pytest.raises(CheckpointError, match=f"m.pt: {key} is "):
        read_model(tmp_path / "m.pt")


def test_relu_networks_keep_reset_thresholds_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "vgg_tiny", vgg_tiny)
    network = vgg_tiny(5, activation="relu", reset="hard", size=64)
    for index, neuron in enumerate(neurons(network)):
        neuron.threshold.fill_(index + 1.0)
    write_model(tmp_path / "m.pt", ModelFile(network, "vgg_tiny", CLASSES, {}, activation="relu", reset="hard"))
    found = read_model(tmp_path / "m.pt").network
    assert [(n.reset, float(n.threshold)) for n in neurons(found)] == [("hard", i + 1.0) for i in range(6)]
    assert found.input_shape == (3, 64, 64)
    save(tmp_path / "m.pt", load(tmp_path / "m.pt") | {"size": 30})
    with pytest.raises(CheckpointError, match="images are 30 pixels high; allowed: multiples of 4 up to 1024"):
        read_model(tmp_path / "m.pt")


@pytest.mark.parametrize("case", BAD)
def test_bad_content(tmp_path: Path, content: dict[str, Any], case: str) -> None:
    change, message = BAD[case]
    change(content)
    path = tmp_path / "bad.pt"
    checkpoint.save(path, content)
    with pytest.raises(CheckpointError) as caught:
        read_model(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_not_a_dictionary(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="not a model file; allowed"):
        read_model(tmp_path / "list.pt")


def test_a_full_disk_is_named_and_not_what_it_does_to_pytorch() -> None:
    with pytest.raises(OSError, match=r"^/dev/full: cannot be written: No space left on device$"):
        save(Path("/dev/full"), {"state": torch.zeros(100_000)})
