"""The network in SpikingJelly, as its documentation has it: IFNode neurons, step by step or over whole sequences."""

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from benchmarks.peers import Peer
from nqlava.network import IMAGE, IntegerNetwork


class SpikingJelly(Peer):
    """A network of SpikingJelly's IFNode.

    Args:
        network: what to run.
        step_mode: "s" calls the network once per step; "m" once, with a sequence (T, n, ...), whose steps are folded
            into the batch wherever nothing has a state.
    """

    def __init__(self, network: IntegerNetwork, step_mode: str) -> None:
        super().__init__(network, layer.SeqToANNContainer if step_mode == "m" else lambda module: module)
        self.step_mode = step_mode
        self.nodes = nn.ModuleList()
        for spiking, threshold, initial in zip(network.layers[:-1], self.thresholds, self.initial, strict=True):
            reset = None if spiking.reset == "soft" else 0.0
            node = neuron.IFNode(v_threshold=threshold, v_reset=reset, step_mode=step_mode)
            node.set_reset_value("v", initial)
            self.nodes.append(node)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """I + b of the read-out, (n, K) or (T, n, K), of images (n, C, H, W) or (T, n, C, H, W)."""
        values = {IMAGE: images}
        for spiking, current, node in zip(self.network.layers, self.currents, self.nodes, strict=False):
            values[spiking.name] = node(current(values))
        return self.currents[-1](values)

    def read_out_currents(self, images: Tensor, steps: int) -> Tensor:
        functional.reset_net(self)
        if self.step_mode == "s":
            return torch.stack([self(images) for _ in range(steps)])
        repeated = images.repeat(steps, 1, 1, 1).contiguous(memory_format=self.memory_format)
        return self(repeated.unflatten(0, (steps, -1)))
