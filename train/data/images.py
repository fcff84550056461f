"""Small images of one size, from every source that --data names: decoded once, in memory."""

import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nqlava.errors import shown
from train.choices import Split
from train.data import cache, cifar_python
from train.data.image_set import DataError, ImageSet
from train.data.layout import arrange, some, united
from train.data.pixels import pixels
from train.data.sources import Source, named, opened

SAMPLE = Path(__file__).parent.parent / "sample" / "cifar10-sample.zip"
MAX_BYTES = 2**34
"""Largest size of all decoded images; train.imagenet takes larger sets, decoding them as it goes."""
LOW_CONTRAST = 32
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def load(sources: Sequence[str], split: Split) -> ImageSet:
    """The given split of a data set, decoded once and cached as one uint8 array.

    What is left out, and images that are all one value, are named on standard error.

    Args:
        sources: ``["sample"]`` for the images shipped with the project; ``["cifar10"]`` or ``["cifar100"]`` (fine
            labels) to download these where there is a network; otherwise folders or zip archives that hold
            ``<split>/<class>/<image>`` or Tiny-ImageNet, or folders that hold such archives, of which several are
            united; or one archive or folder of CIFAR (python version).
        split: ``"train"``, or ``"test"`` for a folder named test, testing, val, valid or validation.

    Raises:
        DataError: no images, unreadable ones, several sizes, a class without images, or one that only one of the splits
            has.
    """
    if list(sources) == ["sample"]:
        paths = [SAMPLE]
    elif len(sources) == 1 and sources[0] in TORCHVISION:
        paths = [_downloaded(TORCHVISION[sources[0]])]
    else:
        paths = [path for source in sources for path in named(Path(source))]
    if any(map(cifar_python.is_source, paths)):
        if len(paths) > 1:
            raise DataError(f"data: {some([str(p) for p in paths])}: several with CIFAR; allowed: one of them alone")
        arrays = _cifar(paths[0], split)
    else:
        arrays = _trees(paths, split)
    data = ImageSet(
        torch.from_numpy(arrays["images"]),
        torch.from_numpy(arrays["labels"]),
        tuple(str(name) for name in arrays["classes"]),
    )
    _look_at(data, split, some([str(path) for path in paths]))
    return data


def _trees(paths: Sequence[Path], split: Split) -> dict[str, NDArray[Any]]:
    """Images, labels and class names of folders and zip archives; by class, then by name of the file."""
    parts, shown, entries, read = [], [], [], []
    for index, path in enumerate(paths):
        with opened(path) as source:
            part = arrange(source.names, source.read, str(path))
        parts.append(part)
        shown.append(source.shown)
        entries += [(label, PurePosixPath(member).name, index, member) for label, member in part[split].images]
        read += [path / member for _, member in part[split].images] if path.is_dir() else [path]
    classes = united(parts, split, [str(path) for path in paths], ", ".join(shown))
    for path, part in zip(paths, parts, strict=True):
        if left_out := part[split].reasons():
            say(f"data: {path}: {split}: {len(part[split].images):,} images are read; left out: {left_out}")
    entries.sort()
    numbers = {name: number for number, name in enumerate(classes)}

    def decode() -> dict[str, NDArray[Any]]:
        return {
            "images": _decoded(paths, [(index, member) for _, _, index, member in entries]),
            "labels": np.array([numbers[label] for label, *_ in entries], dtype=np.int64),
            "classes": np.array(classes),
        }

    what = [os.fsencode(f"{label}\0{index}\0{member}") for label, _, index, member in entries]
    return _cached(split, what, read, decode)


def _cifar(path: Path, split: Split) -> dict[str, NDArray[Any]]:
    def decode() -> dict[str, NDArray[Any]]:
        return dict(zip(("images", "labels", "classes"), cifar_python.load(path, split), strict=True))

    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return _cached(split, [b"cifar"], files, decode)


def _cached(
    split: Split, what: Sequence[bytes], files: Sequence[Path], decode: Callable[[], dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """What ``decode`` makes of the files, or made of the same content before."""

    def key() -> str:
        try:
            return f"{split}-{cache.key(what, files)[:24]}"
        except OSError as error:
            raise DataError(f"data: {error.filename} is not readable ({error.strerror})") from None

    before = key()
    arrays = cache.read(before)
    if arrays is None:
        arrays = decode()
        if key() == before:  # else a file was changed meanwhile
            cache.write(before, arrays)
    return arrays


def _decoded(paths: Sequence[Path], members: Sequence[tuple[int, str]]) -> NDArray[np.uint8]:
    """Images (N, H, W, 3), in order, of members of the sources with these numbers."""
    images: NDArray[np.uint8] | None = None
    with ThreadPoolExecutor() as pool:
        for number, path in enumerate(paths):
            places = [place for place, (index, _) in enumerate(members) if index == number]
            if not places:
                continue
            with opened(path) as source:

                def image(place: int, source: Source = source) -> NDArray[np.uint8]:
                    member = members[place][1]
                    return pixels(io.BytesIO(source.read(member)), f"{source.path / member}")

                if images is None:
                    shape = image(places[0]).shape
                    needed = len(members) * math.prod(shape)
                    if needed > MAX_BYTES:
                        raise DataError(f"data: {path}: {needed} bytes of images; allowed: {MAX_BYTES} in all")
                    images = np.empty((len(members), *shape), dtype=np.uint8)
                for place, found in zip(places, pool.map(image, places), strict=True):
                    if found.shape != images.shape[1:]:
                        name = path / members[place][1]
                        raise DataError(
                            f"data: {name} is {found.shape[:2]}; allowed: {images.shape[1:3]} as the others, or "
                            "train.imagenet, which resizes"
                        )
                    images[place] = found
    assert images is not None
    return images


def _downloaded(name: str) -> Path:
    """The archive of CIFAR in the cache folder, fetched where it is not there."""
    from torchvision import datasets

    kind, folder = getattr(datasets, name), cache.folder()
    if folder is None:
        raise DataError(f"data: no folder to download {name} to; allowed: {kind.filename} in place of {name.lower()}")
    path = folder / kind.filename
    if not datasets.utils.check_integrity(str(path), kind.tgz_md5):
        try:
            datasets.utils.download_url(kind.url, str(folder), kind.filename, kind.tgz_md5)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"data: {name} could not be downloaded ({error}); allowed without a network: {kind.filename} there as "
                f"{path}, or --data with that archive or with the folder in it"
            ) from None
    return path


def _look_at(data: ImageSet, split: Split, where: str) -> None:
    """Names images that are all one value, or nearly so, before anything is learned from them."""
    if found := contrast(int(data.images.min()), int(data.images.max())):
        say(f"data: {where}: {split}: all pixels of the {len(data):,} images are {found}")


def contrast(low: int, high: int) -> str:
    """What is odd about images with these least and largest values; empty where nothing is."""
    if low == high:
        return f"one value, {low}"
    return f"from {low} to {high}; scale them to 0 … 255" if high - low < LOW_CONTRAST else ""


def say(text: str) -> None:
    """A line on standard error about the data."""
    print(shown(text, 2000), file=sys.stderr, flush=True)
