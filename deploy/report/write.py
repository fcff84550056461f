"""The report of a comparison, made and written."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.compare.float_accuracy import with_float
from deploy.compare.run import Run
from deploy.compare.verdict import Verdict
from deploy.report.content import Content
from deploy.report.measure import measure
from deploy.report.page import Trace, half_active, render
from deploy.report.recording import Recording
from nqlava.command.files import replacing
from nqlava.errors import InputError
from nqlava.network import IntegerNetwork


def make(run: Run, verdict: Verdict | None, command: str, image: int | None = None) -> Content:
    """Measures what the report shows beside the comparison.

    Args:
        run: what was compared.
        verdict: of the comparison; None where Lava did not run.
        command: the command line.
        image: as for ``measure``.
    """
    measured = measure(run, image)
    if verdict is not None and measured.floating is not None:
        labels = run.data.labels.numpy()
        ann, snn = (one == labels for one in (measured.floating.ann, measured.floating.snn[:, -1]))
        verdict = with_float(verdict, ann, snn, run.settings.tolerance)
    content = Content(run, verdict, command, measured)
    if verdict is not None and content.integer_accuracy != list(verdict.engine_accuracy):
        raise ValueError(
            f"the engine's accuracies are {content.integer_accuracy}; expected {verdict.engine_accuracy} as compared"
        )
    return content


def write(path: Path, content: Content, traces: Sequence[Trace] | None = None) -> None:
    """Writes the page, all at once; ``traces`` are the neurons to draw, by default ``half_active``.

    Raises:
        OSError: the file cannot be written.
    """
    chosen = half_active(content.measured.recordings) if traces is None else list(traces)
    page = render(content, chosen)
    with replacing(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # file names may hold what is no text


def neuron(network: IntegerNetwork, text: str) -> tuple[int, int]:
    """(layer, neuron in (C, H, W) order) of "LAYER:C,Y,X" or "LAYER:N".

    Raises:
        InputError: there is no such neuron.
    """
    names = [layer.name for layer in network.layers]
    name, _, place = text.rpartition(":")
    if name not in names:
        raise InputError(f"--neurons is {text}; allowed: LAYER:C,Y,X or LAYER:N with a layer of {', '.join(names)}")
    layer = names.index(name)
    shape = network.shapes[layer]
    numbers = [int(number) for number in place.split(",")] if re.fullmatch(r"\d+(,\d+)*", place) else []
    if len(numbers) != len(shape) or any(number >= size for number, size in zip(numbers, shape, strict=True)):
        largest = ",".join(str(size - 1) for size in shape)
        raise InputError(f"--neurons is {text}; allowed: {name}:{','.join('0' * len(shape))} to {name}:{largest}")
    return layer, int(np.ravel_multi_index(numbers, shape))


def traces(recordings: Sequence[Recording], neurons: Sequence[tuple[int, int]]) -> list[Trace]:
    """What ``neuron`` found, to draw."""
    return [Trace(recordings[layer], index) for layer, index in neurons]
