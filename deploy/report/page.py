"""The report as one page of HTML that needs nothing else: style, figures and images are inside."""

import base64
import io
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.ticker import EngFormatter
from PIL import Image
from torch import Tensor

from deploy.fit.report import changes
from deploy.report import figures
from deploy.report.content import Content
from deploy.report.recording import Recording
from nqlava.network import MEMBRANE_MAX
from train.plot_style import BLUE, GREEN

WRONG, RIGHT = 24, 12
"""Images that are shown at most, of those that the network gets wrong and right."""
PICTURE = 96
"""Pixels to which larger images are reduced."""


@dataclass(frozen=True)
class Picture:
    """One image of the strip.

    Attributes:
        index: its number among the images of the run.
        uri: the image. truth, predicted: class names, the latter after step T.
        right: whether they are the same.
        steps: after which time steps 1 … T the class is right, in words.
    """

    index: int
    uri: str
    truth: str
    predicted: str
    right: bool
    steps: str


@dataclass(frozen=True)
class Trace:
    """A neuron whose membrane potential is drawn: its layer's recording and its number in (C, H, W) order."""

    recording: Recording
    neuron: int


def render(content: Content, traces: list[Trace]) -> str:
    """The page; ``traces`` are of the recorded image."""
    environment = Environment(
        loader=PackageLoader("deploy.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        content=content,
        run=content.run,
        measured=content.measured,
        verdict=content.verdict,
        pictures=pictures(content),
        recorded=_picture(content, content.measured.image),
        recorded_steps=len(content.measured.recordings[0].u),
        figure=_figures(content, traces),
        residuals=_residuals(content),
        rows=figures.ROWS,
        weight_max=figures.WEIGHT_MAX,
        membrane_max=MEMBRANE_MAX,
        changes=changes,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def half_active(recordings: tuple[Recording, ...], each: int = 2) -> list[Trace]:
    """In the first, the middle and the last spiking layer the neurons that spike nearest to every other step."""
    spiking = [recording for recording in recordings if recording.layer.threshold is not None]
    if not spiking:
        return []
    chosen = dict.fromkeys((0, (len(spiking) - 1) // 2, len(spiking) - 1))
    return [
        Trace(spiking[layer], int(neuron))
        for layer in chosen
        for neuron in np.argsort(np.abs(spiking[layer].spikes.mean(axis=0) - 0.5), kind="stable")[:each]
    ]


def pictures(content: Content) -> list[Picture]:
    """Images of the run, those that the network gets wrong first."""
    right = content.predicted == content.labels
    chosen = [*np.flatnonzero(~right)[:WRONG], *np.flatnonzero(right)[:RIGHT]]
    return [_picture(content, int(index)) for index in chosen]


def _picture(content: Content, index: int) -> Picture:
    data, label = content.run.data, int(content.labels[index])
    predicted = int(content.predicted[index])
    by_step = content.measured.classes[index] == label
    return Picture(
        index=index,
        uri=_png(data.images[index]),
        truth=data.classes[label],
        predicted=data.classes[predicted],
        right=predicted == label,
        steps=_when(by_step.tolist()),
    )


def _when(right: list[bool]) -> str:
    """After which steps a class was right: "never right", "right from step 2 on" or how often."""
    if not any(right):
        return "never right"
    first = right.index(True) + 1
    if all(right[first - 1 :]):
        return f"right from step {first} on"
    return f"right after {sum(right)} of {len(right)} steps"


def _png(image: Tensor) -> str:
    """uint8 (H, W, C) as a data URI; with other than 3 channels, the first in grey."""
    pixels = image.numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else np.ascontiguousarray(pixels[:, :, 0]))
    picture.thumbnail((PICTURE, PICTURE))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return _uri("image/png", file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _svg(drawing: str) -> str:
    return _uri("image/svg+xml", drawing.encode())


def _figures(content: Content, traces: list[Trace]) -> dict[str, str | list[str]]:
    """Data URIs by the names that the page uses."""
    run, measured, rows = content.run, content.measured, content.layers
    names = [row.name for row in rows]
    lines = [("integer SNN", content.integer_accuracy)]
    if content.float_accuracy is not None:
        lines.append(("float SNN", content.float_accuracy))
    if content.verdict is not None:
        lines.append(("Lava", list(content.verdict.accuracy)))
    ann = None if measured.floating is None else content.stages[0].accuracy
    drawn: dict[str, str | list[str]] = {
        "accuracy": _svg(figures.accuracy(lines, content.intervals, ann)),
        "confusion": _svg(figures.confusion(content.confusion, run.data.classes)),
        "membranes": [_svg(figures.membrane(trace.recording, trace.neuron)) for trace in traces],
        "readout": _svg(figures.readout(measured.recordings[-1], run.data.classes)),
        "operations": _svg(
            figures.by_layer(
                names,
                [row.operations for row in rows],
                "synaptic operations per image",
                GREEN,
                EngFormatter(sep=""),
            )
        ),
        "ranges": _svg(
            figures.ranges(
                names,
                [row.weight for row in rows],
                [row.threshold for row in rows],
                [max(-row.potential[0], row.potential[1]) for row in rows],
                [row.bound for row in rows],
            )
        ),
        "cores": _svg(
            figures.cores(
                names, [(fit.chip.name, [part.cores for part in fit.assumed.parts]) for fit in measured.fit.fits]
            )
        ),
    }
    if len(rows) > 1:
        rates = [(row.name, 100 * row.rate) for row in rows if row.rate is not None]
        drawn["raster"] = _svg(figures.raster(measured.recordings))
        spiking, percent = zip(*rates, strict=True)
        drawn["rates"] = _svg(figures.by_layer(spiking, percent, "spikes per neuron and step (%)", BLUE, "{x:g}"))
    return drawn


def _residuals(content: Content) -> list[str] | None:
    """A histogram for each activation; None without the float model."""
    if content.measured.floating is None:
        return None
    curves, names = content.measured.floating.curves, [row.name for row in content.layers[:-1]]
    # Lowered layers are the activations in the order of the data flow; where their numbers differ, they are numbered.
    if len(names) != len(curves):
        names = [f"activation {index}" for index in range(1, len(curves) + 1)]
    return [_svg(figures.residuals(one, name)) for one, name in zip(curves, names, strict=True)]
