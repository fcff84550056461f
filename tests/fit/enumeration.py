"""Every synapse of a connection, one at a time. Only for comparison."""

from itertools import product

import numpy as np

from nqlava.network import Connection


def synapses(connection: Connection, source_shape: tuple[int, ...]) -> list[tuple[int, int, tuple[int, ...]]]:
    """(source neuron, neuron of the layer, index of the weight) of every synapse; neurons count in (C, H, W) order."""
    target_shape = connection.output_shape(source_shape)
    if not connection.is_convolution:
        sources = range(int(np.prod(source_shape)))
        return [(n, o, (o, n)) for o in range(connection.outputs) for n in sources]
    found = []
    channels, height, width = source_shape
    outputs, inputs, tall, wide = connection.weight.shape
    (sy, sx), (py, px), (dy, dx) = connection.stride, connection.padding, connection.dilation
    for o, y, x in product(*map(range, target_shape)):
        for c, ky, kx in product(range(inputs), range(tall), range(wide)):
            channel = o // (outputs // connection.groups) * inputs + c
            row, column = y * sy - py + ky * dy, x * sx - px + kx * dx
            if 0 <= row < height and 0 <= column < width:
                source = (channel * height + row) * width + column
                target = (o * target_shape[1] + y) * target_shape[2] + x
                found.append((source, target, (o, c, ky, kx)))
    assert channels == inputs * connection.groups
    return found
