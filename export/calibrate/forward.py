"""What folded layers receive and give without spikes: ReLUs, and rates of constant currents."""

from collections.abc import Mapping

import torch
from torch import Tensor

from export.fold.folded import FoldedLayer, FoldedNetwork
from export.round.calibration import arriving, images_at_once, pixels, unfolded
from export.round.quantize import effective
from nqlava.network import IMAGE


@torch.no_grad()
def quantized_scores(folded: FoldedNetwork, images: Tensor, steps: int) -> Tensor:
    """Scores (N, K) of the network with T levels in place of every activation, for images uint8 (N, C, H, W)."""
    found = []
    for part in images.split(images_at_once(folded)):
        values = {IMAGE: pixels(part, folded, torch.float32)}
        for layer in folded.layers:
            if layer.is_maximum:
                values[layer.name] = largest_of(layer, values)
                continue
            z = received(layer, folded, values)
            if layer.threshold is None:
                found.append(z)
                break
            neurons = (layer.threshold, layer.initial)
            theta, initial = (per_channel(torch.as_tensor(value).float(), z.dim()) for value in neurons)
            values[layer.name] = rate_of(z / theta, initial, steps)
    return torch.cat(found)


def per_channel(values: Tensor, dims: int) -> Tensor:
    """Values per channel as they broadcast over (n, C, ...)."""
    return values.view(-1, *[1] * (dims - 2)) if values.dim() else values


def rate_of(share: Tensor, initial: Tensor, steps: int) -> Tensor:
    """The rate of neurons that a constant current of this share of θ drives for T steps."""
    return (share * steps + initial).floor().clamp(0, steps) / steps


def received(layer: FoldedLayer, folded: FoldedNetwork, values: Mapping[str, Tensor]) -> Tensor:
    """What the layer receives of these values of its sources, with its bias."""
    total = torch.from_numpy(layer.bias_map).float()
    for connection in layer.connections:
        total = total + arriving(connection, effective(connection, folded), values[connection.source])
    return total


def largest_of(layer: FoldedLayer, values: Mapping[str, Tensor]) -> Tensor:
    """The largest of the values where the weights are 1, (n, *shape)."""
    shape = layer.connections[0].output_shape
    found = []
    for rows in unfolded(layer.connections, [values[c.source] for c in layer.connections]):
        best: Tensor | None = None
        for c, x in zip(layer.connections, rows, strict=True):
            mask = (
                torch.from_numpy(c.weight != 0).flatten(1).unflatten(0, (c.groups, -1))
            )  # (groups, O / groups, inputs)
            seen = torch.where(mask[:, :, None], x[:, :, None], 0.0).amax(-1).flatten(1, 2)
            best = seen if best is None else torch.maximum(best, seen)
        assert best is not None
        found.append(best.reshape(-1, *shape))
    return torch.cat(found)
