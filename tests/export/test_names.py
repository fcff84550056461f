"""Paths of modules, of any length and letters, become names that a netx file holds."""

from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.convert import convert, planned
from export.names import stored_names
from export.round.quantize import Precision
from nqlava import netx
from nqlava.engine.integer import Engine
from nqlava.netx_layout import require_name
from tests.tiny import image_set, random_tiny


def test_names_by_example() -> None:
    names = ["layers.3.conv", "слой", "a" * 100, "a" * 101, "line\nbreak"]
    assert list(stored_names(names).values()) == [
        "layers.3.conv",
        r"\u0441\u043b\u043e\u0439",
        "a" * 30 + ".." + "a" * 32,
        "a" * 28 + ".." + "a" * 32 + "~2",
        r"line\nbreak",
    ]


@given(st.lists(st.text(min_size=1), unique=True) | st.lists(st.text("a猫", min_size=60, max_size=70), unique=True))
def test_any_names_can_be_stored_and_stay_different(names: list[str]) -> None:
    found = stored_names(names)
    assert list(found) == names and len(set(found.values())) == len(names)
    for name in found.values():
        require_name(Path("net.h5"), name)
    assert all(found[name] == name for name in names if name.isascii() and name.isprintable() and len(name) < 40)


@pytest.mark.parametrize("name", ["каскад" * 20, "class", "line\nbreak", "e\u0301", "\udcff"])
def test_a_network_with_such_names_is_written_and_computes_the_same(tmp_path: Path, name: str) -> None:
    data = image_set(20)
    plain, _ = convert(random_tiny(1), data, steps=2)
    model = nn.Sequential(OrderedDict([(name, random_tiny(1))])).eval()
    network, report = convert(model, data, steps=2)
    assert [layer.name for layer in report.layers] == [layer.name for layer in network.layers]
    assert planned(model, data, Precision()).shape_of == network.shape_of
    netx.write(network, tmp_path / "net.h5")
    found = netx.read(tmp_path / "net.h5")
    assert found.layers[0].name.endswith(".layers.1")
    assert (Engine(found).scores(data.pixels, 2) == Engine(plain).scores(data.pixels, 2)).all()
