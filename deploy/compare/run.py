"""One comparison: what its settings name, the run on the backend, and the verdict."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.errors import CoverageError
from deploy.images import load_for
from nqlava import netx
from nqlava.command.progress import progress
from nqlava.errors import InputError
from nqlava.info import Info

if TYPE_CHECKING:
    from deploy.compare.verdict import Verdict
    from nqlava.network import IntegerNetwork
    from train.data.image_set import ImageSet
    from train.model.models import Network


@dataclass(frozen=True)
class Run:
    """A network and the images to run.

    Attributes:
        settings: with T, and the digest of the network.
        network: in the file.
        data: the images.
        model: that the network was exported from; None where it is not there.
        model_from: its file, or in words why there is none.
    """

    settings: Settings
    network: "IntegerNetwork"
    data: "ImageSet"
    model: "Network | None"
    model_from: str

    @property
    def whole(self) -> Part:
        """All images as one part."""
        return Part(0, self.data.pixels, self.data.labels.numpy())


def prepare(settings: Settings) -> Run:
    """Reads what the settings name.

    Raises:
        InputError: the file, the images or the model cannot be used, or do not belong together.
    """
    from deploy.compare.float_accuracy import ModelSearch, exported_model, find_model

    net = settings.net
    network = netx.read(net)
    try:
        info = Info.of(network.info)
    except InputError as error:
        raise InputError(f"{net}: {error}") from None
    settings = replace(settings, steps=info.steps_or(settings.steps), digest=network.digest())
    data = load_for(net, network, settings.data)
    if len(data.classes) != network.classes:
        raise InputError(f"data: {len(data.classes)} classes; allowed: {network.classes} as {net}")
    data = data.sample(settings.samples, settings.seed)
    if info.classes is not None and info.classes != data.classes:
        raise InputError(f"data: classes are {', '.join(data.classes)}; allowed: those of {net}")
    found = ModelSearch(settings.model) if settings.model is not None else find_model(net, info)
    model, model_from = None, found.missing
    try:
        if found.path is not None:
            model, model_from = exported_model(network, info, found.path), str(found.path)
    except InputError as error:
        if settings.model is not None:
            raise
        model_from = str(error)
    return Run(settings, network, data, model, model_from)


def check_outputs(settings: Settings, config: Path | None, *outputs: Path | None) -> None:
    """InputError where an output cannot be written, or is an input or another output too."""
    from nqlava.command.files import check_output

    inputs = [settings.net, settings.model, config, *map(Path, settings.data)]
    chosen = [path for path in outputs if path is not None]
    for index, path in enumerate(chosen):
        check_output(path, inputs=inputs)
        if any(path.absolute() == other.absolute() for other in chosen[:index]):
            raise InputError(f"{path}: is named for two outputs; allowed: a file for each")


def execute(run: Run) -> "Verdict":
    """Runs the images on the backend, and compares; shows the progress and the accuracy so far.

    Raises:
        what deploy.compare.settings.FAILURES lists.
    """
    began, samples = time.monotonic(), len(run.data)
    total: Verdict | None = None
    with closing(_verdicts(run)) as verdicts, progress(samples, "images", run.settings.target) as bar:
        for verdict in verdicts:
            total = verdict if total is None else total + verdict
            bar.set_postfix(accuracy=f"{total.accuracy[-1]:.2f} %", refresh=False)
            bar.update(verdict.samples)
    if total is None:
        raise CoverageError(f"no sample was compared; expected: 0..{samples - 1}")
    total.require_all(samples)
    original = Info.of(run.network.info).original_accuracy
    return replace(total, wall_seconds=time.monotonic() - began, model=run.model_from, original=original)


def _verdicts(run: Run) -> "Generator[Verdict, None, None]":
    """Verdicts on all samples, from this process, from others on this machine, or from a cluster."""
    settings = run.settings
    if settings.scheduler is not None:
        from deploy.compare.cluster import on_cluster

        return on_cluster(settings, run.whole)
    if settings.workers > 1:
        from deploy.compare.workers import in_processes

        return in_processes(settings, run.whole.split(settings.workers))
    from deploy.compare.compare import compared

    return compared(settings, run.network, run.whole)
