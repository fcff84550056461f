"""The numbers behind the figures of train.figures: what distinguishes the ANN from its SNN, layer by layer."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nqlava.command.files import replacing
from train.choices import Reset
from train.data.image_set import ImageSet
from train.loop.calibrate import Evaluation, evaluate
from train.loop.checkpoint import ModelFile
from train.model.activation import NQ, Neuron, RateReLU
from train.model.snn import neurons, spiking

MAX_CELLS = 256  # of a histogram, between 0 and θ
CONTINUOUS = 20  # cells between 0 and θ where the values do not lie on a grid


@dataclass(frozen=True)
class Residuals:
    """Histogram of the residual error e = ANN output − SNN's mean output, over all neurons and images of one layer.

    The cells have the width θ/k and the centres −θ, ..., 0, ..., θ. For NQ k = lcm(L, T), so that each centre is one
    of the values that e can take. The outermost cells also hold what lies beyond them (unbounded ReLU only).

    Attributes:
        centres: of the cells, in the unit of z, (2k + 1,).
        counts: values per cell.
        mean, deviation: of e, in the unit of z, from sums and not from the cells: the fitted Gaussian.
        skewness, kurtosis: third and fourth standardised moment of e, the latter minus 3; 0 for a Gaussian.
    """

    centres: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float
    deviation: float
    skewness: float
    kurtosis: float

    @property
    def shares(self) -> list[float]:
        """Counts as shares of 1."""
        total = sum(self.counts)
        return [count / total for count in self.counts]

    @property
    def gaussian(self) -> list[float]:
        """Shares that the fitted Gaussian gives the same cells."""
        half = (self.centres[1] - self.centres[0]) / 2
        scale = max(self.deviation, 1e-12 * half) * math.sqrt(2)
        inner = [0.5 * (1 + math.erf((centre + half - self.mean) / scale)) for centre in self.centres[:-1]]
        return [high - low for low, high in zip([0.0, *inner], [*inner, 1.0], strict=True)]

    @property
    def distance(self) -> float:
        """Total variation distance of histogram and Gaussian: the share of values in a wrong cell, 0 .. 1."""
        return 0.5 * sum(abs(found - fitted) for found, fitted in zip(self.shares, self.gaussian, strict=True))


@dataclass(frozen=True)
class Response:
    """The SNN's mean output over T steps where the ANN's output is (about) a, one entry per value of a that occurs.

    All in the unit of z: a itself (mean within the cell), mean and standard deviation of the SNN's output, and how
    many neurons and images there are.
    """

    ann: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class LayerCurves:
    """One activation over all images: its θ, the σ that it holds (None for ReLU), and what was measured.

    ``activity`` is the number of spikes per neuron and step, in percent.
    """

    threshold: float
    sigma: float | None
    residuals: Residuals
    response: Response
    activity: float


@dataclass
class _Sums:
    """Sums over a layer's values as they arrive, with outputs in units of θ."""

    neuron: Neuron
    cells: int  # of e, between 0 and θ
    levels: int  # of the ANN's output, between 0 and θ
    errors: Tensor = field(init=False)  # count per cell
    powers: Tensor = field(init=False)  # Σ e^i, i = 0 .. 4
    response: Tensor = field(init=False)  # per level: count, Σ ANN, Σ SNN, Σ SNN²

    def __post_init__(self) -> None:
        self.errors = torch.zeros(2 * self.cells + 1, dtype=torch.long)
        self.powers = torch.zeros(5, dtype=torch.double)
        self.response = torch.zeros(self.levels + 1, 4, dtype=torch.double)

    def add(self, ann: Tensor, snn: Tensor) -> None:
        threshold = self.neuron.threshold.detach().double()
        ann, snn = (values.flatten().double() / threshold for values in (ann, snn))
        error = ann - snn
        cell = (error * self.cells).round().long().clamp(-self.cells, self.cells) + self.cells
        self.errors += torch.bincount(cell, minlength=len(self.errors)).cpu()
        self.powers += torch.stack([(error**power).sum() for power in range(5)]).cpu()
        level = (ann * self.levels).round().long().clamp(0, self.levels)
        for column, values in enumerate((None, ann, snn, snn**2)):
            self.response[:, column] += torch.bincount(level, values, minlength=self.levels + 1).cpu()

    def finish(self) -> LayerCurves:
        threshold = float(self.neuron.threshold)
        count, *sums = self.powers.tolist()
        mean, second, third, fourth = (total / count for total in sums)
        variance = max(0.0, second - mean**2)
        cube = third - 3 * mean * second + 2 * mean**3
        quartic = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        kept = self.response[self.response[:, 0] > 0]
        ann, snn, squares = (kept[:, 1:] / kept[:, :1]).unbind(1)
        spread = (squares - snn**2).clamp(min=0).sqrt()
        residuals = Residuals(
            centres=tuple(threshold * cell / self.cells for cell in range(-self.cells, self.cells + 1)),
            counts=tuple(self.errors.tolist()),
            mean=threshold * mean,
            deviation=threshold * math.sqrt(variance),
            skewness=cube / variance**1.5 if variance else 0.0,
            kurtosis=quartic / variance**2 - 3 if variance else 0.0,
        )
        response = Response(
            ann=tuple((threshold * ann).tolist()),
            mean=tuple((threshold * snn).tolist()),
            deviation=tuple((threshold * spread).tolist()),
            counts=tuple(int(n) for n in kept[:, 0].tolist()),
        )
        sigma = float(self.neuron.sigma) if isinstance(self.neuron, NQ) else None
        activity = 100 * float(self.response[:, 2].sum()) / count
        return LayerCurves(threshold, sigma, residuals, response, activity)


@torch.no_grad()
def measure(
    network: nn.Module,
    data: ImageSet,
    steps: int,
    observe_scores: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Evaluation, list[LayerCurves]]:
    """Accuracies of ANN and SNN, and the curves of every activation, over all images; memory for one batch.

    ``observe_scores`` is as for ``train.loop.calibrate.evaluate``.
    """
    found = []
    for neuron in neurons(network):
        grid = math.lcm(neuron.levels, steps) if isinstance(neuron, NQ) else MAX_CELLS + 1
        levels = neuron.levels if isinstance(neuron, NQ) and neuron.levels <= MAX_CELLS else CONTINUOUS
        found.append(_Sums(neuron, grid if grid <= MAX_CELLS else CONTINUOUS, levels))
    result = evaluate(
        network,
        data,
        steps,
        observe=lambda index, ann, snn: found[index].add(ann, snn),
        observe_scores=observe_scores,
    )
    return result, [sums.finish() for sums in found]


@torch.no_grad()
def constant_current(neuron: Neuron, steps: int, points: int = 600) -> tuple[Tensor, Tensor, Tensor]:
    """(z, ANN output, SNN's mean output over T steps of constant current z), z from −θ/4 to 5θ/4; each (points,).

    The SNN's is the mean over the channels where each has its own v(0).
    """
    z = ((torch.arange(points) + 0.5) * (1.5 / points) - 0.25) * neuron.threshold.detach()
    with spiking(neuron, steps):
        current = z.repeat(steps)[:, None].expand(-1, neuron.initial.numel())
        rate = neuron(current).unflatten(0, (steps, -1)).mean((0, 2))
    return z, neuron(z), rate


@dataclass(frozen=True)
class Resets:
    """Accuracies in percent of a ReLU network as ANN, and as SNN after 1 .. T steps with either reset."""

    ann: float
    soft: tuple[float, ...]
    hard: tuple[float, ...]

    @property
    def hard_steps(self) -> int:
        """Steps after which hard reset first has its best accuracy."""
        return self.hard.index(max(self.hard)) + 1

    @property
    def soft_steps(self) -> int | None:
        """Steps after which soft reset first has that accuracy; None where it does not within T."""
        return next((t for t, accuracy in enumerate(self.soft, 1) if accuracy >= max(self.hard)), None)

    @property
    def ratio(self) -> float | None:
        """How many times as many steps hard reset needs for its best accuracy."""
        return None if self.soft_steps is None else self.hard_steps / self.soft_steps


def compare_resets(network: nn.Module, data: ImageSet, steps: int) -> Resets:
    """Soft against hard reset, same weights and thresholds (Han et al., CVPR 2020); the network is left as it was."""
    found = [(neuron, neuron.reset) for neuron in neurons(network)]

    def run(reset: Reset) -> Evaluation:
        for neuron, _ in found:
            neuron.reset = reset
        return evaluate(network, data, steps)

    try:
        soft, hard = run("soft"), run("hard")
    finally:
        for neuron, before in found:
            neuron.reset = before
    return Resets(soft.ann, soft.snn, hard.snn)


def is_relu(network: nn.Module) -> bool:
    """Whether all activations are ReLU with a threshold."""
    found = neurons(network)
    return bool(found) and all(isinstance(neuron, RateReLU) for neuron in found)


def recipe(model: ModelFile) -> dict[str, Any]:
    """The recipe in a model file and how v(0) was calibrated; empty where there is none."""
    if not model.recipe or "potentials" not in model.info:
        return model.recipe
    return model.recipe | {"potentials": model.info["potentials"]}


def history(model: ModelFile) -> list[tuple[int, float, float]]:
    """(epoch, ANN accuracy, SNN accuracy), in percent on held-out images, of every epoch that the file records."""
    return [
        (entry["epoch"], entry["ann"], entry["snn"])
        for entry in model.history
        if isinstance(entry, dict) and all(_number(entry.get(key)) for key in ("epoch", "ann", "snn"))
    ]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def by_noise_factor(recipes: Sequence[dict[str, Any]]) -> list[dict[float, list[int]]]:
    """Positions of the recipes that differ in noise factor and seed alone, per set of those and per noise factor.

    Sets with fewer than two noise factors, and recipes without one, are left out.
    """
    sets: dict[str, dict[float, list[int]]] = {}
    for position, made in enumerate(recipes):
        if _number(made.get("noise_factor")):
            rest = [repr(item) for item in made.items() if item[0] not in ("noise_factor", "seed")]
            factors = sets.setdefault("".join(sorted(rest)), {})
            factors.setdefault(float(made["noise_factor"]), []).append(position)
    return [dict(sorted(factors.items())) for factors in sets.values() if len(factors) > 1]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation of the sample (0 for one value)."""
    tensor = torch.tensor(values, dtype=torch.double)
    return float(tensor.mean()), float(tensor.std()) if len(values) > 1 else 0.0


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A header and rows, comma-separated; floats with all their digits, None as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
