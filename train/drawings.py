"""The figures of the NQ and RMP-SNN papers, drawn from trained models, with their numbers."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

from nqlava.command.files import replacing
from nqlava.errors import InputError
from train.curves import (
    LayerCurves,
    by_noise_factor,
    compare_resets,
    constant_current,
    history,
    is_relu,
    mean_and_spread,
    measure,
    recipe,
    write_csv,
)
from train.data.image_set import DataError, ImageSet
from train.loop import checkpoint
from train.loop.calibrate import Evaluation, evaluate
from train.loop.checkpoint import ModelFile
from train.model.snn import neurons
from train.plot_style import BLUE, CYCLE, GREY, MARKERS, ORANGE, STYLE

COLUMN, PAGE = 3.5, 7.2  # widths in inches
NOISE_STEPS = (1, 2, 4)


@dataclass(frozen=True)
class Settings:
    """What all figures are made with.

    Attributes:
        data: the images. images: these in words, such as "1,000 test images".
        steps: T of residuals, activation and activity. reset_steps: T of rmp. layer: of activation, from 1; None for
            the middle one.
    """

    data: ImageSet
    images: str
    steps: int
    reset_steps: int
    layer: int | None


class Subject:
    """A network and the record of its training; it is simulated when a figure first asks for it."""

    def __init__(self, name: str, model: ModelFile, settings: Settings) -> None:
        self.name = name
        self.network: nn.Module = model.network
        self.recipe = recipe(model)
        self.history = history(model)
        self.settings = settings

    @cached_property
    def _measured(self) -> tuple[Evaluation, list[LayerCurves]]:
        return measure(self.network, self.settings.data, self.settings.steps)

    @property
    def curves(self) -> list[LayerCurves]:
        """Residuals of every activation, at T = settings.steps."""
        return self._measured[1]

    @cached_property
    def accuracy(self) -> tuple[float, ...]:
        """Accuracy of the SNN after 1, 2, 3 and 4 steps, in percent; from ``curves`` where they are long enough."""
        longest = max(NOISE_STEPS)
        if self.settings.steps >= longest:
            return self._measured[0].snn[:longest]
        return evaluate(self.network, self.settings.data, longest).snn


@dataclass(frozen=True)
class Drawing:
    """A figure and its numbers: column names with units, and rows."""

    figure: Figure
    header: tuple[str, ...]
    rows: list[tuple[object, ...]]


def _panels(count: int, width: float, height: float, columns: int = 4, **options: Any) -> tuple[Figure, list[Axes]]:
    """``count`` axes of a size in inches, side by side in rows."""
    columns = min(count, columns)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(max(COLUMN, columns * width), lines * height + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, **options)
    for spare in grid.flat[count:]:
        spare.remove()
    return figure, list(grid.flat[:count])


def _label_ends(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Names lines at the right edge: (last value, text, colour) each, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = 1.3 * matplotlib.rcParams["font.size"] / 72 * axes.figure.dpi / axes.bbox.height
    below = -math.inf
    for value, text, color in sorted(labels):
        below = max(below + gap, (value - low) / (high - low))
        axes.text(1.02, below, text, color=color, va="center", transform=axes.transAxes)


def residuals(subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """Residual error per activation with the fitted Gaussian, a panel each."""
    columns = 4
    lines = [math.ceil(len(subject.curves) / columns) for subject in subjects]
    figure = Figure(figsize=(PAGE, 0.85 + sum(0.4 + 1.4 * count for count in lines)), layout="constrained")
    title = f"Residual error (ANN output − mean SNN output), T = {settings.steps}, {settings.images}"
    figure.suptitle(f"{title}\nabove each activation: mean, standard deviation and stored σ in the unit of z")
    rows: list[tuple[object, ...]] = []
    parts = figure.subfigures(len(subjects), 1, height_ratios=lines, squeeze=False).flat
    for subject, part, count in zip(subjects, parts, lines, strict=True):
        part.suptitle(subject.name, fontweight="bold")
        grid = part.subplots(count, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(subject.curves) :]:
            axes.remove()
        for index, (axes, layer) in enumerate(zip(grid.flat, subject.curves, strict=False), 1):
            found = layer.residuals
            centres = [centre / layer.threshold for centre in found.centres]
            shares, gaussian = ([100 * share for share in part] for part in (found.shares, found.gaussian))
            axes.bar(centres, shares, width=0.9 * (centres[1] - centres[0]), color="#9ecae1", label="measured")
            marker = "." if len(centres) < 40 else ""
            axes.plot(centres, gaussian, color=ORANGE, marker=marker, label="Gaussian of this mean and s.d.")
            axes.set_yscale("log")
            axes.set_ylim(1e-3, 200)
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
            stored = "–" if layer.sigma is None else f"{layer.sigma:.3f}"
            axes.set_title(f"{index}: mean {found.mean:+.3f}\ns.d. {found.deviation:.3f}, σ {stored}", loc="left")
            for row in zip(found.centres, found.counts, shares, gaussian, strict=True):
                fitted = (found.mean, found.deviation, layer.sigma, found.skewness, found.kurtosis, found.distance)
                rows.append((subject.name, index, layer.threshold, *fitted, *row))
        part.supxlabel("residual error / θ")
        part.supylabel("share of values (%)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    header = (
        "model,activation,threshold (unit of z),mean (unit of z),standard deviation (unit of z),"
        "stored sigma (unit of z),skewness,excess kurtosis,total variation distance from Gaussian,"
        "residual error (unit of z),count,share (%),share of Gaussian (%)"
    )
    return Drawing(figure, tuple(header.split(",")), rows)


def activation(subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """Output of the ANN and of the SNN in one activation: at constant current, and in the network."""
    figure, grid = _panels(len(subjects), 2.4, 2.3, columns=3, sharex=True, sharey=True)
    figure.suptitle(f"ANN and SNN activation, T = {settings.steps}, {settings.images}")
    rows: list[tuple[object, ...]] = []
    for subject, axes in zip(subjects, grid, strict=True):
        index = settings.layer or math.ceil(len(subject.curves) / 2)
        layer, neuron = subject.curves[index - 1], neurons(subject.network)[index - 1]
        theta, response = layer.threshold, layer.response
        z, ann, snn = (values.double() for values in constant_current(neuron, settings.steps))
        position = (z / theta).tolist()
        axes.plot(position, (ann / theta).tolist(), color=BLUE, linewidth=3, alpha=0.45, label="ANN")
        if layer.sigma:
            low, high = ((ann + sign * layer.sigma) / theta for sign in (-1, 1))
            axes.fill_between(
                position, low.tolist(), high.tolist(), color=BLUE, alpha=0.12, linewidth=0, label="ANN ± σ"
            )
        axes.plot(position, (snn / theta).tolist(), "--", color="black", linewidth=0.9, label="SNN, constant current")
        axes.errorbar(
            [value / theta for value in response.ann],
            [value / theta for value in response.mean],
            yerr=[value / theta for value in response.deviation],
            fmt="o",
            color=ORANGE,
            capsize=2,
            label="SNN in the network ± s.d.",
        )
        axes.set_title(f"{subject.name}, activation {index}")
        axes.set_xlabel("pre-activation z / θ")
        name = (subject.name, index, theta, layer.sigma)
        rows += [(*name, "ANN", x, y, None, None) for x, y in zip(z.tolist(), ann.tolist(), strict=True)]
        rows += [
            (*name, "SNN at constant current", x, y, None, None) for x, y in zip(z.tolist(), snn.tolist(), strict=True)
        ]
        measured = zip(response.ann, response.mean, response.deviation, response.counts, strict=True)
        rows += [(*name, "SNN in the network", *row) for row in measured]
    figure.supylabel("output / θ")
    handles = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = 4 if len(grid) > 2 else 2
    short = {"columnspacing": 1.2, "handlelength": 1.5, "handletextpad": 0.5}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, **short)
    header = (
        "model,activation,threshold (unit of z),stored sigma (unit of z),series,"
        "z or ANN output (unit of z),output (unit of z),standard deviation (unit of z),count"
    )
    return Drawing(figure, tuple(header.split(",")), rows)


def noise_factor(subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """Accuracy of the SNN after few steps against the noise factor of the training."""
    quantized = [subject for subject in subjects if not is_relu(subject.network)]
    sets = by_noise_factor([subject.recipe for subject in quantized])
    if not sets:
        return "no two models were trained with different noise factors and else the same recipe, but for the seed"
    figure, grid = _panels(len(sets), COLUMN, 2.4, columns=2)
    figure.suptitle(f"SNN accuracy by noise in training, {settings.images}")
    rows: list[tuple[object, ...]] = []
    for factors, axes in zip(sets, grid, strict=True):
        ends = []
        counts = [len(positions) for positions in factors.values()]
        network = quantized[next(iter(factors.values()))[0]].recipe.get("model", "?")
        for steps, color, marker in zip(NOISE_STEPS, CYCLE, MARKERS, strict=False):
            line = []
            for factor, positions in factors.items():
                members = [quantized[position] for position in positions]
                found = [subject.accuracy[steps - 1] for subject in members]
                mean, spread = mean_and_spread(found)
                line.append((factor, mean, spread))
                axes.scatter([factor] * len(found), found, s=7, color=color, alpha=0.4, linewidths=0)
                names = " ".join(subject.name for subject in members)
                rows.append((network, factor, steps, len(found), mean, spread, names))
            x, y, error = zip(*line, strict=True)
            axes.errorbar(x, y, yerr=error, color=color, marker=marker, capsize=2)
            ends.append((line[-1][1], f"T = {steps}", color))
        number = "–".join(map(str, sorted({min(counts), max(counts)})))
        axes.set_title(f"{network}, {number} model{'s' if number != '1' else ''} per factor")
        axes.set_xlabel("noise factor (× measured σ)")
        axes.set_ylabel("SNN accuracy (%)")
        _label_ends(axes, ends)
    header = "network,noise factor,T (steps),models,mean accuracy (%),standard deviation (points),files"
    return Drawing(figure, tuple(header.split(",")), rows)


def training(subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """Accuracy on held-out images over the epochs."""
    told = [subject for subject in subjects if subject.history]
    if not told:
        return "no model file holds the accuracy of an SNN by epochs"
    figure, grid = _panels(len(told), 2.4, 2.2, columns=3, sharey=True)
    figure.suptitle("Accuracy on held-out training images")
    rows: list[tuple[object, ...]] = []
    for subject, axes in zip(told, grid, strict=True):
        epochs, ann, snn = zip(*subject.history, strict=True)
        steps = subject.recipe.get("snn_steps") or subject.recipe.get("induction_steps", "?")
        axes.plot(epochs, ann, color=BLUE, label="ANN")
        axes.plot(epochs, snn, color=ORANGE, linestyle="--", label=f"SNN, T = {steps}")
        axes.set_title(f"{subject.name} ({subject.recipe.get('validation', '?')} images)")
        axes.legend(loc="lower right")
        rows += [(subject.name, *entry, steps) for entry in subject.history]
    figure.supxlabel("epoch")
    figure.supylabel("accuracy (%)")
    header = ("model", "epoch", "ANN accuracy (%)", "SNN accuracy (%)", "T (steps)")
    return Drawing(figure, header, rows)


def rmp(subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """Accuracy of ReLU networks over the steps with soft and with hard reset."""
    chosen = [subject for subject in subjects if is_relu(subject.network)]
    if not chosen:
        return "no model has ReLU activations"
    figure, grid = _panels(len(chosen), COLUMN, 2.6, columns=2)
    figure.suptitle(f"Soft and hard reset, {settings.images}")
    rows: list[tuple[object, ...]] = []
    for subject, axes in zip(chosen, grid, strict=True):
        found = compare_resets(subject.network, settings.data, settings.reset_steps)
        steps = range(1, settings.reset_steps + 1)
        axes.axhline(found.ann, color=GREY, linestyle=":")
        axes.plot(steps, found.soft, color=BLUE)
        axes.plot(steps, found.hard, color=ORANGE, linestyle="--")
        best = max(found.hard)
        axes.plot(found.hard_steps, best, "s", color=ORANGE)
        summary = f"soft: not as good within {settings.reset_steps}"
        if found.soft_steps is not None:
            axes.plot(found.soft_steps, found.soft[found.soft_steps - 1], "o", color=BLUE)
            summary = f"soft: as good after {found.soft_steps} ({found.ratio:.1f}×)"
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{subject.name}\nhard: best after {found.hard_steps} steps; {summary}")
        axes.set_xlabel("T (steps)")
        axes.set_ylabel("accuracy (%)")
        lines = [(found.ann, "ANN", GREY), (found.soft[-1], "soft", BLUE), (found.hard[-1], "hard", ORANGE)]
        _label_ends(axes, lines)
        numbers = (found.ann, found.hard_steps, found.soft_steps, found.ratio)
        rows += [
            (subject.name, t, soft, hard, *numbers) for t, soft, hard in zip(steps, found.soft, found.hard, strict=True)
        ]
    header = (
        "model,T (steps),soft reset accuracy (%),hard reset accuracy (%),ANN accuracy (%),"
        "steps of hard reset for its best accuracy,steps of soft reset for that accuracy,ratio of these steps"
    )
    return Drawing(figure, tuple(header.split(",")), rows)


def activity(subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """Spikes per neuron and step of every activation."""
    figure, (axes,) = _panels(1, COLUMN, 2.4 + 0.15 * len(subjects))
    figure.suptitle(f"Spiking activity, T = {settings.steps}, {settings.images}")
    rows: list[tuple[object, ...]] = []
    for number, subject in enumerate(subjects):
        values = [layer.activity for layer in subject.curves]
        numbers = range(1, len(values) + 1)
        color, marker = CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)]
        axes.plot(numbers, values, color=color, marker=marker, label=subject.name)
        rows += [(subject.name, index, value) for index, value in zip(numbers, values, strict=True)]
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("activation")
    axes.set_ylabel("spikes per neuron and step (%)")
    figure.legend(loc="outside lower center", ncols=2)
    return Drawing(figure, ("model", "activation", "spikes per neuron and step (%)"), rows)


_DRAW: dict[str, Callable[[Sequence[Subject], Settings], Drawing | str]] = {
    made.__name__: made for made in (residuals, activation, noise_factor, training, rmp, activity)
}


def draw(name: str, subjects: Sequence[Subject], settings: Settings) -> Drawing | str:
    """The figure of a name in train.figures.FIGURES, or why the networks do not give one."""
    with matplotlib.rc_context(STYLE):
        return _DRAW[name](subjects, settings)


def write(drawing: Drawing, folder: Path, name: str) -> None:
    """``<name>.csv`` and ``<name>.png`` in the folder, each complete or as it was."""
    picture = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawing.figure.savefig(picture, format="png")
    write_csv(folder / f"{name}.csv", drawing.header, drawing.rows)
    with replacing(folder / f"{name}.png") as file:
        file.write(picture.getvalue())


def subjects(paths: Sequence[Path], settings: Settings) -> list[Subject]:
    """The networks of model files; InputError where one does not fit the images or the settings."""
    stems = [path.stem for path in paths]
    found = []
    for path in paths:
        model = checkpoint.read_model(path)
        data = settings.data
        shape = (data.images.shape[3], *data.images.shape[1:3])
        if shape != model.network.input_shape:
            raise DataError(f"data: images are {shape}; allowed: {model.network.input_shape} for {path}")
        if model.classes != data.classes:
            raise DataError(
                f"data: classes are {', '.join(data.classes)}; allowed: {', '.join(model.classes)} for {path}"
            )
        count = len(neurons(model.network))
        if settings.layer is not None and not 1 <= settings.layer <= count:
            raise InputError(f"layer is {settings.layer}; allowed: 1..{count} for {path}")
        name = path.stem if stems.count(path.stem) == 1 else str(path)
        found.append(Subject(name, model, settings))
    return found
