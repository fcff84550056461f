"""What weights hold: average pooling, and identities."""

import numpy as np
import pytest

from nqlava.geometry import Convolution
from nqlava.network import Connection
from nqlava.testing.networks import random_layer


@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
def test_folded_pooling_is_found(padding: tuple[int, int]) -> None:
    layer = random_layer(
        np.random.default_rng(0), "conv", (3, 8, 12), outputs=4, kernel=(3, 2), window=2, padding=padding
    )
    found = layer.connections[0].convolution((3, 8, 12))
    assert (found.window, found.stride, found.padding) == ((2, 2), (1, 1), padding)
    np.testing.assert_array_equal(found.weight, layer.connections[0].weight[:, :, ::2, ::2])


def test_pooling_is_not_found_where_a_padded_window_would_be_cut() -> None:
    layer = random_layer(
        np.random.default_rng(0), "conv", (3, 7, 12), outputs=4, kernel=(2, 2), window=2, padding=(1, 1)
    )
    assert layer.connections[0].convolution((3, 7, 12)).window == (1, 2)


def test_global_pooling_before_a_dense_layer_is_found() -> None:
    layer = random_layer(np.random.default_rng(0), "dense", (5, 4, 4), outputs=3, window=4)
    found = layer.connections[0].convolution((5, 4, 4))
    assert found.window == (4, 4)
    assert found.weight.shape == (3, 5, 1, 1)


def convolution(weight: np.ndarray, groups: int = 1) -> Convolution:
    return Convolution(weight, (1, 1), (1, 1), (0, 0), (1, 1), groups)


def test_a_diagonal_is_found_grouped_or_not() -> None:
    factors = np.array([3, -5, 0], np.int8)
    for found in (convolution(factors.reshape(3, 1, 1, 1), 3), convolution(np.diag(factors)[..., None, None])):
        np.testing.assert_array_equal(found.diagonal, factors)
    mixed = np.diag(factors)[..., None, None].copy()
    mixed[0, 1] = 1
    assert convolution(mixed).diagonal is None
    assert convolution(np.ones((3, 1, 3, 3), np.int8), 3).diagonal is None


def test_what_was_found_is_kept() -> None:
    connection = Connection("a", np.ones((2, 3, 2, 2), np.int8), stride=(2, 2))
    assert connection.convolution((3, 4, 4)) is connection.convolution((3, 4, 4))
    assert connection.convolution((3, 4, 4)).window == (2, 2)
