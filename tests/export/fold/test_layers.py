"""How neurons are divided into layers."""

import numpy as np

from export.fold.layers import divided
from export.fold.term import source_term


def test_a_concatenation_of_many_sources_becomes_few_layers() -> None:
    """Ten sources of 30 channels: as one layer, 10 · 300 · 30 weights, nearly all of them 0."""
    terms = [source_term(f"s{i}", (30, 4, 4), 1.0, 30 * i + np.arange(30)) for i in range(10)]
    parts = list(divided(terms, 300, dense=False))
    assert [len(part) for part in parts] == [30, 30, 30, 60, 30, 30, 30, 60]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(300))
    small = [source_term(f"s{i}", (3, 4, 4), 1.0, 3 * i + np.arange(3)) for i in range(10)]
    (whole,) = divided(small, 30, dense=False)
    np.testing.assert_array_equal(whole, np.arange(30))
