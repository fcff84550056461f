"""What the commands do, for notebooks and scripts: ``from deploy import api``.

network = api.read("net.h5")
images, labels = api.images("sample", count=100)
result = api.run(network, images, labels, steps=4)            # the exact integer engine
verdict = api.run_lava("net.h5", images, labels, steps=4)     # Lava, compared with it
print(result.accuracy[-1], result.spike_rates, verdict.exact)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deploy.compare.compare import compared
from deploy.compare.part import Part
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict, merge
from nqlava.engine.integer import Engine
from nqlava.errors import InputError
from nqlava.info import Info
from nqlava.network import IntegerNetwork
from nqlava.netx import read
from nqlava.trace import Trace
from train.choices import Split
from train.data.images import load
from train.data.sized import SizedSet, load_sized

__all__ = ["Result", "images", "read", "run", "run_lava"]


@dataclass(frozen=True)
class Result:
    """What the integer engine computed for N images over T steps.

    Attributes:
        accuracy: in percent after each step 1 … T; empty without labels.
        classes: predicted after each step, int64 (N, T).
        spike_rates: spikes per neuron and step of every spiking layer.
        saturations: per layer, clipped membrane potentials.
        trace: every spike and read-out.
    """

    accuracy: tuple[float, ...]
    classes: NDArray[np.int64]
    spike_rates: dict[str, float]
    saturations: dict[str, int]
    trace: Trace


def images(
    *sources: str | os.PathLike[str] | Sequence[str],
    count: int | None = None,
    seed: int = 0,
    split: Split = "test",
    size: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, C, H, W) and labels (N,); sources as of --data, one by one or as a list.

    Args:
        count: images drawn by ``seed``; None for all.
        split: "test" or "train".
        size: side of the images that the network takes, to which others are resized; None where all have one size.

    Raises:
        InputError: no usable images.
    """
    if split not in get_args(Split):
        raise InputError(f"split is {split!r}; allowed: {', '.join(get_args(Split))}")
    names = [name for one in sources for name in ([one] if isinstance(one, str | os.PathLike) else one)]
    given = [os.fspath(name) for name in names] or ["sample"]
    data = load(given, split) if size is None else load_sized(given, split, (size, size))
    if count is not None:
        data = data.sample(count, seed)
    elif isinstance(data, SizedSet):
        data = data.whole()
    return data.pixels, data.labels.numpy()


def run(
    network: IntegerNetwork, images: NDArray[np.uint8], labels: ArrayLike | None = None, *, steps: int | None = None
) -> Result:
    """Runs images (N, C, H, W) through the exact integer engine.

    Args:
        network: of ``read``, or of ``export.convert.convert``.
        labels: (N,); without them there is no accuracy.
        steps: T; without it the T stored in the network, else 4.

    Raises:
        InputError: images of another type or shape, labels of another shape, or steps out of range.
    """
    if not isinstance(network, IntegerNetwork):
        raise InputError(f"network is {type(network).__name__}; allowed: an IntegerNetwork, such as read(path) returns")
    _check_images(images, network)
    trace = Engine(network).run(images, Info.of(network.info).steps_or(steps))
    classes = trace.classes()
    accuracy: tuple[float, ...] = ()
    if labels is not None:
        right = (classes == _labels(labels, len(images))[:, None]).sum(axis=0)
        accuracy = tuple(100 * int(correct) / len(images) for correct in right)
    names = [layer.name for layer in network.layers]
    neurons = [int(np.prod(shape)) * trace.samples * trace.steps for shape in trace.shapes]
    rates = [spikes / count for spikes, count in zip(trace.spike_counts(), neurons, strict=True)]
    return Result(
        accuracy=accuracy,
        classes=classes,
        spike_rates=dict(zip(names, rates, strict=False)),  # the read-out, which is last, has no spikes
        saturations=dict(zip(names, trace.saturation_counts(), strict=True)),
        trace=trace,
    )


def run_lava(
    net: str | os.PathLike[str],
    images: NDArray[np.uint8],
    labels: ArrayLike,
    *,
    steps: int | None = None,
    backend: str = "cpu",
    batch: int = 64,
    reference_samples: int | None = None,
) -> Verdict:
    """Runs images (N, C, H, W) through a netx file in Lava, and compares with the integer engine and the reference.

    ``verdict.exact`` says whether all are equal, ``verdict.first`` and ``verdict.disagreement`` where they are not, and
    ``str(verdict)`` what was compared. Arguments as of ``run``, the last three as of deploy.run_lava.

    Raises:
        InputError: unusable arguments or file.
        LavaMissingError, LavaRunError, Loihi2UnavailableError: of deploy.errors.
    """
    settings = Settings(Path(net), backend=backend, batch=batch, reference_samples=reference_samples)
    network = read(net)
    _check_images(images, network)
    steps = Info.of(network.info).steps_or(steps)
    part = Part(0, images, _labels(labels, len(images)))
    verdict = merge(compared(replace(settings, steps=steps, digest=network.digest()), network, part))
    verdict.require_all(len(images))
    return verdict


def _check_images(images: object, network: IntegerNetwork) -> None:
    if not isinstance(images, np.ndarray) or not images.size:
        found = f"of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"images are {found}; allowed: an array of at least one image, uint8 (N, C, H, W)")
    if images.dtype != np.uint8 or images.shape[1:] != network.input_shape:
        allowed = f"uint8 of shape (N, {', '.join(map(str, network.input_shape))})"
        raise InputError(f"images are {images.dtype} of shape {images.shape}; allowed: {allowed}")


def _labels(labels: ArrayLike, count: int) -> NDArray[np.int64]:
    found = np.asarray(labels)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise InputError(
            f"labels are {found.dtype} of shape {found.shape}; allowed: integers of shape ({count},), one for an image"
        )
    return found.astype(np.int64)
