"""What the report says, as values: for the page and for JSON."""

import platform
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.compare.run import Run
from deploy.compare.table import entries
from deploy.compare.verdict import Verdict
from deploy.fit.report import changes
from deploy.report.measure import Measured
from deploy.report.stages import Stage, interval, stage
from nqlava.engine.cpu.machine import describe

_PACKAGES = ("nq-lava", "torch", "numpy", "h5py", "lava-nc", "lava-dl", "SciPy", "matplotlib", "Jinja2")


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name, shape, neurons: of the layer.
        rate: spikes per neuron and step; None in the read-out.
        operations: synaptic operations by spikes, per image.
        image_macs: multiply-accumulates by the image, per image.
        bits: of the weights, exponents aside. exponents: of the connections.
        weight: largest |w|. threshold, bias, v0: least and largest.
        potential: least and largest u measured. bound: on |u| for any image.
        saturations: clipped membrane potentials in Lava; None where it did not run.
    """

    name: str
    shape: tuple[int, ...]
    neurons: int
    rate: float | None
    operations: float
    image_macs: float
    bits: int
    exponents: tuple[int, ...]
    weight: int
    threshold: tuple[int, int] | None
    bias: tuple[int, int]
    v0: tuple[int, int]
    potential: tuple[int, int]
    bound: int
    saturations: int | None


@dataclass(frozen=True)
class Content:
    """Everything that the report says.

    Attributes:
        run: file, network, T, images, model.
        verdict: of the comparison, with the accuracy of the float SNN on all images; None where Lava did not run.
        command: the command line, for people to run again.
        measured: beside the comparison.
    """

    run: Run
    verdict: Verdict | None
    command: str
    measured: Measured

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,), the true classes."""
        labels: NDArray[np.int64] = self.run.data.labels.numpy()
        return labels

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,), the class that the integer network chooses after step T."""
        return self.measured.classes[:, -1]

    @cached_property
    def stages(self) -> list[Stage]:
        """ANN, float SNN, integer SNN and Lava, as far as they are known."""
        run, floating, found = self.run, self.measured.floating, []
        right, after = self.predicted == self.labels, f"T = {run.settings.T}"
        before = None
        if floating is not None:
            ann, before = floating.ann == self.labels, floating.snn[:, -1] == self.labels
            found = [stage("ANN", ann), stage(f"float SNN, {after}", before, ann)]
        found.append(stage(f"integer SNN, {after}", right, before))
        if self.verdict is not None:
            name = f"Lava, {after}"
            lava = np.frombuffer(self.verdict.right, np.uint8) == 1
            found.append(stage(name, lava, right))
        return found

    @cached_property
    def integer_accuracy(self) -> list[float]:
        """Accuracy of the integer network after step 1 … T, in percent."""
        return self._accuracy(self.measured.classes)

    @cached_property
    def float_accuracy(self) -> list[float] | None:
        """Accuracy of the float SNN after step 1 … T, in percent."""
        return None if self.measured.floating is None else self._accuracy(self.measured.floating.snn)

    @cached_property
    def intervals(self) -> list[tuple[float, float]]:
        """Confidence intervals of ``integer_accuracy``."""
        right = (self.measured.classes == self.labels[:, None]).sum(axis=0)
        return [interval(int(correct), len(self.labels)) for correct in right]

    def _accuracy(self, classes: NDArray[np.int64]) -> list[float]:
        right = (classes == self.labels[:, None]).sum(axis=0)
        return [100 * int(correct) / len(self.labels) for correct in right]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K), images by true class (row) and class after step T (column), of the integer network."""
        count = self.run.network.classes
        return np.bincount(self.labels * count + self.predicted, minlength=count**2).reshape(count, count)

    def confused(self, most: int = 5) -> list[tuple[str, str, int]]:
        """(true class, predicted class, images) of the most frequent mistakes."""
        wrong, classes = self.confusion - np.diag(np.diag(self.confusion)), self.run.data.classes
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [np.unravel_index(index, wrong.shape) for index in order]
        return [(classes[row], classes[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]

    @cached_property
    def layers(self) -> list[LayerRow]:
        activity = self.measured.fit.activity
        assert activity is not None
        rows = []
        for index, layer in enumerate(self.run.network.layers):
            active, shape = activity.layers[index], self.run.network.shapes[index]
            rows.append(
                LayerRow(
                    name=layer.name,
                    shape=shape,
                    neurons=active.neurons,
                    rate=None if layer.is_readout else active.spikes / active.updates,
                    operations=sum(active.operations) / activity.samples,
                    image_macs=active.image_operations / activity.samples,
                    bits=max(connection.bits for connection in layer.connections),
                    exponents=tuple(connection.exponent for connection in layer.connections),
                    weight=max(int(np.abs(c.weight.astype(np.int16)).max()) for c in layer.connections),
                    threshold=None if layer.threshold is None else _range(layer.threshold),
                    bias=_range(layer.bias),
                    v0=_range(layer.v0),
                    potential=self.measured.potentials[index],
                    bound=self.measured.bounds[index],
                    saturations=None if self.verdict is None else self.verdict.saturations[index],
                )
            )
        return rows

    @property
    def compared(self) -> int:
        """Values that Lava and the integer engine have in common: spikes, and potentials of the read-out."""
        return sum(row.neurons for row in self.layers) * len(self.labels) * self.run.settings.T

    @cached_property
    def origin(self) -> dict[str, str]:
        """Where results come from: digests, versions, machine, seed, command."""
        run, settings = self.run, self.run.settings
        versions = {name: found for name in _PACKAGES if (found := _version(name)) is not None}
        return {
            "command": self.command,
            "network SHA-256": settings.digest,
            **({} if self.verdict is None else {"run's digest (docs/semantics.md)": self.verdict.digest}),
            "images": f"{len(run.data):,} test images of {' '.join(settings.data)}, drawn by seed {settings.seed}",
            "images SHA-256": run.data.digest(),
            "versions": ", ".join(f"{name} {found}" for name, found in versions.items()),
            "Python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}; kernels: {describe()}",
        }

    @cached_property
    def made_with(self) -> dict[str, str]:
        """What the file says about its export; without accuracies, which are of other images."""
        info = sorted(self.run.network.info.items())
        return {key: str(value) for key, value in info if not key.endswith("_accuracy")}

    def values(self) -> dict[str, Any]:
        """The same for machines."""
        run, verdict, fit = self.run, self.verdict, self.measured.fit
        wrong = np.flatnonzero(self.predicted != self.labels)
        return {
            "net": str(run.settings.net),
            "network_sha256": run.settings.digest,
            "T": run.settings.T,
            "samples": len(run.data),
            "data": run.settings.data,
            "seed": run.settings.seed,
            "passed": None if verdict is None else verdict.passed,
            "run": None if verdict is None else entries(verdict, run.settings),
            "stages": [asdict(one) | {"accuracy": one.accuracy} for one in self.stages],
            "accuracy_by_step": {
                "float_snn": self.float_accuracy,
                "integer": self.integer_accuracy,
                "integer_confidence_intervals": self.intervals,
                "lava": None if verdict is None else verdict.accuracy,
            },
            "classes": list(run.data.classes),
            "confusion": self.confusion.tolist(),
            "wrong": [
                {"image": int(n), "true": int(self.labels[n]), "predicted": int(self.predicted[n])} for n in wrong
            ],
            "recorded_image": self.measured.image,
            "layers": [asdict(row) for row in self.layers],
            "residuals": None
            if self.measured.floating is None
            else [
                {"threshold": one.threshold, "sigma": one.sigma} | asdict(one.residuals)
                for one in self.measured.floating.curves
            ],
            "fit": {
                one.chip.key: {
                    "verdict": one.verdict(),
                    "fits": one.fits,
                    "cores": {part.name: part.cores for part in one.assumed.parts},
                    "changes": changes(one),
                }
                for one in fit.fits
            },
            "origin": self.origin,
            "made_with": self.made_with,
        }


def _range(values: NDArray[np.int32]) -> tuple[int, int]:
    return int(values.min()), int(values.max())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
