"""The figures of the report, as SVG."""

import io
import math
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, Formatter, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from deploy.report.recording import Recording
from nqlava.network import MEMBRANE_MAX
from train.curves import LayerCurves
from train.plot_style import BLUE, CYCLE, GREEN, GREY, ORANGE, STYLE

WIDTH = 4.4
"""Inches: of figures that share a row on a wide screen and fill a narrow one."""
ROWS = 40
"""Neurons of a layer that the raster shows at most."""
MAX_NAMED_CLASSES = 20
_COUNTS = LinearSegmentedColormap.from_list("counts", ["#ffffff", BLUE])
WEIGHT_MAX = 127
_LABEL = 18  # characters of names in figures, at most
_REPORT_STYLE = STYLE | {
    "svg.fonttype": "none",  # text stays text: the browser has fonts of every script
    "svg.hashsalt": "nq-lava",
    "figure.dpi": 100,
    "text.parse_math": False,  # names are names, with a $ too
}


def _figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _short(names: Sequence[str]) -> list[str]:
    """The names as labels: not too long, and not hidden, as matplotlib hides those that begin with "_"."""
    cut = [name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…" for name in names]
    return [f" {name}" if name.startswith("_") else name for name in cut]


def _time(axes: Axes, steps: int) -> None:
    """An axis of whole time steps."""
    axes.set_xlim(0.5, steps + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1) if steps > 1 else FixedLocator([1]))


def _svg(figure: Figure) -> str:
    with io.StringIO() as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of scripts that the font does not have
        figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


def accuracy(
    lines: Sequence[tuple[str, Sequence[float]]], bands: Sequence[tuple[float, float]], ann: float | None
) -> str:
    """Accuracy in percent after step 1 … T.

    Args:
        lines: name and values of each network; later ones are drawn narrower, so that equal ones can be seen.
        bands: confidence interval of the first line after each step.
        ann: accuracy of the ANN.
    """
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(2.9)
        steps = range(1, len(bands) + 1)
        low, high = zip(*bands, strict=True)
        if len(bands) > 1:
            axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0)
        else:
            axes.vlines(steps, low, high, color=BLUE, alpha=0.3, linewidth=8)
        if ann is not None:
            axes.axhline(ann, color=GREY, linestyle=":", label="ANN")
        for index, (name, values) in enumerate(lines):
            size = 3.4 - 1.1 * index
            style = "-" if index == 0 else "--"
            axes.plot(
                steps,
                values,
                style,
                color=CYCLE[index],
                linewidth=size,
                marker="o",
                markersize=2 + 2 * size,
                label=name,
            )
        _time(axes, len(bands))
        axes.set_xlabel("time steps T")
        axes.set_ylabel("accuracy (%)")
        axes.legend(loc="lower right")
        return _svg(figure)


def confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Images by true class (row) and predicted class (column)."""
    with matplotlib.rc_context(_REPORT_STYLE | {"axes.grid": False}):
        figure, axes = _figure(4.2)
        share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        axes.imshow(share, cmap=_COUNTS, vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        if len(classes) <= MAX_NAMED_CLASSES:
            axes.set_xticks(range(len(classes)), _short(classes), rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(classes)), _short(classes))
            size = 7.5 if len(classes) <= 12 else 5
            for row, column in zip(*np.nonzero(counts), strict=True):
                color = "white" if share[row, column] > 0.5 else "black"
                text = f"{counts[row, column]}"
                axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
        return _svg(figure)


def raster(recordings: Sequence[Recording]) -> str:
    """Spikes of up to ROWS neurons of every spiking layer, evenly spaced over the layer, one image."""
    spiking = [recording for recording in recordings if recording.layer.threshold is not None]
    blocks = []
    for recording in spiking:
        neurons = recording.spikes.shape[1]
        chosen = np.linspace(0, neurons - 1, min(ROWS, neurons)).round().astype(int)
        blocks.append(recording.spikes[:, chosen].T)
    bounds = np.cumsum([0, *map(len, blocks)])
    with matplotlib.rc_context(_REPORT_STYLE | {"axes.grid": False}):
        figure, axes = _figure(0.8 + 0.28 * len(blocks))
        steps = blocks[0].shape[1]
        extent = (0.5, steps + 0.5, float(bounds[-1]), 0.0)
        axes.imshow(
            np.concatenate(blocks), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=extent
        )
        axes.hlines(bounds[1:-1], 0.5, steps + 0.5, color=ORANGE, linewidth=0.8)
        axes.set_yticks((bounds[:-1] + bounds[1:]) / 2, _short([recording.layer.name for recording in spiking]))
        axes.tick_params(axis="y", length=0)
        _time(axes, steps)
        axes.set_xlabel("time step")
        return _svg(figure)


def membrane(recording: Recording, neuron: int) -> str:
    """u of one neuron before every reset, its threshold, and where it spikes."""
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(1.9, 3.2)
        values, threshold = recording.u[:, neuron], recording.threshold(neuron)
        steps = np.arange(1, len(values) + 1)
        axes.plot(steps, values, color=BLUE, marker="o", label="u")
        if threshold is not None:
            axes.axhline(threshold, color=ORANGE, linestyle="--", label="θ")
            fired = recording.spikes[:, neuron]
            axes.plot(steps[fired], values[fired], "o", color=ORANGE, markersize=7, fillstyle="none", label="spike")
        (name,) = _short([recording.layer.name])
        axes.set_title(f"{name} {_place(recording.place(neuron))}", loc="left")
        _time(axes, len(values))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.legend(loc="best", ncols=3, columnspacing=0.8, handlelength=1.2, handletextpad=0.4)
        return _svg(figure)


def readout(recording: Recording, classes: Sequence[str], most: int = 5) -> str:
    """Potentials of the read-out over the steps: the classes that are highest in the end, named."""
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(2.9)
        steps, names = np.arange(1, len(recording.u) + 1), _short(classes)
        order = np.argsort(-recording.u[-1], kind="stable")
        for rank, neuron in reversed(list(enumerate(order[: 4 * most]))):
            color, label = (CYCLE[rank], names[neuron]) if rank < most else ("#cccccc", None)
            axes.plot(steps, recording.u[:, neuron], color=color, marker="o", label=label)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
        _time(axes, len(recording.u))
        axes.set_xlabel("time step")
        axes.set_ylabel("potential")
        return _svg(figure)


def by_layer(names: Sequence[str], values: Sequence[float], label: str, color: str, ticks: str | Formatter) -> str:
    """A bar for each layer; ``ticks`` formats the values of the axis."""
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(0.7 + 0.2 * len(names))
        axes.barh(range(len(names)), values, color=color, height=0.7)
        axes.set_yticks(range(len(names)), _short(names))
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(ticks)
        axes.set_xlabel(label)
        return _svg(figure)


def residuals(curves: LayerCurves, name: str) -> str:
    """Residual error (ANN output − mean SNN output) of one activation, with the Gaussian of its mean and deviation."""
    found = curves.residuals
    centres = [centre / curves.threshold for centre in found.centres]
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(1.75, 2.3)
        axes.bar(
            centres, [100 * share for share in found.shares], width=0.9 * (centres[1] - centres[0]), color="#9ecae1"
        )
        axes.plot(centres, [100 * share for share in found.gaussian], color=ORANGE, marker=".")
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 200)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        mean, deviation = found.mean / curves.threshold, found.deviation / curves.threshold
        (name,) = _short([name])
        axes.set_title(f"{name}\nmean {mean:+.3f} θ, s.d. {deviation:.3f} θ", loc="left")
        axes.set_xlabel("error / θ")
        axes.set_ylabel("share (%)")
        return _svg(figure)


def ranges(
    names: Sequence[str],
    weights: Sequence[int],
    thresholds: Sequence[tuple[int, int] | None],
    measured: Sequence[int],
    bounds: Sequence[int],
) -> str:
    """Magnitudes by layer against the limits of 8 and 24 bits, on a logarithmic axis.

    Args:
        names: of the layers.
        weights: largest |w|.
        thresholds: least and largest θ.
        measured: largest |u| measured.
        bounds: largest |u| for any image.
    """
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(1.25 + 0.2 * len(names))
        rows = np.arange(len(names))
        for limit, text in ((WEIGHT_MAX, "8 bits"), (MEMBRANE_MAX, "24 bits")):
            axes.axvline(limit, color="black", linewidth=0.9)
            axes.text(limit, -0.9, text, ha="center", va="bottom", fontsize=7)
        axes.plot(weights, rows, "|", color=GREEN, markersize=8, markeredgewidth=2, label="largest |w|")
        spiking = [(row, *found) for row, found in zip(rows, thresholds, strict=True) if found is not None]
        axes.hlines(
            [row for row, _, _ in spiking],
            [low for _, low, _ in spiking],
            [high for _, _, high in spiking],
            color=ORANGE,
            linewidth=4,
            label="θ",
        )
        axes.plot(measured, rows, "o", color=BLUE, label="largest |u| measured")
        axes.plot(bounds, rows, "o", color=BLUE, fillstyle="none", label="bound on |u|")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(_power_of_two))
        axes.set_ylim(len(names) - 0.4, -0.7)
        axes.set_xlim(1, 2.0 ** (1 + math.ceil(math.log2(max(MEMBRANE_MAX, *bounds)))))
        axes.set_yticks(rows, _short(names))
        axes.grid(False, axis="y")
        axes.set_xlabel("magnitude (integers)")
        figure.legend(loc="outside lower center", ncols=2)
        return _svg(figure)


def cores(names: Sequence[str], by_chip: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Cores that each layer takes on each chip."""
    with matplotlib.rc_context(_REPORT_STYLE):
        figure, axes = _figure(1.0 + 0.26 * len(names))
        height = 0.8 / len(by_chip)
        for index, (_, counts) in enumerate(by_chip):
            place = np.arange(len(names)) + (index - (len(by_chip) - 1) / 2) * height
            axes.barh(place, counts, height=height, color=CYCLE[index])
        axes.set_yticks(range(len(names)), _short(names))
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("cores")
        handles = [Patch(color=CYCLE[index], label=name) for index, (name, _) in enumerate(by_chip)]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return _svg(figure)


def _power_of_two(value: float, _position: int) -> str:
    return "2" + str(round(math.log2(value))).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _place(place: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, place))})"
