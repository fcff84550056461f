"""Random networks built of SLAYER's own blocks, and exported by them."""

import warnings
from pathlib import Path

import deploy.lava.compatibility  # noqa: F401 — before Lava

import h5py
import numpy as np
import torch
from lava.lib.dl.slayer import block, neuron
from torch import nn


def random_blocks(rng: np.random.Generator) -> tuple[nn.ModuleList, tuple[int, ...], bool]:
    """Blocks that have seen an input, the shape of one step of it, and whether the first block has neurons.

    Convolutional or dense; weights with and without normalisation, biases, delays, decays per channel.
    """
    convolutional = bool(rng.random() < 0.6)
    shape: tuple[int, ...] = (2, 6, 8) if convolutional else (int(rng.integers(4, 12)),)
    input_shape = shape
    input_neurons = bool(rng.random() < 0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch has a new weight norm
        # Without neurons, lava-dl's Input fails with its default delay_shift.
        blocks = [block.cuba.Input(_parameters(rng, bias=False) if input_neurons else None, delay_shift=input_neurons)]
        if convolutional:
            first = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)}
            second = {"kernel_size": 2, "dilation": 2, "groups": 2}
            for outputs, geometry in ((4, first), (6, second))[: rng.integers(1, 3)]:
                blocks.append(
                    block.cuba.Conv(_parameters(rng), shape[0], outputs, **geometry, weight_norm=rng.random() < 0.5)
                )
                shape = tuple(nn.Sequential(*blocks)(torch.zeros(1, *input_shape, 1)).shape[1:-1])
            blocks.append(block.cuba.Flatten())
        size = int(np.prod(shape))
        for outputs in (7, 3):
            options = {"weight_norm": rng.random() < 0.5, "delay": bool(rng.random() < 0.3)}
            blocks.append(block.cuba.Dense(_parameters(rng, shared=False), size, outputs, **options))
            size = outputs
        if rng.random() < 0.5:
            blocks.append(block.cuba.Affine(_parameters(rng, bias=False), size, 2, dynamics=bool(rng.random() < 0.5)))
    modules = nn.ModuleList(blocks)
    modules.eval()
    forward(modules, torch.zeros(1, *input_shape, 2))
    for module in modules:
        _randomize(rng, module)
    return modules, input_shape, input_neurons


def forward(modules: nn.ModuleList, inputs: torch.Tensor) -> list[torch.Tensor]:
    """What each block passes on, (samples, *shape, T)."""
    outputs = []
    with torch.no_grad():
        for module in modules:
            inputs = module(inputs)
            outputs.append(inputs)
    return outputs


def export(modules: nn.ModuleList, path: Path) -> None:
    """As lava-dl's tutorials do it."""
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        for index, module in enumerate(modules):
            module.export_hdf5(layer.create_group(f"{index}"))


def _parameters(rng: np.random.Generator, *, bias: bool = True, shared: bool = True) -> dict[str, object]:
    return {
        "threshold": float(rng.uniform(0.5, 2)),
        "current_decay": float(rng.choice([0.1, 0.5, 1.0])),
        "voltage_decay": float(rng.choice([0.0, 0.03, 0.3])),
        "shared_param": shared or bool(rng.random() < 0.5),  # on CPUs, SLAYER confuses channels with columns
        "norm": neuron.norm.MeanOnlyBatchNorm if bias and rng.random() < 0.5 else None,
    }


def _randomize(rng: np.random.Generator, module: nn.Module) -> None:
    """Weights of both signs with which neurons fire, biases, and delays of a few steps."""
    synapse = getattr(module, "synapse", None)
    if synapse is not None:
        weights = synapse.weight_v if synapse.weight_norm_enabled else synapse.weight
        fan_in = weights[0].numel()
        values = rng.normal(0.3 / fan_in**0.5, 1.5 / fan_in**0.5, weights.shape)
        weights.data = torch.tensor(values, dtype=torch.float32)
        if synapse.weight_norm_enabled:
            synapse.weight_g.data = weights.data.flatten(1).norm(dim=1).reshape(synapse.weight_g.shape)
    norm = getattr(getattr(module, "neuron", None), "norm", None)
    if norm is not None:
        channels = module.neuron.shape[0]
        norm.running_mean = torch.tensor(rng.normal(0, 0.2, channels), dtype=torch.float32)
    if getattr(module, "delay", None) is not None:
        module.delay.delay.data = torch.tensor(rng.uniform(0, 5, module.neuron.shape[0]), dtype=torch.float32)
