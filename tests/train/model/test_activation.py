"""NQ computes QCFS plus noise, with straight-through gradients, plain or compiled."""

import shutil

import pytest
import torch
from torch import Tensor

from train.loop.trainer import choose_kernels
from train.model.activation import NQ, NoisePool
from train.model.kernels import Kernels, compiled_kernels, quantize_backward, quantize_forward


def activation(levels: int, threshold: float, sigma: float = 0.0) -> NQ:
    layer = NQ(levels, threshold)
    layer.sigma.fill_(sigma)
    return layer


def inputs(threshold: float, seed: int = 0) -> Tensor:
    """Below, inside and above the range 0 .. λ, channels-last."""
    z = torch.rand(5, 3, 7, 4, generator=torch.Generator().manual_seed(seed)) * 3 - 1
    return (z * threshold).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("training", [False, True])
def test_qcfs_by_hand(training: bool) -> None:
    """λ = 2, L = 4: steps of 0.5, a midpoint belongs to the level above, and both ends are clipped."""
    expected = {
        -9.0: 0.0,
        -0.25: 0.0,
        0.0: 0.0,
        0.2499: 0.0,
        0.25: 0.5,
        0.7499: 0.5,
        0.75: 1.0,
        1.25: 1.5,
        1.7499: 1.5,
        1.75: 2.0,
        2.0: 2.0,
        9.0: 2.0,
    }
    out = activation(4, 2.0).train(training)(torch.tensor(list(expected)))
    assert out.tolist() == list(expected.values())


@pytest.mark.parametrize(("levels", "threshold"), [(1, 0.7), (4, 2.0), (7, 3.3)])
def test_gradients_equal_autograd_through_clamp_and_straight_through_floor(levels: int, threshold: float) -> None:
    layer = activation(levels, threshold).train()
    z = inputs(threshold).requires_grad_()
    weight = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    (layer(z) * weight).sum().backward()

    other = z.detach().clone().requires_grad_()
    theta = torch.tensor(threshold, requires_grad=True)
    scaled = (other / theta).clamp(0, 1) * levels + 0.5
    rounded = scaled + (scaled.floor() - scaled).detach()
    (theta * rounded / levels * weight).sum().backward()

    torch.testing.assert_close(z.grad, other.grad)
    torch.testing.assert_close(layer.threshold.grad, theta.grad, rtol=1e-4, atol=1e-3)
    assert 0.2 < float((z.grad == 0).float().mean()) < 0.8  # both branches are reached


def test_bfloat16_stays_bfloat16() -> None:
    layer = activation(4, 2.0, sigma=0.5).train()
    z = inputs(2.0).bfloat16().requires_grad_()
    layer.noise = lambda shape: torch.randn(shape).bfloat16()
    out = layer(z)
    out.sum().backward()
    assert out.dtype == z.grad.dtype == torch.bfloat16
    assert layer.threshold.grad.dtype == torch.float32
    assert torch.equal(layer.eval()(z.detach()), layer(z.detach().float()).bfloat16())


def test_noise_has_the_stored_scale_and_is_for_training_only() -> None:
    layer, z = activation(4, 2.0, sigma=0.3), inputs(2.0)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    quiet = layer.eval()(z)
    assert torch.equal(layer.train()(z), quiet)
    layer.noise = lambda shape: noise.view(shape)
    assert torch.equal(layer.eval()(z), quiet)
    torch.testing.assert_close(layer.train()(z), quiet + 0.3 * noise)


@pytest.mark.parametrize(
    ("levels", "threshold", "message"),
    [
        (0, 1.0, "levels must be at least 1, got 0"),
        (4, 0.0, "threshold must be positive, got 0.0"),
        (4, float("nan"), "threshold must be positive, got nan"),
    ],
)
def test_bad_arguments(levels: int, threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NQ(levels, threshold)


def test_noise_pool_hands_out_its_values_decided_by_the_generator() -> None:
    def draw() -> tuple[NoisePool, Tensor]:
        generator = torch.Generator().manual_seed(3)
        pool = NoisePool(20_000, dtype=torch.float32, device=torch.device("cpu"), generator=generator)
        return pool, pool.like(torch.Size((4, 3, 5, 6)))

    pool, noise = draw()
    assert torch.equal(noise, draw()[1])
    assert noise.shape == (4, 3, 5, 6) and noise.is_contiguous(memory_format=torch.channels_last)
    assert torch.isin(noise, pool.values).all()
    assert abs(float(pool.values.mean())) < 0.03 and abs(float(pool.values.std()) - 1) < 0.03
    assert not torch.equal(pool.like(torch.Size((50,))), pool.like(torch.Size((50,))))
    assert torch.equal(pool.like(torch.Size((20_000,))), pool.values)


def test_without_a_compiler_the_plain_kernels_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert choose_kernels(10**6, torch.device("cpu")) == Kernels()


def test_a_short_training_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert choose_kernels(499, torch.device("cpu")) == Kernels()


def test_a_compiler_that_fails_falls_back_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> Tensor:
        raise OSError("no headers")

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr("train.loop.trainer.compiled_kernels", lambda: Kernels(refuse, refuse, refuse, refuse))
    with pytest.warns(UserWarning, match=r"torch\.compile is not usable here \(OSError\); training runs slower"):
        assert choose_kernels(500, torch.device("cpu")) == Kernels()


# PyTorch's compiler imports what it built in a way that Python deprecates.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_compiled_kernels_equal_the_plain_ones_where_there_is_a_compiler() -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        assert choose_kernels(10**6, torch.device("cpu")) == Kernels()
        return
    kernels, z = compiled_kernels(), inputs(2.0)
    theta, sigma = torch.tensor(2.0), torch.tensor(0.3)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(4)).to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        kernels.quantize_forward(z, theta, sigma, noise, 4),
        quantize_forward(z, theta, sigma, noise, 4),
        rtol=1.2e-7,
        atol=6e-8,
    )
    grad_z, grad_theta = kernels.quantize_backward(z, theta, noise, 4)
    plain_z, plain_theta = quantize_backward(z, theta, noise, 4)
    assert torch.equal(grad_z, plain_z)
    torch.testing.assert_close(grad_theta, plain_theta, rtol=1e-4, atol=1e-3)
