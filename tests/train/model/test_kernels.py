"""The spikes of training are those of the neuron, and their gradients follow from the stated slopes."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.model.activation import NQ
from train.model.kernels import compiled_kernels, quantize_backward, spike_backward, spike_forward
from train.model.neuron import integrate_and_fire


def currents(steps: int, count: int, seed: int) -> Tensor:
    return torch.randn(steps, count, generator=torch.Generator().manual_seed(seed))


@given(steps=st.integers(1, 6), theta=st.floats(0.1, 3), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_spikes_are_those_of_the_neuron(steps: int, theta: float, seed: int) -> None:
    z, threshold = currents(steps, 50, seed), torch.tensor(theta)
    assert torch.equal(spike_forward(z, threshold), integrate_and_fire(z, threshold, 0.5, "soft"))


class Step(torch.autograd.Function):
    """1 where the ratio u/θ is at least 1; its derivative is taken as 1 between 1/2 and 3/2."""

    @staticmethod
    def forward(ctx, ratio: Tensor) -> Tensor:
        ctx.save_for_backward(ratio)
        return (ratio >= 1).double()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (ratio,) = ctx.saved_tensors
        return grad * ((ratio > 0.5) & (ratio < 1.5))


@given(steps=st.integers(1, 6), theta=st.floats(0.1, 3), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_gradients_are_those_of_automatic_differentiation_with_the_same_slopes(
    steps: int, theta: float, seed: int
) -> None:
    z, grad = currents(steps, 50, seed), currents(steps, 50, seed + 1)
    exact, threshold = z.double().requires_grad_(), torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    membrane, outputs = threshold * 0.5, []
    for current in exact:
        membrane = membrane + current
        outputs.append(threshold * Step.apply(membrane / threshold))
        membrane = membrane - outputs[-1]
    torch.stack(outputs).backward(grad.double())
    grad_z, grad_threshold = spike_backward(z, torch.tensor(theta), grad)
    torch.testing.assert_close(grad_z.double(), exact.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad_threshold.double(), threshold.grad, rtol=1e-4, atol=1e-3)


def test_one_step_is_the_quantized_activation_with_one_level() -> None:
    z, grad, threshold = currents(1, 1000, 0) * 2, currents(1, 1000, 1), torch.tensor(1.5)
    activation = NQ(1, 1.5).eval()
    assert torch.equal(spike_forward(z, threshold), activation(z).detach())
    spikes, levels = spike_backward(z, threshold, grad), quantize_backward(z, threshold, grad, 1)
    assert torch.equal(spikes[0], levels[0])
    torch.testing.assert_close(spikes[1], levels[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "contiguous"])
def test_images_keep_their_order_in_any_memory_layout(layout: torch.memory_format) -> None:
    activation = NQ(4, 1.5).train()
    z = torch.randn(3 * 2, 5, 4, 3, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    z.requires_grad_()
    activation.steps = 3
    out = activation(z)
    activation.eval()
    with torch.no_grad():
        assert torch.equal(out, activation(z)) and out.unique().numel() == 2
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(grad)
    steps = [tensor.detach().reshape(3, -1) for tensor in (z, grad)]
    expected, threshold = spike_backward(steps[0], torch.tensor(1.5), steps[1])
    assert torch.equal(z.grad.reshape(3, -1), expected)
    torch.testing.assert_close(activation.threshold.grad, threshold)


# PyTorch's compiler imports what it built in a way that Python deprecates.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_compiled_spikes_equal_the_plain_ones() -> None:
    z, grad, threshold = currents(3, 600, 0), currents(3, 600, 1), torch.tensor(0.7)
    kernels = compiled_kernels()
    assert torch.equal(kernels.spike_forward(z, threshold), spike_forward(z, threshold))
    compiled, plain = kernels.spike_backward(z, threshold, grad), spike_backward(z, threshold, grad)
    torch.testing.assert_close(compiled[0], plain[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(compiled[1], plain[1], rtol=1e-4, atol=1e-3)
