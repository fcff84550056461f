"""An integer network as ordinary PyTorch modules, for harnesses that look at modules: exact, and slow."""

import torch
from torch import Tensor, nn

from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Layer


class Membranes(nn.Module):
    """Membrane potentials of a layer, in float64; its biases, thresholds and initial potentials are int32 buffers."""

    def __init__(self, layer: Layer, dimensions: int) -> None:
        super().__init__()
        for name in ("bias", "threshold", "v0"):
            value = getattr(layer, name)
            if value is not None:
                tensor = torch.tensor(value)
                self.register_buffer(name, tensor.reshape(tensor.shape + (1,) * (dimensions - tensor.ndim)))
        self._soft = layer.reset == "soft"
        self._v: Tensor | None = None

    def reset(self) -> None:
        """Go back to v(0)."""
        self._v = None

    def integrate(self, current: Tensor) -> Tensor:
        """u = clip(v + I + b)."""
        start = self.v0.double() if self._v is None else self._v
        self._v = (start + current + self.bias).clamp(-MEMBRANE_MAX, MEMBRANE_MAX)
        return self._v


class Neurons(Membranes):
    """The neurons of a spiking layer: current (n, *shape) of one step in, spikes 0.0 and 1.0 out."""

    def forward(self, current: Tensor) -> Tensor:
        u = self.integrate(current)
        spikes = (u >= self.threshold).double()
        self._v = u - self.threshold * spikes if self._soft else u * (1 - spikes)
        return spikes


class Readout(Membranes):
    """Neurons that integrate and do not spike: current of one step in, membrane potential out."""

    def forward(self, current: Tensor) -> Tensor:
        return self.integrate(current)


class TorchNetwork(nn.Module):
    """A connection is an nn.Conv2d or nn.Linear without bias, called once per time step; a layer's neurons are Neurons.

    Args:
        network: what to run.
        steps: T.
    """

    def __init__(self, network: IntegerNetwork, steps: int) -> None:
        super().__init__()
        self._network, self._steps = network, steps
        self.synapses = nn.ModuleList(nn.ModuleList(map(_synapses, layer.connections)) for layer in network.layers)
        self.neurons = nn.ModuleList(
            (Readout if layer.is_readout else Neurons)(layer, len(shape))
            for layer, shape in zip(network.layers, network.shapes, strict=True)
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Read-out after T steps, float64 (n, K), of images (n, C, H, W)."""
        for neurons in self.neurons:
            neurons.reset()
        found = {IMAGE: images.double()}
        name = self._network.layers[-1].name
        for _ in range(self._steps):
            for layer, synapses, neurons in zip(self._network.layers, self.synapses, self.neurons, strict=True):
                pairs = zip(layer.connections, synapses, strict=True)
                parts = [module(_input(found[connection.source], connection)) for connection, module in pairs]
                found[layer.name] = neurons(sum(parts[1:], parts[0]))
        return found[name]


def _input(values: Tensor, connection: Connection) -> Tensor:
    return values if connection.is_convolution else values.flatten(1)


def _synapses(connection: Connection) -> nn.Module:
    weight = torch.tensor(connection.weight, dtype=torch.float64) * 2.0**connection.exponent
    module: nn.Module
    if connection.is_convolution:
        stride, padding, dilation, groups = connection.geometry
        outputs, inputs, *kernel = weight.shape
        module = nn.Conv2d(inputs * groups, outputs, tuple(kernel), stride, padding, dilation, groups, bias=False)
    else:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight = nn.Parameter(weight, requires_grad=False)
    return module
