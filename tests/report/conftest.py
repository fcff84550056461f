"""A trained-looking network with its float model, run on images, for the tests of the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.comparison import Task
from deploy.images import channels_first
from deploy.integer import IntegerEngine
from deploy.report.content import Content, Run
from deploy.report.measure import measure
from deploy.trace import Trace
from deploy.verify import verify
from export.to_netx import convert
from tests.tiny import image_set, random_residual
from train.models import Network

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
    images = channels_first(data)
    trace = IntegerEngine(network).run(images, STEPS)
    if change:
        trace.spikes[0][7, 1, 0] ^= 128
    verdict = verify(network, images, data.labels.numpy(), (one for one in [trace])) if lava else None
    task = Task(NET, network, STEPS, data, model if with_model else None, None)
    run = Run(task, ["folder"], 0, "cpu", tolerance, verdict, 2.5, "python -m deploy.report net.h5")
    return Content(run, measure(NET, network, data, ["folder"], STEPS, model if with_model else None))


@pytest.fixture(scope="session")
def content() -> Content:
    return content_of(random_residual(3))


@pytest.fixture(scope="session")
def trace(content: Content) -> Trace:
    """Of the integer engine, for what is counted by hand."""
    return IntegerEngine(content.run.network).run(np.ascontiguousarray(channels_first(content.run.data)), STEPS)
