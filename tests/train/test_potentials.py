"""Calibrated initial potentials make spikes carry what the activation did; model file and network hold them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.fold.lower import lower
from export.round.quantize import quantize
from nqlava.engine.integer import Engine
from tests import float_oracle
from tests.tiny import image_set, random_residual, random_tiny, tiny, write_folder
from train.data import images as data
from train.loop.calibrate import calibrate_potentials
from train.loop.checkpoint import CheckpointError, ModelFile, load, read_model, save, write_model
from train.model.activation import NQ
from train.model.models import MODELS
from train.model.snn import neurons, simulate
from train.potentials import main

IMAGES = image_set(40).images.permute(0, 3, 1, 2)
CLASSES = tuple(f"class{i}" for i in range(5))


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)


def means(network: nn.Module, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per layer the mean of the activation and of the spikes, per channel, by the scalar simulation."""
    ann = [[] for _ in neurons(network)]
    snn = [[] for _ in neurons(network)]
    for image in IMAGES.numpy():
        for kept, outputs in (
            (ann, float_oracle.ann(network, image)[0]),
            (snn, float_oracle.snn(network, image, steps)[0]),
        ):
            for layer, output in zip(kept, outputs, strict=True):
                layer.append(output.reshape(len(output), -1).mean(1))
    return [(np.mean(a, 0), np.mean(s, 0)) for a, s in zip(ann, snn, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("build", [random_tiny, random_residual])
def test_spikes_carry_what_the_activation_did(build) -> None:
    """The error of the channels' means falls to less than half; v(0) stays between 0 and θ."""
    network = build(3)
    before = [np.abs(a - s).mean() for a, s in means(network, 2)]
    calibrate_potentials(network, IMAGES, 2)
    after = [np.abs(a - s).mean() for a, s in means(network, 2)]
    assert sum(after) < 0.5 * sum(before)
    for neuron, shape in zip(neurons(network), network.activation_shapes(1), strict=True):
        assert neuron.initial.shape == shape[1:2]
        assert 0 <= float(neuron.initial.min()) < float(neuron.initial.max()) <= 1


def test_one_layer_follows_the_equation() -> None:
    """A constant current 0 ≤ z ≤ θ gives ⌊v(0)/θ + T·z/θ⌋ spikes in T steps."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), NQ(4, 2.0)).eval()
    nn.init.uniform_(network[0].weight, 0, 0.6)
    nn.init.zeros_(network[0].bias)
    x = torch.rand(50, 3)
    with torch.no_grad():
        z, activation = network[0](x), network(x)
    assert z.min() >= 0 and z.max() <= 2
    missing = activation.mean(0) - 2 * torch.floor(0.5 + 3 * z / 2).mean(0) / 3
    calibrate_potentials(network, x, 3, rounds=1)
    torch.testing.assert_close(network[1].initial, (0.5 + 3 * missing / 2).clamp(0, 1))
    assert not torch.allclose(network[1].initial, torch.tensor(0.5))


def test_the_integer_network_starts_from_them() -> None:
    network = random_residual(3)
    calibrate_potentials(network, IMAGES, 2)
    integer = quantize(lower(network, network.input_shape))[0]
    for layer, neuron in zip(integer.layers, neurons(network), strict=False):
        assert np.array_equal(layer.v0, np.floor(layer.threshold * neuron.initial.double().numpy()))
    scores = simulate(network, IMAGES, 4)
    predicted = Engine(integer).classify(IMAGES.contiguous(), 4)
    assert (scores.argmax(2) == torch.from_numpy(predicted).T).float().mean() > 0.9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data", train=image_set(60), test=image_set(20, seed=1))
    recipe = {"validation": 15, "seed": 3, "induction_steps": 4}
    info = {"recipe": recipe, "data": data.load([str(tmp_path / "data")], "train").digest()}
    write_model(tmp_path / "m.pt", ModelFile(random_tiny(3), "tiny", CLASSES, info))
    return tmp_path


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(folder / "data"), "--T", "3", "--calibration", "45"]
    assert main([str(folder / "m.pt"), str(folder / "out.pt"), *options]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == (
        f"{folder / 'm.pt'}: tiny; v(0) for T = 3 in 2 rounds, on 45 training images of {folder / 'data'}, seed 0"
    )
    assert last.startswith(f"{folder / 'out.pt'}: v(0)/θ from 0.")
    before, after = read_model(folder / "m.pt").network, read_model(folder / "out.pt").network
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())
    assert [neuron.initial.shape for neuron in neurons(after)] == [(4,), (6,), (7,)]
    assert load(folder / "out.pt")["info"]["potentials"] == {"steps": 3, "calibration": 45, "seed": 0, "rounds": 2}


def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(folder / "out.pt")
    model = str(folder / "m.pt")
    for arguments, message in (
        ([model, out, "--T", "0"], "--T is 0; allowed: 1..4096"),
        ([model, out, "--rounds", "0"], "--rounds is 0; allowed: 1..100"),
        ([model, model], f"{model} is also an input; choose another output"),
        ([model, out, "--calibration", "46"], "samples is 46; allowed: 1..45"),
        ([out], "no model is given; allowed: MODEL, before the file to write if there is one, or --pretrained"),
        ([model, out, "--data", "sample"], "data: 10 classes and images (3, 32, 32); allowed: those of "),
    ):
        data = [] if "--data" in arguments else ["--data", str(folder / "data")]
        assert main([*arguments, *data]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"train.potentials: {message}") and captured.err.count("\n") == 1
    assert not (folder / "out.pt").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5], "initial is not a list of 3 tensors"),
        ("x", "initial is not a list of 3 tensors"),
        (
            [torch.ones(5), torch.tensor(0.5), torch.tensor(0.5)],
            "initial 0 is no number; allowed: one, or 4, one per ch",
        ),
        ([torch.tensor(0.5), 1, torch.tensor(0.5)], "initial 1 is no number; allowed: one, or 6, one per channel"),
        ([torch.tensor(0.5), torch.tensor(0.5), torch.tensor(float("nan"))], "initial 2 has other values than numbers"),
        ([torch.tensor(0.5), torch.tensor(0.5), torch.tensor(1)], "initial 2 has other values than numbers of up to ±"),
    ],
)
def test_bad_files(folder: Path, values: object, message: str) -> None:
    content = load(folder / "m.pt") | {"initial": values}
    save(folder / "bad.pt", content)
    with pytest.raises(CheckpointError) as caught:
        read_model(folder / "bad.pt")
    assert str(caught.value).startswith(f"{folder / 'bad.pt'}: {message}") and "\n" not in str(caught.value)
