"""Small images of one size, from every source that --data names: decoded once, in memory."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from train.choices import Split
from train.data import cache, cifar_python
from train.data.files import Files, list_files, say
from train.data.image_set import DataError, ImageSet
from train.data.layout import some
from train.data.pixels import pixels
from train.data.sources import named

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
    paths = places(sources)
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
    look_at(data, split, some([str(path) for path in paths]))
    return data


def places(sources: Sequence[str]) -> list[Path]:
    """The folders and archives that ``sources`` of ``load`` name."""
    if list(sources) == ["sample"]:
        return [SAMPLE]
    if len(sources) == 1 and sources[0] in TORCHVISION:
        return [_downloaded(TORCHVISION[sources[0]])]
    return [path for source in sources for path in named(Path(source))]


def _trees(paths: Sequence[Path], split: Split) -> dict[str, NDArray[Any]]:
    """Images, labels and class names of folders and zip archives; by class, then by name of the file."""
    files = list_files(paths, split)

    def decode() -> dict[str, NDArray[Any]]:
        return {"images": _decoded(files), "labels": files.labels, "classes": np.array(files.classes)}

    return _cached(split, files.key(), files.read(), decode)


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


def _decoded(files: Files) -> NDArray[np.uint8]:
    """Images (N, H, W, 3), in order."""
    images: NDArray[np.uint8] | None = None
    for place, found in files.decoded(range(len(files)), pixels):
        if images is None:
            needed = len(files) * math.prod(found.shape)
            if needed > MAX_BYTES:
                raise DataError(f"data: {files.sources[0]}: {needed} bytes of images; allowed: {MAX_BYTES} in all")
            images = np.empty((len(files), *found.shape), dtype=np.uint8)
        if found.shape != images.shape[1:]:
            raise DataError(
                f"data: {files.name(place)} is {found.shape[:2]}; allowed: {images.shape[1:3]} as the others, or "
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


def look_at(data: ImageSet, split: Split, where: str) -> None:
    """Names images that are all one value, or nearly so, before anything is learned from them."""
    if found := contrast(int(data.images.min()), int(data.images.max())):
        say(f"data: {where}: {split}: all pixels of the {len(data):,} images are {found}")


def contrast(low: int, high: int) -> str:
    """What is odd about images with these least and largest values; empty where nothing is."""
    if low == high:
        return f"one value, {low}"
    return f"from {low} to {high}; scale them to 0 … 255" if high - low < LOW_CONTRAST else ""
