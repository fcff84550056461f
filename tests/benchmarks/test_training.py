"""The benchmark of training compares loops that compute the same, and runs from its command."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.training import PlainNQ, compare_gradients, main
from train.loop.recipe import Recipe
from train.model.activation import NQ
from train.model.kernels import Kernels, quantize_backward, quantize_forward

RECIPE = Recipe(model="vgg_tiny")


def test_plain_nq_equals_nq() -> None:
    """The same values and gradients, from below 0 to above λ; with noise of standard deviation σ on top."""
    layer = NQ(levels=4, threshold=1.5)
    plain = PlainNQ(layer)
    found = []
    for module in (layer, plain):
        z = torch.linspace(-0.5, 2.5, 1001, requires_grad=True)
        output = module(z)
        (output * torch.linspace(-1, 2, 1001)).sum().backward()
        found.append((output, z.grad, layer.threshold.grad))
        layer.threshold.grad = None
    torch.testing.assert_close(*found)
    assert len(found[0][0].unique()) == 5
    torch.manual_seed(0)
    plain.sigma.fill_(0.2)
    z = torch.zeros(100_000)
    assert float(plain(z).std()) == pytest.approx(0.2, rel=0.02)


def wrong_forward(z: Tensor, threshold: Tensor, sigma: Tensor, noise: Tensor | None, levels: int) -> Tensor:
    return quantize_forward(z + 0.01, threshold, sigma, noise, levels)


def wrong_gradient(z: Tensor, threshold: Tensor, grad: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    grad_z, grad_threshold = quantize_backward(z, threshold, grad, levels)
    return grad_z * 1.02, grad_threshold


def wrong_threshold(z: Tensor, threshold: Tensor, grad: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    grad_z, grad_threshold = quantize_backward(z, threshold, grad, levels)
    return grad_z, grad_threshold * 1.02


@pytest.mark.parametrize(
    ("kernels", "what"),
    [
        (Kernels(quantize_forward=wrong_forward), "pre-activations"),
        (Kernels(quantize_backward=wrong_gradient), "gradients"),
        (Kernels(quantize_backward=wrong_threshold), "gradients"),
    ],
)
def test_a_trainer_that_computes_something_else_is_not_timed(kernels: Kernels, what: str) -> None:
    assert 0 < compare_gradients(RECIPE, 8, Kernels())["gradients"] < 1e-3
    with pytest.raises(RuntimeError, match=f"^vgg_tiny: {what} differ by .*; allowed: 0.003$"):
        compare_gradients(RECIPE, 8, kernels)


def test_quick_run_writes_every_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["--quick", "--threads", "1", "--out", str(tmp_path / "training")]) == 0
    finally:
        torch.set_num_threads(threads)
    result = json.loads((tmp_path / "training" / "training.json").read_text())
    assert (result["machine"]["threads"], result["batch"], result["steps"]) == (1, 4, 2)
    (row,) = result["rows"]
    assert row["model"] == "vgg_tiny" and 0 < row["differences"]["gradients"] < 3e-3
    for name in ("plain", "trainer", "ReLU"):
        rate, time = row["images_per_second"][name], row["seconds_per_epoch"][name]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert rate["max"] * time["min"] == pytest.approx(50_000)
        faster, slower = row["trainer_is_faster_by"][name], row["trainer_takes_times"][name]
        assert faster["max"] * slower["min"] == pytest.approx(1)
    text = (tmp_path / "training" / "training.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out and "| vgg_tiny | ReLU | " in text


@pytest.mark.parametrize("option", ["--batch", "--steps", "--repeats", "--threads"])
def test_counts_are_positive(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), option, "0"])
    assert f"{option}: '0'; allowed: whole numbers from 1" in capsys.readouterr().err
