"""A trained-looking network with its float model, run on images, for the tests of the report."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.compare.run import Run
from deploy.compare.settings import Settings
from deploy.report.content import Content
from deploy.report.write import make
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
    lost: float | None = None,
    classes: tuple[str, ...] | None = None,
) -> Content:
    """What the report says of ``model``; the integer engine stands in for Lava, if ``change`` with a flipped spike.

    With ``lost``, so many points are said to be lost against the float SNN, where 2 may be.
    """
    data = image_set(COUNT)
    data = replace(data, classes=classes or data.classes)
    network, _ = convert(model, data, steps=STEPS)
    trace = Engine(network).run(data.pixels, STEPS, membranes=True)
    if change:
        trace.spikes[0][7, 1, 0] ^= 128
    settings = Settings(NET, ("folder",), steps=STEPS, tolerance=100.0, digest=network.digest())
    model_from = f"model.pt{'' if with_model else ' is not there'}"
    run = Run(settings, network, data, model if with_model else None, model_from)
    verdict = verify(network, run.whole, STEPS, (one for one in [trace])) if lava else None
    if verdict is not None:
        verdict = replace(verdict, wall_seconds=2.5, model=model_from)
    content = make(run, verdict, "python -m deploy.report net.h5")
    if lost is not None:
        floating = replace(content.verdict.floating, snn=content.verdict.floating.lava + lost, allowed=2.0)
        content = replace(content, verdict=replace(content.verdict, floating=floating))
    return content


@pytest.fixture(scope="session")
def content() -> Content:
    return content_of(random_residual(3))


@pytest.fixture(scope="session")
def trace(content: Content) -> Trace:
    """Of the integer engine, for what is counted by hand."""
    return Engine(content.run.network).run(content.run.data.pixels, STEPS)
