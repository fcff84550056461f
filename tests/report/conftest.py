"""A trained-looking network with its float model, run on images, for the tests of the report."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.compare.job import Job, Part
from deploy.compare.options import Task
from deploy.images import channels_first
from deploy.report.content import Content, Run
from deploy.report.measure import measure
from export.convert import convert
from nqlava.engine.integer import Engine
from nqlava.trace import Trace
from tests.parts import verify
from tests.tiny import image_set, random_residual
from train.model.models import Network

STEPS, COUNT = 3, 40
NET = Path("net.h5")


def content_of(
    model: Network,
    *,
    with_model: bool = True,
    change: bool = False,
    lava: bool = True,
    tolerance: float = 100.0,
    classes: tuple[str, ...] | None = None,
) -> Content:
    """What the report says of ``model``; the integer engine stands in for Lava, if ``change`` with a flipped spike."""
    data = image_set(COUNT)
    data = replace(data, classes=classes or data.classes)
    network, _ = convert(model, data, steps=STEPS)
    trace = Engine(network).run(channels_first(data.images.numpy()), STEPS, membranes=True)
    if change:
        trace.spikes[0][7, 1, 0] ^= 128
    part = Part(0, data.images.numpy(), data.labels.numpy())
    verdict = verify(network, part, STEPS, (one for one in [trace])) if lava else None
    job = Job(NET, network.digest(), "cpu", STEPS, 64, 1)
    task = Task(job, network, data, model if with_model else None, f"model.pt{'' if with_model else ' is not there'}")
    run = Run(task, ["folder"], 0, tolerance, verdict, 2.5, "python -m deploy.report net.h5")
    return Content(run, measure(job, network, data, ["folder"], model if with_model else None))


@pytest.fixture(scope="session")
def content() -> Content:
    return content_of(random_residual(3))


@pytest.fixture(scope="session")
def trace(content: Content) -> Trace:
    """Of the integer engine, for what is counted by hand."""
    return Engine(content.run.network).run(channels_first(content.run.data.images.numpy()), STEPS)
