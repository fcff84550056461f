"""Connections that one convolution computes together."""

import numpy as np
from hypothesis import given

from nqlava.merged import merge
from nqlava.network import IMAGE, IntegerNetwork
from nqlava.testing.strategies import networks


@given(networks())
def test_merged_connections_weigh_what_all_of_them_do(network: IntegerNetwork) -> None:
    for layer in network.layers:
        merged = merge(layer, network.shape_of)
        total = sum(
            (one.weight.astype(np.int64).sum() << one.exponent) * np.prod(one.convolution.window) for one in merged
        )
        assert total == sum(c.weight.astype(np.int64).sum() << c.exponent for c in layer.connections)
        for one in merged:
            rows = np.abs(one.weight.astype(np.int64)).reshape(len(one.weight), -1).sum(axis=1)
            largest = 255 if one.source == IMAGE else 1
            assert one.bound == (rows.max() << one.exponent) * largest * np.prod(one.convolution.window)
