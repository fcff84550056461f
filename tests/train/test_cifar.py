"""The command trains, reports and resumes, and on bad input says in one line what is wrong."""

import re
from pathlib import Path

import pytest
import torch

from nqlava.errors import InputError
from tests.tiny import image_set, tiny, write_folder, write_zip
from train import run
from train.choices import MODEL_SIZES
from train.cifar import main
from train.loop import trainer
from train.loop.checkpoint import load, read_model, save
from train.model.models import MODELS


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    monkeypatch.setitem(MODEL_SIZES, "tiny", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", train=image_set(60), test=image_set(10, seed=1))


def arguments(data: Path, *more: str) -> list[str]:
    options = "--model tiny --epochs 2 --batch 12 --device cpu --precision float32 --out"
    return ["--data", str(data), *options.split(), str(data.parent / "m.pt"), *more]


def test_end_to_end(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(data, "--threshold", "2")) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    first, second, epoch1, epoch2, _, title, header, row = captured.out.splitlines()
    assert first == f"tiny, 48 training and 12 held-out images from {data}, 2 epochs on cpu, float32, seed 0"
    assert second == (
        "NQ, L=4, noise 1 x sigma at T=4; batch 12, learning rate 0.2, weight decay 0.0005, label smoothing 0.1, "
        "cutout 8, augmentation none"
    )
    assert epoch1.startswith("epoch   1/2  loss ") and epoch2.startswith("epoch   2/2  loss ")
    assert title == f"{data.parent / 'm.pt'}: accuracy on 10 test images"
    assert header.split() == ["ANN", "SNN", "T=1", "SNN", "T=2", "SNN", "T=4", "SNN", "T=8", "SNN", "T=16"]
    values = [float(value) for value in re.findall(r"([\d.]+) %", row)]
    assert len(values) == 6 and all(0 <= value <= 100 and value % 10 == 0 for value in values)
    model = read_model(data.parent / "m.pt")
    network = model.network
    assert network.levels == 4 and model.recipe["threshold"] == 2.0
    assert model.classes == tuple(f"class{i}" for i in range(5))


def test_table_holds_the_accuracies_by_steps(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.loop.calibrate import Evaluation

    result = Evaluation(ann=90.0, snn=tuple(float(t) for t in range(1, 17)), sigma=())
    monkeypatch.setattr(run, "evaluate", lambda *_: result)
    assert main(arguments(data, "--epochs", "1")) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert re.findall(r"([\d.]+) %", row) == ["90.00", "1.00", "2.00", "4.00", "8.00", "16.00"]


def test_interrupt_resume_and_fine_tune(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = data.parent / "m.pt"

    def interrupt(*_arguments: object, **_options: object) -> torch.Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", interrupt)
        assert main(arguments(data)) == 130
    assert capsys.readouterr().err == "\ntrain.cifar: interrupted; continue with the same command and --resume\n"
    assert not out.exists()
    assert main(arguments(data, "--epochs", "1")) == 0
    assert main(arguments(data, "--epochs", "1", "--resume")) == 0
    assert len(load(out)["info"]["history"]) == 1
    tuned = ["--init", str(out), "--epochs", "1", "--learning-rate", "0", "--out", str(data.parent / "tuned.pt")]
    assert main(arguments(data, *tuned)) == 0
    before, after = read_model(out).network, read_model(data.parent / "tuned.pt").network
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_fine_tune_with_few_bits(data: Path) -> None:
    out, tuned = data.parent / "m.pt", data.parent / "tuned.pt"
    assert main(arguments(data, "--epochs", "1")) == 0
    more = ["--init", str(out), "--epochs", "1", "--weight-bits", "2", "--layer-bits", "layers.1=8", "layers.12=4"]
    assert main(arguments(data, *more, "--out", str(tuned))) == 0
    model = read_model(tuned)
    network = model.network
    recipe = model.recipe
    assert (recipe["weight_bits"], recipe["layer_bits"]) == (2, {"layers.1": 8, "layers.12": 4})
    for channel in network.layers[5].weight.detach():
        assert len(set(channel.abs().flatten().tolist()) - {0.0}) == 1, "integers -1, 0, 1 times one step"


BAD = {
    "diverging": ("--learning-rate 1e30", "loss of epoch 1 is nan; allowed: finite numbers, with a smaller learning"),
    "output over data": ("--out {d}/a.zip --data {d}/a.zip", "{d}/a.zip is also an input; choose another output"),
    "augmentation and average": ("--average 1", "average is 1.0; allowed: from 0 to below 1"),
    "relu with noise-free spikes": (
        "--activation relu --snn-steps 2",
        "snn_steps is 2 while activation is relu; allowed: 0",
    ),
    "hard reset of NQ": ("--reset hard", "reset is hard while activation is nq; allowed: soft"),
    "data": ("--data {d}/nowhere", "data: {d}/nowhere does not exist; allowed: "),
    "no test split": ("--data {d}/half", "data: no images of test in {d}/half (train/); allowed: "),
    "other test classes": ("--data {d}/other", "data: {d}/other: test has classes class0, class1, class2; allowed"),
    "image size": ("--model vgg_small", "data: images are (3, 8, 6); allowed: (3, 8, 8) for vgg_small"),
    "device": ("--device nonsense", "--device nonsense is not usable here ("),
    "init": ("--init {d}/nowhere.pt", "{d}/nowhere.pt: no such file"),
    "not a model": ("--init {d}/test/class0/0000.png", "{d}/test/class0/0000.png: not a model file ("),
    "resume": ("--resume", "{d}.pt.checkpoint: no such file"),
    "batch": ("--batch 49", "batch is 49; allowed: up to the 48 training images"),
    "validation": ("--validation 60", "validation: 60 images held out; allowed: 1..59"),
    "threshold": ("--threshold -1", "threshold is -1.0; allowed: positive numbers up to 1000000"),
    "infinite threshold": ("--threshold inf", "threshold is inf; allowed: positive numbers up to 1000000"),
    "levels": ("--levels 1025", "levels is 1025; allowed: 1..1024"),
    "negative levels": ("--levels -1", "levels is -1; allowed: 1..1024"),
    "epochs": ("--epochs 0", "epochs is 0; allowed: whole numbers from 1"),
    "seed": ("--seed 99999999999999999999", "seed is 99999999999999999999; allowed: 0..1099511627776"),
    "smoothing": ("--label-smoothing 2", "label_smoothing is 2.0; allowed: 0..1"),
    "momentum": ("--momentum -1", "momentum is -1.0; allowed: 0..1"),
    "rate": ("--learning-rate nan", "learning_rate is nan; allowed: numbers of at least 0"),
    "cutout": ("--cutout -1", "cutout is -1; allowed: 0..4096"),
    "noise": ("--noise-factor -1", "noise_factor is -1.0; allowed: 0..1000000.0"),
    "weight bits": ("--weight-bits 9", "weight_bits is 9; allowed: 2..8, or 0 for weights as they are"),
    "layer bits alone": (
        "--layer-bits layers.1=8",
        "layer_bits of layers.1 is 8 while weight_bits is 0; allowed: 2..8, ",
    ),
    "layer bits": (
        "--weight-bits 3 --layer-bits layers.1=1",
        "layer_bits of layers.1 is 1; allowed: 2..8, with weight_b",
    ),
    "layer": (
        "--weight-bits 3 --layer-bits layers.2=8",
        "bits of layers.2: no such layer; allowed: layers.1, layers.5",
    ),
    "decay": ("--weight-decay inf", "weight_decay is inf; allowed: numbers of at least 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(data: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    more, message = BAD[case]
    write_folder(data / "half", train=image_set(20))
    write_zip(data / "a.zip", data)
    write_folder(data / "other", train=image_set(20), test=image_set(6, classes=3))
    out = data.parent / "data.pt"
    assert main(arguments(data, "--out", str(out), *(word.format(d=data) for word in more.split()))) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"train.cifar: {message.format(d=data)}") and captured.err.count("\n") == 1
    assert not list(data.parent.glob("*.pt*"))


@pytest.mark.parametrize(
    "more", ["--model resnet", "--activation x", "--batch x", "--precision half", "--layer-bits 8"]
)
def test_bad_usage(data: Path, capsys: pytest.CaptureFixture[str], more: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments(data, *more.split()))
    assert caught.value.code == 2
    written = capsys.readouterr().err
    assert written.startswith(f"train.cifar: {more.split()[0]}") and written.count("\n") == 1


def test_init_must_fit_what_is_asked_for(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "m.pt"
    assert main(arguments(data, "--epochs", "1")) == 0
    three = write_folder(data / "three", train=image_set(30, classes=3), test=image_set(6, classes=3))
    capsys.readouterr()
    for more, message in (
        (["--levels", "2"], f"{out}: levels is 4; allowed: 2 as asked for"),
        (["--model", "vgg_small"], f"{out}: model is 'tiny'; allowed: 'vgg_small' as asked for"),
        (
            ["--data", str(three)],
            f"{out}: classes are class0, class1, class2, class3, class4; allowed: class0, class1, class2",
        ),
    ):
        assert main(arguments(data, "--init", str(out), "--out", str(data.parent / "n.pt"), *more)) == 2
        assert capsys.readouterr().err == f"train.cifar: {message}\n"
    assert not (data.parent / "n.pt").exists()


def test_start_values_come_from_the_model_to_start_from(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Activation, reset and thresholds; a calibrated v(0) is dropped with a word."""
    relu, tuned = data.parent / "relu.pt", data.parent / "tuned.pt"
    options = ["--epochs", "1", "--batch", "12", "--device", "cpu", "--precision", "float32", "--data", str(data)]
    new = ["--model", "tiny", "--activation", "relu", "--reset", "hard", "--out", str(relu)]
    assert main([*options, *new]) == 0
    more = ["--init", str(relu), "--out", str(tuned), "--learning-rate", "0"]
    assert main([*options, *more]) == 0
    assert load(tuned)["reset"] == "hard" and load(tuned)["activation"] == "relu"
    assert load(tuned)["info"]["recipe"]["induction_steps"] == 32
    capsys.readouterr()
    assert main([*options, *more, "--threshold", "2"]) == 2
    assert "--threshold is 2.0; allowed with a model to start from: none" in capsys.readouterr().err
    content = load(relu)
    save(relu, content | {"initial": [torch.full((count,), 0.3) for count in (4, 6, 7)]})
    assert main([*options, *more, "--resume"]) == 0
    assert "its calibrated v(0) is not kept; run train.potentials again" in capsys.readouterr().out


def test_a_failing_calibration_of_thresholds_costs_no_training(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is repeated with other options, which act after the training alone."""
    out = data.parent / "m.pt"
    options = arguments(data, "--activation", "relu", "--epochs", "1", "--induction-steps")

    def fail(*_arguments: object) -> None:
        raise InputError("activation 2: the largest current is 0.0; allowed: positive numbers")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "balance_thresholds", fail)
        assert main([*options, "4"]) == 2
    assert "continue with --resume and more --induction-steps" in capsys.readouterr().err and not out.exists()
    assert main([*options, "8", "--resume"]) == 0
    assert len(load(out)["info"]["history"]) == 1


def test_dry_run_checks_everything_and_writes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "m.pt"
    assert main(arguments(data, "--dry-run", "--tensorboard", str(data.parent / "tb"))) == 0
    parameters = sum(parameter.numel() for parameter in tiny(5).parameters())
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"network: {parameters} parameters, 5 classes",
        "training: 4 steps per epoch, 8 in all; 10 test images are read at the end",
        f"writes: {out}.checkpoint after every epoch, {out} at the end, {data.parent / 'tb'}/ for TensorBoard",
        "state: starts anew",
        "dry run: nothing was trained or written",
    ]
    assert {path.name for path in data.parent.iterdir()} == {"data", "cache"}
    assert main(arguments(data, "--dry-run", "--resume")) == 2
    assert main(arguments(data, "--dry-run", "--batch", "49")) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"train.cifar: {out}.checkpoint: no such file",
        "train.cifar: batch is 49; allowed: up to the 48 training images",
    ]
    assert main(arguments(data)) == 0
    before = {path: path.read_bytes() for path in data.parent.glob("m.pt*")}
    assert main(arguments(data, "--dry-run", "--resume")) == 0
    assert main(arguments(data, "--dry-run")) == 0
    printed = capsys.readouterr().out
    assert f"state: continues after epoch 2 of {out}.checkpoint" in printed
    assert f"{out} at the end, replacing it" in printed and f"and replaces {out}.checkpoint" in printed
    assert {path: path.read_bytes() for path in data.parent.glob("m.pt*")} == before


def test_a_recipe_in_a_file(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is checked as the flags are, which win over it; the model file names what was trained with."""
    config = data.parent / "recipe.toml"
    config.write_text('T = 3\nlearning-rate = 0.01\nepochs = 7\naugment = "trivial"\nlayer-bits = ["layers.1=8"]\n')
    more = ["--config", str(config), "--weight-bits", "4"]
    assert main(arguments(data, *more)) == 0
    recipe = load(data.parent / "m.pt")["info"]["recipe"]
    chosen = {key: recipe[key] for key in ("induction_steps", "learning_rate", "epochs", "policy", "layer_bits")}
    assert chosen == {
        "induction_steps": 3,
        "learning_rate": 0.01,
        "epochs": 2,
        "policy": "trivial",
        "layer_bits": {"layers.1": 8},
    }
    config.write_text('augment = "half"')
    with pytest.raises(SystemExit):
        main(arguments(data, *more))
    assert "recipe.toml: --augment: invalid choice: 'half' (choose from " in capsys.readouterr().err
