"""Traces are compared as they come, and dropped."""

import subprocess
import sys
import weakref
from collections.abc import Generator

import numpy as np
import pytest

from deploy.errors import CoverageError
from nqlava.engine.integer import Engine
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_layer
from nqlava.trace import Trace
from tests.parts import part_of, verdicts, verify


@pytest.fixture
def network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (1, 4, 4), outputs=5)
    return IntegerNetwork((1, 4, 4), (hidden, random_layer(rng, "out", (5,), source="hidden", outputs=2, readout=True)))


def engine_traces(network: IntegerNetwork, images: np.ndarray, size: int) -> Generator[Trace, None, None]:
    engine = Engine(network)
    return (engine.run(images[first : first + size], 3, membranes=True) for first in range(0, len(images), size))


def test_a_verdict_for_each_chunk(network: IntegerNetwork) -> None:
    images, labels = images_for(network, 5), np.zeros(5, np.int64)
    found = list(verdicts(network, part_of(images, labels, 10), 3, engine_traces(network, images, 2)))
    assert [(one.ranges[0][0], one.samples) for one in found] == [(10, 2), (12, 2), (14, 1)]
    assert all(one.steps == 3 and one.mismatches == (0, 0) and one.first is None for one in found)


def test_accuracies_and_rates(network: IntegerNetwork) -> None:
    images = images_for(network, 6)
    trace = Engine(network).run(images, 3)
    labels = trace.classes()[:, -1].copy()
    labels[4] ^= 1
    verdict = verify(network, part_of(images, labels), 3, engine_traces(network, images, 4))
    assert verdict.exact and verdict.correct == verdict.engine_correct
    assert (verdict.layers, verdict.samples, verdict.steps) == (("hidden", "out"), 6, 3)
    assert verdict.accuracy[-1] == pytest.approx(500 / 6)
    assert verdict.spike_rates == (pytest.approx(trace.layer_spikes(0).mean()),)


def test_no_trace_is_kept(network: IntegerNetwork) -> None:
    images = images_for(network, 12)
    made: list[weakref.ref[Trace]] = []

    def chunks() -> Generator[Trace, None, None]:
        for trace in engine_traces(network, images, 1):
            made.append(weakref.ref(trace))
            assert sum(reference() is not None for reference in made) <= 2
            yield trace

    verify(network, part_of(images), 3, chunks(), judged=1)
    assert len(made) == 12


def test_a_backend_that_loses_samples_is_found_out(network: IntegerNetwork) -> None:
    images = images_for(network, 5)
    with pytest.raises(CoverageError, match=r"samples 0\.\.3 were compared; expected: 0\.\.4"):
        verify(network, part_of(images), 3, engine_traces(network, images[:4], 2))


@pytest.mark.slow
def test_lava_can_be_imported_where_a_start_method_was_chosen_before() -> None:
    """Lava chooses one as it is imported, which fails if there is one, such as after a progress bar."""
    script = (
        "import multiprocessing; multiprocessing.set_start_method('spawn')\n"
        "from deploy.compare.backends import require_lava; require_lava()\n"
        "import deploy.lava.build\n"
        "assert multiprocessing.get_start_method() == 'fork'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
