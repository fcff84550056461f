"""What is planned: memory, tables, names, and what a step can change in the read-out."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nqlava import reference
from nqlava.c.plan import gains, identifiers, plan, safe
from nqlava.c.source import core
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks
from tests.nqlava.c.networks import EDGES, decided_early, needs_compiler


@needs_compiler
@pytest.mark.parametrize("edge", EDGES)
def test_ram_is_what_the_compiler_reserves(edge: object, tmp_path: Path) -> None:
    planned = plan(edge())  # type: ignore[operator]
    reserved = 0
    for name, text in core(planned).items():
        (tmp_path / name).write_text(text)
    for name in ("snn", "network"):
        subprocess.run(["cc", "-O1", "-fno-pie", "-c", f"{name}.c"], cwd=tmp_path, check=True)
        listed = subprocess.run(["nm", "-S", f"{name}.o"], cwd=tmp_path, check=True, capture_output=True, text=True)
        reserved += sum(int(size, 16) for size in re.findall(r"^\S+ (\S+) [bBdD] ", listed.stdout, re.M))
    assert reserved == planned.memory.ram


def test_the_weights_of_a_row_share_words() -> None:
    """Weights -127 ... of four outputs and a tap, each plus 128, the first in the lowest byte."""
    (layer, _) = plan(decided_early()).layers
    weight = layer.layer.connections[0].weight
    row = layer.synapses[0].table[3]  # tap (1, 1) of the only channel
    expected = sum((int(w) + 128) << 8 * i for i, w in enumerate(weight[:4, 0, 1, 1]))
    assert int(row[0]) == expected
    assert int(row[1]) >> 16 == 0x8080, "filled up with weights of 0"


@given(networks(), st.integers(1, 4))
def test_no_step_changes_the_read_out_by_more_than_the_gains(network: IntegerNetwork, steps: int) -> None:
    gain, reach = gains(network)
    for image in images_for(network, 3):
        run = reference.run(network, image, steps)
        if run.saturations[-1]:
            continue
        before = np.concatenate([network.layers[-1].v0[None].astype(np.int64), run.readout[:-1]])
        change = run.readout - before
        assert np.abs(change).max() <= reach or reach == 2**25
        assert (change[:, None, :] - change[:, :, None] <= gain).all()


@given(st.lists(st.text(max_size=50), max_size=6))
def test_identifiers_differ_and_are_plain(names: list[str]) -> None:
    found = identifiers(names)
    assert len(set(found)) == len(names)
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) and not name.startswith("snn") for name in found)


def test_names_are_harmless() -> None:
    assert set(safe('a*/ system("x"); /*\\\n??/|`$(x)')) == set("asytemx _")
    assert safe("block-2.conv_1") == "block-2.conv_1"
    assert identifiers(["layers.1", "layers_1", "1", "snn_step", ""]) == [
        "layers_1",
        "layers_1_2",
        "layer_1",
        "layer_snn_step",
        "layer_",
    ]
