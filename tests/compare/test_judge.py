"""Engine and Lava against the reference: what is compared, on how many images, and what a difference looks like."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compare import judge
from deploy.compare.judge import Disagreement, Judge, compare, most_judged
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_layer
from nqlava.testing.strategies import networks
from nqlava.trace import Trace
from tests.parts import part_of


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (2, 4, 5), outputs=3, kernel=(2, 2))
    return IntegerNetwork(
        (2, 4, 5), (hidden, random_layer(rng, "out", (3, 3, 4), source="hidden", outputs=2, readout=True))
    )


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(1, 5))
def test_equal_traces(network: IntegerNetwork, steps: int) -> None:
    images = images_for(network, 1)
    trace = Engine(network).run(images, steps, membranes=True)
    assert compare(network, part_of(images).images[0], trace, trace, number=3, digest=network.digest()) is None
    assert (
        compare(
            network, part_of(images).images[0], trace, replace(trace, membranes=None), number=3, digest=network.digest()
        )
        is None
    )


def one_changed(trace: Trace, what: str) -> Trace:
    if what == "spike":
        spikes = trace.spikes[0].copy()
        spikes[0, 1, 2] ^= 0b00010000  # neuron 19 of (3, 4, 3) in (H, W, C) order: y = 1, x = 2, c = 1
        return replace(trace, spikes=(spikes,))
    if what == "bit behind the last neuron":
        spikes = trace.spikes[0].copy()
        spikes[0, 1, -1] ^= 1
        return replace(trace, spikes=(spikes,))
    if what == "potential":
        potentials = trace.membranes[0].copy()
        potentials[0, 7] += 1  # y = 0, x = 2, c = 1
        return replace(trace, membranes=(potentials,))
    if what == "read-out":
        readout = trace.readout.copy()
        readout[0, 2, 1] += 1
        return replace(trace, readout=readout)
    return replace(trace, saturations=trace.saturations + np.array([[0], [1]]))


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("spike", "layer hidden, step 2, spike of neuron (1, 1, 2)"),
        ("bit behind the last neuron", "digest"),
        ("potential", "layer hidden, potential after the last step of neuron (1, 0, 2)"),
        ("read-out", "layer out, step 3, read-out of class 1"),
        ("saturations", "saturations of layer 1"),
    ],
)
@pytest.mark.parametrize("who", ["engine", "Lava", "both"])
def test_every_value_is_compared(network: IntegerNetwork, what: str, place: str, who: str) -> None:
    images = images_for(network, 1)
    trace = Engine(network).run(images, 3, membranes=True)
    changed = one_changed(trace, what)
    columns = {"engine": (changed, trace), "Lava": (trace, changed), "both": (changed, changed)}[who]
    found = compare(network, part_of(images).images[0], *columns, number=8, digest=network.digest())
    assert found is not None and (found.sample, found.what) == (8, place)
    assert (found.engine != found.expected, found.lava != found.expected) == (who != "Lava", who != "engine")


def test_a_disagreement_in_words() -> None:
    text = "sample 8, layer hidden, step 2, spike of neuron (1, 1, 2): reference 1, engine 0"
    assert str(Disagreement(8, "layer hidden, step 2, spike of neuron (1, 1, 2)", 1, 0, 0)) == f"{text}, Lava 0"
    assert str(Disagreement(8, "layer hidden, step 2, spike of neuron (1, 1, 2)", 1, 0, None)) == text


def seen(network: IntegerNetwork, one: Judge, count: int) -> int:
    """How many of the samples waiting and the next ones are judged."""
    images = images_for(network, count)
    trace = Engine(network).run(images, 2, membranes=True)
    one.see(part_of(images).images, trace, trace)
    judged, disagreement = one.judge()
    assert disagreement is None
    return judged


def test_as_many_as_asked_for_across_chunks(network: IntegerNetwork) -> None:
    one = Judge(network, 0, 5, timed=False)
    assert [seen(network, one, 3) for _ in range(3)] == [3, 2, 0]
    assert one.judged == 5 and one.wanted == 0


def test_at_least_one_and_the_others_when_there_is_time(
    network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "SECONDS", 0.0)
    one = Judge(network, 0, 5, timed=True)
    assert [seen(network, one, 3) for _ in range(2)] == [1, 0]
    monkeypatch.setattr(judge, "SECONDS", 60.0)
    monkeypatch.setattr(one, "_began", one._began - 60)
    assert one.judge() == (4, None), "what waited"


def test_never_more_time_than_the_rest_of_the_run(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "compare", lambda *_, **__: time.sleep(0.01))
    one = Judge(network, 0, 100, timed=True)
    time.sleep(0.1)
    assert 3 <= seen(network, one, 100) <= 30


def test_how_many_fit_into_memory(network: IntegerNetwork) -> None:
    assert most_judged(network, 50, None) == 50
    assert most_judged(network, 50, 7) == 7
    assert most_judged(network, 10**9, None) == 2**26 // (4 * (3 * 3 * 4 + 2))
