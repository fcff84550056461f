"""A folded network as a module that can be trained further, and back."""

from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from export.fold.folded import Call, ExportError, Floats, FoldedConnection, FoldedLayer, FoldedNetwork
from nqlava.network import IMAGE
from train.choices import MAX_LEVELS
from train.model.lowered import Current, Lowered
from train.model.plan import Kind, Map, Plan


def as_module(folded: FoldedNetwork, levels: int) -> Lowered:
    """The network with θ = 1 for every neuron: weights and biases are divided by θ, channel by channel.

    Args:
        folded: with thresholds in all layers but the read-out.
        levels: L of the activations, of which there are MAX_LEVELS at most.

    Raises:
        ExportError: neurons with hard reset.
    """
    plans = []
    for layer in folded.layers:
        if layer.reset != "soft" and not layer.is_maximum:
            raise ExportError(f"{layer.name}: has hard reset, which cannot be trained further; use soft reset")
        maps = tuple(
            Map(
                c.source,
                _four(c.weight.shape),
                c.window,
                c.stride,
                c.padding,
                c.dilation,
                c.groups,
                c.is_dense,
                c.is_identity,
            )
            for c in layer.connections
        )
        kind: Kind = "maximum" if layer.is_maximum else "read-out" if layer.threshold is None else "neurons"
        plans.append(Plan(layer.name, maps, layer.bias.shape, kind))
    mean, std = folded.mean.tolist(), folded.std.tolist()
    made = Lowered(plans, input_shape=folded.input_shape, levels=min(levels, MAX_LEVELS), mean=mean, std=std)
    for layer, (_, current, neuron) in zip(folded.layers, made.parts(), strict=True):
        count = len(layer.bias)
        theta = np.broadcast_to(1.0 if layer.threshold is None else layer.threshold, (count,))
        for connection, module in zip(layer.connections, current.maps, strict=True):
            module.weight.data = _tensor(connection.weight / theta.reshape(-1, 1, 1, 1))
        current.bias.data = _tensor(layer.bias / theta.reshape(-1, *[1] * (layer.bias.ndim - 1)))
        if neuron is not None:
            neuron.initial = _tensor(np.broadcast_to(np.asarray(layer.initial, np.float64), (count,)))
    return made.eval()


def as_folded(module: Lowered) -> FoldedNetwork:
    """The network that a module computes; a spike has the amplitude 1 again."""
    amplitudes: dict[str, Floats] = {IMAGE: np.ones(module.input_shape[0])}
    shapes: dict[str, tuple[int, ...]] = {IMAGE: module.input_shape}
    layers, calls = [], []
    for plan, current, neuron in module.parts():
        weights, shift = _without_norms(current)
        if plan.kind != "maximum":
            weights = [w * _per_input(m, amplitudes[m.source]) for m, w in zip(plan.maps, weights, strict=True)]
        connections = tuple(
            FoldedConnection(
                m.source,
                shapes[m.source],
                weight,
                m.window,
                *m.geometry,
                is_dense=m.is_dense,
                is_identity=m.is_identity,
            )
            for m, weight in zip(plan.maps, weights, strict=True)
        )
        shape = shapes[plan.name] = connections[0].output_shape
        layer = FoldedLayer(
            plan.name, connections, _array(current.bias) + shift, parameters=sum(w.size for w in weights)
        )
        if neuron is not None:
            theta, initial = float(neuron.threshold), _array(neuron.initial)
            layer = replace(layer, threshold=theta, initial=initial if initial.ndim else float(initial))
            amplitudes[plan.name] = np.full(shape[0], theta)
            places = ((plan.name, np.arange(prod(shape))),)
            calls.append(Call(places, shape if len(shape) == 3 else (*shape, 1, 1), outputs=places))  # type: ignore[arg-type]
        elif plan.kind == "maximum":
            layer = replace(layer, threshold=1.0, initial=0.0, reset="hard", is_maximum=True)
            taken = [
                w.any((2, 3), keepdims=True) * _per_input(m, amplitudes[m.source])
                for m, w in zip(plan.maps, weights, strict=True)
            ]
            amplitudes[plan.name] = np.maximum.reduce([t.max((1, 2, 3)) for t in taken])
        layers.append(layer)
    normalize = module.layers[0]
    mean, std = (_array(values).reshape(-1) for values in (normalize.mean, normalize.std))
    return FoldedNetwork(module.input_shape, tuple(layers), mean, std, tuple(calls))


def _without_norms(current: Current) -> tuple[list[Floats], Floats]:
    """Weights of the maps with their batch norm, and what that adds to the bias, as it broadcasts over it."""
    weights = [_array(part.weight) for part in current.maps]
    shift = np.zeros((len(weights[0]), *[1] * (current.bias.dim() - 1)))
    for index, norm in enumerate(current.norms or ()):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            factor = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)  # type: ignore[arg-type]
            weights[index] = weights[index] * factor.reshape(-1, 1, 1, 1)
            shift = shift + (_array(norm.bias) - _array(norm.running_mean) * factor).reshape(shift.shape)  # type: ignore[arg-type]
    return weights, shift


def _per_input(m: Map, amplitudes: Floats) -> Floats:
    """The amplitude of each channel that a weight acts on, (O, I/groups, 1, 1)."""
    size = m.shape[1] * m.groups
    channels = np.repeat(amplitudes, size // len(amplitudes)) if len(amplitudes) != size else amplitudes
    return channels.reshape(m.groups, -1).repeat(m.shape[0] // m.groups, axis=0)[:, :, None, None]


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    outputs, inputs, height, width = shape
    return outputs, inputs, height, width


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(values.copy()).float()


def _array(values: Tensor) -> Floats:
    return values.detach().double().numpy()
