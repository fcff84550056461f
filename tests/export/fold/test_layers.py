"""How neurons are divided into layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.fold.layers import divided
from export.fold.lower import lower
from export.fold.term import source_term
from export.round.quantize import quantize
from nqlava import netx, reference
from nqlava.engine.integer import Engine
from nqlava.testing.engines import assert_same
from tests.export.fold.oracle import assert_same_currents
from tests.export.fold.test_architectures import IMAGE, behind_spikes
from train.model.activation import NQ


def test_a_concatenation_of_many_sources_becomes_few_layers() -> None:
    """Ten sources of 30 channels: as one layer, 10 · 300 · 30 weights, nearly all of them 0."""
    terms = [source_term(f"s{i}", (30, 4, 4), 1.0, 30 * i + np.arange(30)) for i in range(10)]
    parts = list(divided(terms, 300, dense=False))
    assert [len(part) for part in parts] == [30, 30, 30, 60, 30, 30, 30, 60]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(300))
    small = [source_term(f"s{i}", (3, 4, 4), 1.0, 3 * i + np.arange(3)) for i in range(10)]
    (whole,) = divided(small, 30, dense=False)
    np.testing.assert_array_equal(whole, np.arange(30))


def test_a_matrix_that_no_array_of_a_file_holds_is_divided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Average pooling before a linear layer is folded into it, which repeats each weight over the window."""
    monkeypatch.setattr("export.fold.layers._LARGEST", 4000)
    model = behind_spikes(nn.AvgPool2d((3, 2)), nn.Flatten(), nn.Linear(72, 25), NQ(4), nn.Linear(25, 5))
    assert_same_currents(model, IMAGE)
    network, _ = quantize(lower(model, IMAGE))
    assert [layer.name for layer in network.layers] == ["1", "5:0-8", "5:9-16", "5:17-24", "7"]
    assert max(c.weight.size for layer in network.layers for c in layer.connections) == 9 * 6 * 72
    netx.write(network, tmp_path / "net.h5")
    images = torch.randint(0, 256, (2, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = Engine(netx.read(tmp_path / "net.h5")).run(images, 3)
    assert_same([reference.run(network, image.numpy(), 3) for image in images], got)
