"""The page: what it says, that nothing in it comes from elsewhere, and that a browser shows it."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.compare.run import Run
from deploy.compare.settings import Settings
from deploy.report import figures
from deploy.report.content import Content
from deploy.report.page import half_active, pictures, render
from deploy.report.write import make
from nqlava.network import Connection, IntegerNetwork, Layer
from nqlava.testing.networks import random_layer
from tests.report.conftest import content_of
from tests.tiny import random_residual
from train.data.image_set import ImageSet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def page(content: Content) -> str:
    return render(content, half_active(content.measured.recordings))


def test_verdict_comes_first(page: str, content: Content) -> None:
    assert f"0 of {content.compared:,} values differ" in page
    assert page.index("<strong>Exact</strong>") < page.index('id="accuracy"')


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"change": True}, ["<strong>Not exact</strong>", "the first: sample 7, "]),
        (
            {"lost": 3.0},
            [
                "<strong>Exact, but too much accuracy lost</strong>",
                "3.00 points lost against",
                "may be lost: 2.00",
            ],
        ),
        ({"lava": False}, ["<strong>Not run in Lava</strong>"]),
        (
            {"with_model": False},
            ["Not measured: it needs the exported model", "model.pt is not there"],
        ),
    ],
)
def test_what_is_missing_or_wrong_is_said(choice: dict[str, Any], expected: list[str]) -> None:
    made = content_of(random_residual(3), **choice)
    page = render(made, [])
    assert all(text in page for text in expected)


def test_page_is_complete_in_itself(page: str) -> None:
    """No address but those of data inside the page and of its own sections."""
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "<script" not in page and "@import" not in page and "url(" not in page


NAMES = ("<script>alert(1)</script>", "$\\frac{", "_hidden" * 20, "猫", "cost $5 and $6_")


def test_names_are_text_and_nothing_else(recwarn: pytest.WarningsRecorder) -> None:
    """Neither markup, nor formulas, nor too long, nor warnings where a font lacks them."""
    content = content_of(random_residual(3), lava=False, with_model=False, classes=NAMES)
    page = render(content, [])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert len(recwarn) == 0


def test_wrong_images_come_first(content: Content) -> None:
    right = [picture.right for picture in pictures(content)]
    assert right == sorted(right) and not all(right)


def test_neurons_that_spike_every_other_step_are_drawn(content: Content) -> None:
    """Of two spikes in three steps and of one, the difference from half is the same; three and none are further."""
    traces = half_active(content.measured.recordings)
    assert len(traces) == 6
    for trace in traces:
        rates = np.abs(trace.recording.spikes.mean(axis=0) - 0.5)
        assert rates[trace.neuron] <= np.sort(rates)[1]


def test_figures_are_the_same_every_time(content: Content) -> None:
    names = content.run.data.classes
    assert figures.confusion(content.confusion, names) == figures.confusion(content.confusion, names)


@pytest.fixture
def browser() -> Iterator[object]:
    """Headless Chromium; where there is none, the tests that need it fail in CI and are skipped elsewhere.

    It lives as short as it can: processes that other tests fork meanwhile would keep its pipe open, and it would never
    end.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        assert not os.environ.get("CI"), "Chromium is missing: .ci/run installs it"
        pytest.skip("no Chromium: install Debian's chromium, say; the other tests of this page need none")
    quiet = ["disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-sync"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", *(f"--{name}" for name in quiet)]
        )
        yield launched
        launched.close()


def test_long_names_do_not_widen_the_page(browser: object, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    content = content_of(random_residual(3), lava=False, with_model=False, classes=NAMES)
    file.write_text(render(content, []), encoding="utf-8")
    for width in (1280, 390):
        tab = browser.new_page(viewport={"width": width, "height": 844})  # type: ignore[attr-defined]
        tab.goto(file.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_browser_shows_everything_and_complains_of_nothing(
    browser: object, page: str, width: int, tmp_path: Path
) -> None:
    file, shot = tmp_path / "report with spaces é.html", tmp_path / "shot.png"
    file.write_text(page, encoding="utf-8")
    complaints: list[str] = []
    requests: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 844})  # type: ignore[attr-defined]
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth || i.width < 50).length"
    assert tab.evaluate("document.images.length") > 20 and tab.evaluate(broken) == 0
    assert tab.evaluate("document.querySelector('.verdict').getBoundingClientRect().bottom") < 600
    tab.screenshot(path=shot, full_page=True)
    tab.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    with Image.open(shot) as picture:
        assert picture.width == width and picture.height > 2000
        colors = picture.convert("RGB").quantize(64).histogram()
    assert max(colors) / sum(colors) < 0.98, "the screenshot is blank"


def plain_page(network: IntegerNetwork, steps: int) -> str:
    """The page of a network on random images, without Lava."""
    rng = np.random.default_rng(0)
    shape = (6, *network.input_shape[1:], network.input_shape[0])
    labels = torch.arange(6) % network.classes
    names = tuple(f"class {index}" for index in range(network.classes))
    data = ImageSet(torch.from_numpy(rng.integers(0, 256, shape, np.uint8)), labels, names)
    settings = Settings(Path("net.h5"), ("random",), steps=steps, digest=network.digest())
    run = Run(settings, network, data, None, "no model")
    content = make(run, None, "command")
    return render(content, half_active(content.measured.recordings))


def test_a_network_without_spikes_has_a_page() -> None:
    """One channel, one pixel, two classes, all weights zero: no raster, no rates, no range of θ."""
    nothing = np.zeros(2, np.int32)
    readout = Layer("out", (Connection("input", np.zeros((2, 1), np.int8)),), nothing, None, nothing)
    page = plain_page(IntegerNetwork((1, 1, 1), (readout,)), steps=1)
    assert "Spike raster" not in page and "Membrane potentials of the read-out" in page


def test_many_classes_and_steps_have_a_page() -> None:
    """30 classes are not named in the confusion matrix; of 70 steps the first 64 are drawn."""
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (4, 5, 3), outputs=3, kernel=(2, 2))
    readout = random_layer(rng, "out", (3, 4, 2), source="first", outputs=30, readout=True)
    page = plain_page(IntegerNetwork((4, 5, 3), (first, readout)), steps=70)
    assert "The first 64 of 70 steps are shown." in page
