"""What the layers of the float and of the integer network receive and emit on calibration images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import lcm, prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export.fold.folded import Floats, FoldedConnection, FoldedLayer, FoldedNetwork
from export.round.quantize import effective, learned
from nqlava.engine.layer import PreparedLayer, exact_arithmetic, integrate
from nqlava.network import IMAGE, INPUT_MAX, IntegerNetwork, Layer
from train.data.image_set import at_once
from train.model.neuron import integrate_and_fire

_IMAGES = 32  # at once
_VALUES = 2**24  # values of unfolded inputs at once: 64 MiB
_EXACT = 2**24  # float32 holds all integers up to here


def images_at_once(folded: FoldedNetwork) -> int:
    """Of which all layers' outputs fit into the memory."""
    return min(_IMAGES, at_once(folded.input_shape))


def window_sums(connection: FoldedConnection, values: Tensor) -> Tensor:
    """Sums over the windows of the averaging: (n, C, H', W') of values (n, *source_shape)."""
    values = values.reshape(len(values), -1, *values.shape[2:] if values.dim() == 4 else (1, 1))
    return values if connection.window == (1, 1) else F.avg_pool2d(values, connection.window, divisor_override=1)


def arriving(connection: FoldedConnection, weight: Floats, values: Tensor) -> Tensor:
    """What arrives over one connection with the given weights, (n, *output_shape), of values (n, *source_shape).

    The weights act on window sums, as ``effective`` ones do; the result has the dtype of the values.
    """
    geometry = (connection.stride, connection.padding, connection.dilation, connection.groups)
    current = F.conv2d(window_sums(connection, values), torch.from_numpy(weight).to(values.dtype), None, *geometry)
    return current.reshape(len(values), *connection.output_shape)


def pixels(images: Tensor, folded: FoldedNetwork, dtype: torch.dtype) -> Tensor:
    """x − 255 m of images uint8 (n, C, H, W): what the first layer's ``effective`` weights act on."""
    return images.to(dtype) - torch.from_numpy(INPUT_MAX * folded.mean).to(dtype).reshape(-1, 1, 1)


@torch.no_grad()
def run_float(
    folded: FoldedNetwork, images: Tensor, steps: int, observe: Callable[[str, Tensor, Tensor], None]
) -> None:
    """The float SNN over T steps, in float32.

    Args:
        folded: a spike counts 1.
        images: uint8 (n, C, H, W).
        steps: T.
        observe: called for every layer with its name, the mean over the steps of its input current with bias, and its
            rate (both (n, *output_shape); the read-out's rate is empty).
    """
    spikes: dict[str, Tensor] = {}
    last = {c.source: layer.name for layer in folded.layers for c in layer.connections}
    image = pixels(images, folded, torch.float32)
    for layer in folded.layers:
        current = torch.from_numpy(layer.bias_map).float()
        for connection in layer.connections:
            if connection.source == IMAGE:
                current = current + arriving(connection, effective(connection, folded), image)
            else:
                part = arriving(connection, effective(connection, folded), spikes[connection.source].flatten(0, 1))
                current = current + part.unflatten(0, (steps, -1))
        shape = (steps, len(images), *layer.connections[0].output_shape)
        current = current.expand(shape)
        fired = torch.empty(0)
        if layer.threshold is not None:
            threshold = torch.as_tensor(layer.threshold, dtype=torch.float32)
            initial = torch.as_tensor(layer.initial, dtype=torch.float32)
            spikes[layer.name] = (integrate_and_fire(current, threshold, initial, layer.reset) > 0).float()
            fired = spikes[layer.name].mean(0)
        observe(layer.name, current.mean(0), fired)
        for name in [name for name in spikes if last.get(name, layer.name) == layer.name]:
            del spikes[name]


class IntegerPrefix:
    """The layers made so far, run on calibration images: holds the spikes that the layers to come need.

    Args:
        folded: the network that is being quantized.
        images: uint8 (N, C, H, W).
        steps: T.
    """

    def __init__(self, folded: FoldedNetwork, images: Tensor, steps: int) -> None:
        self.folded = folded
        self.steps = steps
        self._images = images.split(images_at_once(folded))
        self._shapes: dict[str, tuple[int, ...]] = {IMAGE: folded.input_shape}
        self._last_use = {c.source: layer.name for layer in folded.layers for c in layer.connections}
        self._spikes: dict[str, list[Tensor]] = {}  # per part of the images bool (T, n, *shape)

    @property
    def sources(self) -> tuple[str, ...]:
        """Layers whose spikes are held."""
        return tuple(self._spikes)

    def advance(self, layer: Layer, observe: Callable[[int, Tensor], None] | None = None) -> None:
        """Run the next layer.

        Args:
            layer: its sources are the image or layers before it.
            observe: called per part of the images with its index and the mean over the steps of I + b, float64
                (n, *output_shape).
        """
        with exact_arithmetic():
            prepared = PreparedLayer(layer, self._shapes, torch.device("cpu"))
            fired: list[Tensor] = []
            for index, images in enumerate(self._images):
                constant = prepared.current({IMAGE: images})
                sums = prepared.sums({s: parts[index].flatten(0, 1) for s, parts in self._spikes.items()})
                currents = [constant] * self.steps
                if sums is not None:
                    currents = list(sums.unflatten(0, (self.steps, -1)) + constant)
                if observe is not None:
                    mean = sum(current.double() for current in currents) / self.steps
                    observe(index, mean.expand(len(images), *prepared.output_shape))  # type: ignore[union-attr]
                if layer.threshold is None:
                    continue
                v = prepared.initial(len(images))
                steps = []
                for current in currents:
                    integrate(v, current)
                    steps.append(prepared.fire(v))
                fired.append(torch.stack(steps))
        self._shapes[layer.name] = prepared.output_shape
        self._spikes[layer.name] = fired
        self._spikes = {name: parts for name, parts in self._spikes.items() if self._last_use.get(name) != layer.name}
        self._spikes = {name: s for name, s in self._spikes.items() if name in self._last_use}

    def counts(self, source: str) -> Iterator[Tensor]:
        """Spikes summed over the steps, float32 (n, *shape), part by part; x − 255 m in float64 for the image."""
        if source == IMAGE:
            yield from (pixels(images, self.folded, torch.float64) for images in self._images)
        else:
            yield from (part.sum(0, dtype=torch.float32) for part in self._spikes[source])

    def mean(self, source: str) -> Tensor:
        """Mean over images and steps, float64 (1, *shape)."""
        total = sum(part.double().sum(0, keepdim=True) for part in self.counts(source))
        assert isinstance(total, Tensor)
        return total / (sum(map(len, self._images)) * (1 if source == IMAGE else self.steps))

    def moments(self, layer: FoldedLayer, *, centred: bool) -> list[Tensor]:
        """Second moments of what the learned connections of the next layer receive, over images and positions.

        Inputs of all connections stand behind each other, per connection in (I/groups, kh, kw) order; each is the mean
        over T steps of spikes summed over the window, or of a pixel less its mean, x − 255 m.

        Args:
            layer: the layer.
            centred: less the product of the means, which gives the covariance.

        Returns:
            One float64 (n, n) for each of the blocks of output channels that see the same inputs: as many as the least
            common multiple of the groups.
        """
        connections = learned(layer)
        blocks = lcm(*(c.groups for c in connections))
        sizes = [prod(c.weight.shape[1:]) for c in connections]
        factors = torch.cat(
            [
                torch.full((size,), 1.0 if c.source == IMAGE else 1 / self.steps, dtype=torch.float64)
                for size, c in zip(sizes, connections, strict=True)
            ]
        )
        second = torch.zeros(blocks, sum(sizes), sum(sizes), dtype=torch.float64)
        first = torch.zeros(blocks, sum(sizes), dtype=torch.float64)
        samples = 0
        for inputs in zip(*(self.counts(c.source) for c in connections), strict=True):
            for rows in unfolded(connections, inputs):
                for block in range(blocks):
                    part = torch.cat(
                        [r[:, block * c.groups // blocks] for r, c in zip(rows, connections, strict=True)], dim=2
                    ).flatten(0, 1)
                    if float(part.abs().max()) ** 2 * len(part) >= _EXACT:
                        part = part.double()
                    second[block] += part.T @ part
                    first[block] += part.sum(0, dtype=torch.float64)
                samples += rows[0].shape[0] * rows[0].shape[2]
        mean = first * factors / samples
        second *= factors[:, None] * factors / samples
        if centred:
            second -= mean[:, :, None] * mean[:, None, :]
        return list(second)


def unfolded(connections: Sequence[FoldedConnection], inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Per connection what its kernels see, (n, groups, positions, inputs), of a few images at a time."""
    sums = [window_sums(c, values) for c, values in zip(connections, inputs, strict=True)]
    positions = prod(connections[0].output_shape[1:])
    size = sum(prod(c.weight.shape[1:]) * c.groups for c in connections) * positions
    images = max(1, _VALUES // size)
    for start in range(0, len(sums[0]), images):
        rows = []
        for connection, values in zip(connections, sums, strict=True):
            c = connection
            # F.unfold takes float32 and float64, and gives (n, I · kh · kw, positions).
            unfolded = F.unfold(values[start : start + images], c.weight.shape[2:], c.dilation, c.padding, c.stride)
            rows.append(unfolded.unflatten(1, (c.groups, -1)).transpose(2, 3))
        yield rows


def mean_current(layer: FoldedLayer, weights: Sequence[Floats], means: Mapping[str, Tensor]) -> Floats:
    """Mean over positions of the input current without bias, (O,), given the mean of every source (1, *shape)."""
    total = np.zeros(len(layer.bias))
    for connection, weight in zip(layer.connections, weights, strict=True):
        total += arriving(connection, weight, means[connection.source])[0].reshape(len(total), -1).mean(1).numpy()
    return total


def float_means(folded: FoldedNetwork, images: Tensor, steps: int) -> dict[str, Tensor]:
    """Mean rates of the float SNN over images (N, C, H, W), by layer, and the mean image: float64 (1, *shape)."""
    totals: dict[str, Tensor] = {IMAGE: pixels(images, folded, torch.float64).mean(0, keepdim=True)}

    def add(name: str, _current: Tensor, rate: Tensor) -> None:
        if len(rate):
            part = rate.double().sum(0, keepdim=True) / len(images)
            totals[name] = totals[name] + part if name in totals else part

    for part in images.split(images_at_once(folded)):
        run_float(folded, part, steps, add)
    return totals


def output_errors(
    folded: FoldedNetwork, network: IntegerNetwork, units: Sequence[Floats], images: Tensor, steps: int
) -> tuple[float, ...]:
    """Per layer the root mean square error of its input current, relative to the current's standard deviation.

    The current is the mean over T steps with bias; the error is that of the integer network, with the spikes of its own
    layers, against the float SNN. So it holds the errors of the layers before as well.

    Args:
        folded: the float SNN.
        network: made from it.
        units: per layer Δ (O,).
        images: uint8 (N, C, H, W).
        steps: T.
    """
    squares = np.zeros((len(network.layers), 4))  # squared error, current, current², count
    for part in images.split(images_at_once(folded)):
        currents: list[Tensor] = []
        run_float(folded, part, steps, lambda _n, current, _r, found=currents: found.append(current))  # type: ignore[misc]
        prefix = IntegerPrefix(folded, part, steps)
        for index, (layer, unit) in enumerate(zip(network.layers, units, strict=True)):
            wanted = currents[index].double()

            def add(_part: int, mean: Tensor, index: int = index, unit: Floats = unit, wanted: Tensor = wanted) -> None:
                z = mean * torch.from_numpy(unit).reshape(-1, *[1] * (wanted.dim() - 2))
                squares[index] += [
                    float((z - wanted).square().sum()), float(wanted.sum()), float(wanted.square().sum()),
                    wanted.numel(),
                ]  # fmt: skip

            prefix.advance(layer, add)
    error, total, square, count = squares.T
    variance = np.maximum(square / count - (total / count) ** 2, 1e-300)
    return tuple(np.sqrt(error / count / variance).tolist())
