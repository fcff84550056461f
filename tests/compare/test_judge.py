"""Engine and Lava against the reference: what is compared, on how many images, and what a difference looks like."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compare import judge
from deploy.compare.judge import Disagreement, Judge, compare, compare_together, most_judged
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from nqlava import reference
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
    images = images_for(network, 3)
    trace = Engine(network).run(images, steps, membranes=True)
    expected = [reference.run(network, image, steps) for image in images]
    for index, one in enumerate(expected):
        alone = trace.part(slice(index, index + 1))
        assert compare(network, one, alone, alone, number=index) is None
        assert compare(network, one, alone, replace(alone, membranes=None), number=index) is None
    assert compare_together(network, expected, trace, trace, number=7, digest=network.digest()) is None


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
        ("bit behind the last neuron", "digest, 1 samples together"),
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
    expected = reference.run(network, images[0], 3)
    found = compare(network, expected, *columns, number=8)
    found = found or compare_together(network, [expected], *columns, number=8, digest=network.digest())
    assert found is not None and (found.sample, found.what) == (8, place)
    assert (found.engine != found.expected, found.lava != found.expected) == (who != "Lava", who != "engine")


def test_a_disagreement_in_words() -> None:
    text = "sample 8, layer hidden, step 2, spike of neuron (1, 1, 2): reference 1, engine 0"
    assert str(Disagreement(8, "layer hidden, step 2, spike of neuron (1, 1, 2)", 1, 0, 0)) == f"{text}, Lava 0"
    assert str(Disagreement(8, "layer hidden, step 2, spike of neuron (1, 1, 2)", 1, 0, None)) == text


@pytest.mark.parametrize(
    ("method", "damage", "what"),
    [
        ("classes", lambda found: np.roll(found, 1, axis=0), "class of sample 0"),
        ("digest", lambda found: found + 1, "digest"),
        ("spike_counts", lambda found: tuple(2 * n for n in found), "spikes of layer hidden"),
        ("saturation_counts", lambda found: tuple(n + 1 for n in found), "saturations of layer hidden"),
    ],
)
def test_what_a_run_says_of_many_samples_is_compared(
    network: IntegerNetwork, method: str, damage: Callable[[Any], Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_for(network, 6)
    trace = Engine(network).run(images, 3, membranes=True)
    assert len(set(trace.classes()[:, -1])) > 1
    one = judge_of(network, part_of(images), 6)
    real = getattr(Trace, method)
    monkeypatch.setattr(
        Trace, method, lambda trace, *a: damage(real(trace, *a)) if trace.samples > 1 else real(trace, *a)
    )
    one.see(trace, trace)
    judged, found = one.judge()
    assert judged == 6 and found is not None and found.what == f"{what}, 6 samples together"


def test_the_judge_has_images_of_its_own(network: IntegerNetwork) -> None:
    images = images_for(network, 2)
    trace = Engine(network).run(images, 2, membranes=True)
    part = part_of(images)
    one = judge_of(network, part, 2)
    part.images[:] = 0
    one.see(trace, trace)
    assert one.judge() == (2, None)


def judge_of(network: IntegerNetwork, part: Part, asked: int | None) -> Judge:
    return Judge(network, part, Settings(Path(), steps=2, reference_samples=asked))


def seen(network: IntegerNetwork, one: Judge, first: int, count: int) -> int:
    """How many of the samples waiting and the next ones, of those from ``first`` on, are judged."""
    images = images_for(network, first + count)[first:]
    trace = Engine(network).run(images, 2, membranes=True)
    one.see(trace, trace)
    judged, disagreement = one.judge()
    assert disagreement is None
    return judged


def test_as_many_as_asked_for_across_chunks(network: IntegerNetwork) -> None:
    one = judge_of(network, part_of(images_for(network, 9)), 5)
    assert [seen(network, one, 3 * chunk, 3) for chunk in range(3)] == [3, 2, 0]
    assert one.judged == 5 and one.wanted == 0


def test_at_least_one_and_no_more_once_the_time_is_up(network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "SECONDS", 0.0)
    one = judge_of(network, part_of(images_for(network, 5)), None)
    assert [seen(network, one, 3 * chunk, 3) for chunk in range(2)] == [1, 0]
    assert one.wanted == 0 and one.judge() == (0, None), "nothing is kept that will not be judged"


def test_what_waits_is_judged_when_the_rest_took_as_long(
    network: IntegerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = judge_of(network, part_of(images_for(network, 5)), None)
    monkeypatch.setattr(one, "_began", one._began + 60)  # as if nothing else had taken any time
    assert seen(network, one, 0, 5) == 1
    monkeypatch.setattr(one, "_began", one._began - 120)
    assert one.judge() == (4, None)


def test_how_many_fit_into_memory(network: IntegerNetwork) -> None:
    def most(count: int, steps: int, asked: int | None, start: int = 0) -> int:
        images = np.broadcast_to(np.uint8(0), (count, *network.input_shape))
        return most_judged(
            network, part_of(images, start=start), Settings(Path(), steps=steps, reference_samples=asked)
        )

    assert (most(50, 4, None), most(50, 4, 7), most(50, 4, 7, start=5), most(50, 4, 7, start=8)) == (50, 7, 2, 0)
    assert most(10**6, 16, None) == 2**26 // (6 * (3 * 3 * 4 + 2))
