"""Training follows its recipe, resumes exactly, and keeps the best epoch."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import image_set, random_tiny, tiny
from train.choices import ReadOuts
from train.data.image_set import DataError, ImageSet
from train.loop import checkpoint, trainer
from train.loop.calibrate import Evaluation, balance_thresholds, evaluate
from train.loop.checkpoint import CheckpointError, load, read_model
from train.loop.processes import Processes
from train.loop.recipe import Recipe
from train.loop.trainer import Training, train
from train.model.activation import NQ, RateReLU
from train.model.fake_quantize import matrices
from train.model.models import MODELS, Network, resnet20, vgg16, vgg_small
from train.model.snn import neurons, simulate

# Three steps for four levels: noise in every layer (with T = L the first layer's gap is zero).
RECIPE = Recipe(
    induction_steps=3, model="tiny", epochs=3, batch=10, learning_rate=0.05, cutout=3, validation=15, threshold=0.7
)
DATA = image_set(60)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)


def assert_same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def interrupt_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """KeyboardInterrupt at the given training step."""
    augment, count = trainer.augment, 0

    def interrupted(*arguments: Any, **options: Any) -> Tensor:
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return augment(*arguments, **options)

    monkeypatch.setattr(trainer, "augment", interrupted)


def test_schedules() -> None:
    """A line to the peak at 15 %, then half a cosine to 0; or a line from the peak to 0."""
    expected = {0: 0, 0.075: 0.5, 0.15: 1, 0.15 + 0.85 / 3: 0.75, 0.575: 0.5, 0.15 + 0.85 * 2 / 3: 0.25, 1: 0}
    assert [Recipe().rate(p) for p in expected] == pytest.approx(list(expected.values()))
    assert [Recipe(schedule="linear").rate(p) for p in (0, 0.25, 1)] == [1, 0.75, 0]


def test_an_image_is_mirrored_in_every_other_epoch() -> None:
    """Without shifts, an epoch shows every image as it is or mirrored, and the next one the other way round."""
    training = Training(replace(RECIPE, crop=0, cutout=0, batch=15, flip="alternating"), DATA, device=CPU)
    rest = DATA.split(RECIPE.validation, RECIPE.seed)[0].images.permute(0, 3, 1, 2)
    plain, mirrored = ([image.numpy().tobytes() for image in images] for images in (rest, rest.flip(3)))
    seen = [{i.contiguous().numpy().tobytes() for batch, _ in training.batches(e) for i in batch} for e in range(3)]
    for one, other in zip(plain, mirrored, strict=True):
        assert (one in seen[0], one in seen[1], one in seen[2]) in ((True, False, True), (False, True, False))
        assert (one in seen[0]) != (other in seen[0])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bfloat16": True},
        {"weight_bits": 3, "layer_bits": {"layers.1": 8}},
        {"average": 0.9},
        {"muon": 0.05, "bias_rate": 8.0, "schedule": "linear", "average": 0.9},
        {"optimizer": "adam"},
        {"filters": "identity", "border": "reflect", "flip": "alternating"},
        {"policy": "auto"},
        {"snn_steps": 2},
    ],
    ids=str,
)
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    recipe = replace(RECIPE, **changes)
    whole = train(recipe, DATA, out=tmp_path / "whole.pt", device=CPU)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 6)  # of four steps per epoch: in the middle of the second
        train(recipe, DATA, out=tmp_path / "parts.pt", device=CPU)
    assert not (tmp_path / "parts.pt").exists()
    assert len(load(tmp_path / "parts.pt.checkpoint")["history"]) == 1
    parts = train(recipe, DATA, out=tmp_path / "parts.pt", device=CPU, resume=True)
    assert_same_state(parts.state_dict(), whole.state_dict())
    a, b = (load(tmp_path / f"{name}.pt.checkpoint") for name in ("whole", "parts"))
    assert_same_state(a["state"], b["state"])
    assert a["history"] == b["history"] and len(a["history"]) == 3
    assert all(float(layer.sigma) > 0 for layer in whole.activations)


def test_resuming_a_finished_training_writes_the_model_again(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    first = train(recipe, DATA, out=tmp_path / "m.pt", device=CPU)
    (tmp_path / "m.pt").unlink()
    assert_same_state(
        train(recipe, DATA, out=tmp_path / "m.pt", device=CPU, resume=True).state_dict(), first.state_dict()
    )
    model = read_model(tmp_path / "m.pt")
    network = model.network
    assert_same_state(network.state_dict(), first.state_dict())
    assert model.recipe == asdict(recipe) and model.classes == DATA.classes


def test_seed_decides_the_result(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    states = [
        train(replace(recipe, seed=seed), DATA, out=tmp_path / f"{i}.pt", device=CPU).state_dict()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert_same_state(states[0], states[1])
    assert (tmp_path / "0.pt").read_bytes() == (tmp_path / "1.pt").read_bytes()
    assert not torch.equal(states[0]["layers.1.weight"], states[2]["layers.1.weight"])


def test_learns(tmp_path: Path) -> None:
    """Classes that differ in brightness are told apart far better than by chance."""
    data = image_set(120, classes=2)
    recipe = replace(RECIPE, epochs=8, batch=15, cutout=0, validation=30, noise_factor=0.1)
    train(recipe, data, out=tmp_path / "m.pt", device=CPU)
    model = read_model(tmp_path / "m.pt")
    assert model.history[-1]["loss"] < 0.5 and model.info["validation_snn"] > 75


def test_the_epoch_with_the_best_snn_on_held_out_images_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal ones the first; the accuracy of the ANN and of fewer steps does not count."""
    scores = iter([10.0, 60.0, 60.0, 20.0])
    sizes, states = [], []

    def fake(network: Network, data: Any, steps: int, **_options: Any) -> Evaluation:
        sizes.append((len(data), steps))
        states.append({key: value.clone() for key, value in network.state_dict().items()})
        snn = next(scores)
        return Evaluation(ann=100 - snn, snn=(99 - snn, 99 - snn, snn), sigma=(0.1, 0.2, 0.3))

    monkeypatch.setattr(trainer, "evaluate", fake)
    network = train(replace(RECIPE, epochs=4, induction_steps=3), DATA, out=tmp_path / "m.pt", device=CPU)
    assert sizes == [(15, 3)] * 4
    info = load(tmp_path / "m.pt")["info"]
    assert (info["epoch"], info["validation_snn"]) == (2, 60.0)
    assert [entry["snn"] for entry in info["history"]] == [10, 60, 60, 20]
    for key, value in network.state_dict().items():
        if not key.endswith("sigma"):
            assert torch.equal(value, states[1][key]), key
    assert [float(a.sigma) for a in network.activations] == pytest.approx([0.1, 0.2, 0.3])


def test_thresholds_stay_positive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where every step pushes them below zero."""

    @torch.no_grad()
    def push(optimizer: torch.optim.SGD) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.dim() == 0:
                    parameter -= 5

    monkeypatch.setattr(torch.optim.SGD, "step", push)
    network = train(replace(RECIPE, epochs=1), DATA, out=tmp_path / "m.pt", device=CPU)
    assert [float(layer.threshold.detach()) for layer in network.activations] == pytest.approx([1e-3] * 3)


def test_fine_tuning_starts_from_the_given_state(tmp_path: Path) -> None:
    start = random_tiny(1)
    neurons(start)[0].initial = torch.full((4,), 0.3)
    network = train(replace(RECIPE, epochs=1, learning_rate=0.0), DATA, out=tmp_path / "m.pt", device=CPU, start=start)
    for key, value in network.named_parameters():
        assert torch.equal(value.detach(), start.state_dict()[key]), key
    assert all(float(neuron.initial) == 0.5 for neuron in neurons(network)), "calibrated v(0) is not kept"


def test_weights_are_trained_on_the_grid_and_written_rounded(tmp_path: Path) -> None:
    """Three bits give seven values per channel, eight bits more; smaller changes add up in the exact weights."""
    start = random_tiny(1)
    recipe = replace(RECIPE, epochs=2, weight_bits=3, layer_bits={"layers.5": 8})
    network = train(recipe, DATA, out=tmp_path / "m.pt", device=CPU, start=start)
    model = read_model(tmp_path / "m.pt")
    stored = model.network
    assert_same_state(stored.state_dict(), network.state_dict())
    assert model.recipe == asdict(recipe)
    for name, module in matrices(stored).items():
        values = [len(set(channel.flatten().tolist())) for channel in module.weight.detach()]
        # The first layer's grid is finer by the standard deviation of each of the three input channels.
        most = {"layers.1": 7 * 3, "layers.5": 255}.get(name, 7)
        assert max(values) <= most and (max(values) > 7 or name not in ("layers.1", "layers.5")), name
        assert not torch.equal(module.weight, start.get_parameter(f"{name}.weight"))


def test_larger_batch_than_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch is 46; allowed: up to the 45 training images"):
        train(replace(RECIPE, batch=46), DATA, out=tmp_path / "m.pt", device=CPU)
    with pytest.raises(DataError, match=r"validation: 60 images held out; allowed: 1\.\.59"):
        train(replace(RECIPE, validation=60), DATA, out=tmp_path / "m.pt", device=CPU)
    assert not list(tmp_path.iterdir())


def test_every_process_needs_a_held_out_image() -> None:
    with pytest.raises(ValueError, match="validation is 1; allowed: at least 2, the number of processes"):
        Training(replace(RECIPE, validation=1), DATA, device=CPU, processes=Processes(0, 2))


def test_images_of_another_size(tmp_path: Path) -> None:
    data = replace(DATA, images=DATA.images[:, :6])
    with pytest.raises(DataError, match=r"data: images are \(3, 6, 6\); allowed: \(3, 8, 6\) for tiny"):
        train(RECIPE, data, out=tmp_path / "m.pt", device=CPU)
    assert not list(tmp_path.iterdir())


def resumed(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "m.pt"
    path.unlink(missing_ok=True)
    with pytest.raises(CheckpointError) as caught:
        train(replace(RECIPE, **{"epochs": 1} | changes), DATA, out=path, device=CPU, resume=True)
    assert not path.exists() and "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}.checkpoint: ")


def test_resume_refuses_what_it_cannot_continue(tmp_path: Path) -> None:
    path = tmp_path / "m.pt.checkpoint"
    assert resumed(tmp_path) == "no such file"
    train(replace(RECIPE, epochs=1), DATA, out=tmp_path / "m.pt", device=CPU)
    (tmp_path / "m.pt").rename(tmp_path / "model.pt")
    assert resumed(tmp_path, cutout=0, seed=4) == "made with another cutout, seed; allowed: the same recipe"
    longer = resumed(tmp_path, epochs=3)
    assert longer.startswith(
        "made for 1 epochs, over which its learning rate falls to 0; allowed: --epochs 1 to continue"
    )
    assert "or --init MODEL and another --out to train" in longer
    whole = load(path)
    checkpoint.save(path, load(tmp_path / "model.pt"))
    assert resumed(tmp_path) == "not a checkpoint; allowed: a file written while train.cifar runs"
    state, best = whole["state"], whole["best"]
    first = "layers.1.weight momentum"
    entry = whole["history"][0]
    damaged = [
        ("recipe is no dictionary", {"recipe": [1]}),
        ("made with another seed; allowed: the same recipe", {"recipe": whole["recipe"] | {"seed": torch.zeros(2)}}),
        ("optimizer does not hold the tensors of this network", {"optimizer": {}}),
        (
            "layers.1.weight momentum is NoneType; allowed: (4, 3, 3, 3)",
            {"optimizer": whole["optimizer"] | {first: None}},
        ),
        (
            "layers.1.weight momentum is (2,); allowed: (4, 3, 3, 3)",
            {"optimizer": whole["optimizer"] | {first: torch.zeros(2)}},
        ),
        ("history has no numbers for each of 1 to 1 epochs", {"history": [{"loss": "small"}]}),
        ("history has no numbers for each of 1 to 1 epochs", {"history": [entry | {"epoch": torch.zeros(0)}]}),
        ("best is no dictionary of score, epoch and state", {"best": 1}),
        ("best has no score, or no epoch of 1..1", {"best": best | {"score": None}}),
        ("best does not hold the tensors of this network", {"best": best | {"state": {}}}),
        ("layers.3.threshold is not finite", {"state": state | {"layers.3.threshold": torch.tensor(float("nan"))}}),
    ]
    for message, entries in damaged:
        checkpoint.save(path, whole | entries)
        assert resumed(tmp_path) == message
    without = {key: value for key, value in whole["recipe"].items() if key != "weight_bits"}
    checkpoint.save(path, {**whole, "recipe": without})
    assert resumed(tmp_path) == "made with another weight_bits; allowed: the same recipe"
    checkpoint.save(path, {**whole, "recipe": whole["recipe"] | {"new": 1}})
    assert resumed(tmp_path) == "made with another new; allowed: the same recipe"
    checkpoint.save(path, {**whole, "state": random_tiny(0, classes=3).state_dict()})
    assert resumed(tmp_path) == "layers.12.weight is (3, 7); allowed: (5, 7)"


def test_resume_refuses_other_images(tmp_path: Path) -> None:
    """The same recipe on other images would mix held-out and training images."""
    train(RECIPE, DATA, out=tmp_path / "m.pt", device=CPU)
    other = ImageSet(DATA.images.flip(0), DATA.labels, DATA.classes)
    with pytest.raises(checkpoint.CheckpointError, match="made with other images or classes; allowed: the same data"):
        train(RECIPE, other, out=tmp_path / "m.pt", device=CPU, resume=True)


def test_the_average_of_the_weights_is_what_is_measured_and_written(tmp_path: Path) -> None:
    """w̄ ← d·w̄ + (1 − d)·w from the first step's weights on; batch norm's statistics alike."""
    training = Training(replace(RECIPE, average=0.75), DATA, device=CPU)
    assert training.result is not training.network
    seen: list[dict[str, Tensor]] = []
    step = training.step

    def record(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found = step(images, labels)
        seen.append({key: value.clone() for key, value in training.network.state_dict().items()})
        return found

    training.step = record  # type: ignore[method-assign]
    training.epoch(0)
    assert len(seen) == 4
    for key in ("layers.1.weight", "layers.2.running_mean", "layers.3.threshold"):
        expected = seen[0][key]
        for state in seen[1:]:
            expected = 0.75 * expected + 0.25 * state[key]
        torch.testing.assert_close(training.result.state_dict()[key], expected)
        assert not torch.allclose(expected, seen[-1][key])


def test_a_relu_network_is_chosen_by_its_own_accuracy_and_gets_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([40.0, 70.0, 60.0])
    monkeypatch.setattr(trainer, "accuracy", lambda *_arguments, **_options: next(scores))
    recipe = replace(RECIPE, activation="relu", dropout=0.1, threshold_scale=0.5, reset="hard")
    network = train(recipe, DATA, out=tmp_path / "m.pt", device=CPU)
    model = read_model(tmp_path / "m.pt")
    stored = model.network
    assert (model.info["epoch"], model.info["validation_ann"]) == (2, 70.0)
    assert [entry["ann"] for entry in model.history] == [40, 70, 60]
    found = [neuron for neuron in neurons(stored) if isinstance(neuron, RateReLU)]
    assert len(found) == 3 and {neuron.reset for neuron in found} == {"hard"}
    held_out = DATA.split(RECIPE.validation, RECIPE.seed)[1]
    balance_thresholds(network, held_out.images.permute(0, 3, 1, 2), RECIPE.induction_steps, 0.5)
    expected = [float(neuron.threshold) for neuron in neurons(network)]
    assert [float(neuron.threshold) for neuron in found] == pytest.approx(expected)


def test_a_network_without_biases_or_batch_norm_is_what_rmp_asks_for(tmp_path: Path) -> None:
    for build in (vgg_small, vgg16, resnet20):
        network = build(activation="relu", dropout=0.2, size=32)
        assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | NQ)]
        assert not [name for name, _ in network.named_parameters() if name.endswith("bias")]
        assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.2}
        assert {type(neuron) for neuron in neurons(network)} == {RateReLU}


def test_the_spiking_network_itself_learns(tmp_path: Path) -> None:
    """Trained for read-outs after 1 and 2 steps, it tells classes apart after one."""
    data = image_set(120, classes=2)
    recipe = replace(RECIPE, epochs=8, batch=15, cutout=0, validation=30, snn_steps=2)
    train(recipe, data, out=tmp_path / "m.pt", device=CPU)
    model = read_model(tmp_path / "m.pt")
    network = model.network
    result = evaluate(network, data.split(30, 0)[1], 2)
    assert min(result.snn) > 75
    assert model.info["validation_snn"] == pytest.approx(sum(result.snn) / 2), "chosen by the mean"


@pytest.mark.parametrize(("read_outs", "first"), [("all", 0), ("last", 2)])
def test_the_loss_of_the_spiking_network_is_the_mean_over_its_read_outs(read_outs: ReadOuts, first: int) -> None:
    recipe = replace(RECIPE, snn_steps=3, read_outs=read_outs, label_smoothing=0.1, learning_rate=0.0)
    training = Training(recipe, DATA, device=CPU)
    training.network.eval()  # statistics of batch norm that a second run does not change
    for neuron in neurons(training.network):
        neuron.train()
    images, labels = DATA.images[:10].permute(0, 3, 1, 2), DATA.labels[:10]
    loss, _ = training.step(images, labels)
    scores = simulate(training.network.eval(), images, 3)[first:]
    expected = sum(nn.functional.cross_entropy(score, labels, label_smoothing=0.1) for score in scores) / len(scores)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("other", [False, True])
def test_distillation_mixes_labels_with_what_the_teacher_gives(other: bool) -> None:
    """(1 − d) of the smoothed labels, d of the teacher's probabilities; training does not change the teacher."""
    start = random_tiny(1, classes=5)
    teacher = random_tiny(2, classes=5) if other else None
    recipe = replace(RECIPE, distillation=0.25, label_smoothing=0.2, snn_steps=2, temperature=3.0)
    training = Training(recipe, DATA, device=CPU, start=start, teacher=teacher)
    images, labels = DATA.images[:10].permute(0, 3, 1, 2), DATA.labels[:10]
    training.optimizer.set_rate(1)
    training.network.train()
    training.step(images, labels)
    scores = torch.randn(2, 10, 5)
    with torch.no_grad():
        soft = ((teacher or start)(images) / 3).softmax(1)
    smoothed = 0.8 * torch.eye(5)[labels] + 0.2 / 5
    parts = [(-q * (s / t).log_softmax(1)).sum(1).mean() for s in scores for q, t in ((smoothed, 1), (soft, 3))]
    expected = 0.75 * (parts[0] + parts[2]) / 2 + 0.25 * 9 * (parts[1] + parts[3]) / 2
    torch.testing.assert_close(training.loss(scores, images, labels), expected)


def test_distillation_needs_a_teacher() -> None:
    with pytest.raises(
        ValueError, match=r"distillation is 0.5 without a teacher; allowed: with --init or --pretrained"
    ):
        Training(replace(RECIPE, distillation=0.5), DATA, device=CPU)


def test_a_new_training_does_not_replace_one_that_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, saved = tmp_path / "m.pt", tmp_path / "m.pt.checkpoint"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 6)
        train(RECIPE, DATA, out=out, device=CPU)
    before = saved.read_bytes()
    message = rf"^{saved}: holds a training that has done 1 of 3 epochs; allowed: --resume to continue it, another"
    with pytest.raises(CheckpointError, match=message):
        train(replace(RECIPE, seed=1), DATA, out=out, device=CPU)
    assert saved.read_bytes() == before
    train(RECIPE, DATA, out=out, device=CPU, resume=True)
    train(replace(RECIPE, epochs=1), DATA, out=out, device=CPU)  # a finished one makes room
    assert len(load(saved)["history"]) == 1
    saved.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=f"^{saved}: not a model file"):
        train(RECIPE, DATA, out=out, device=CPU)
    assert saved.read_bytes() == b"something else"
