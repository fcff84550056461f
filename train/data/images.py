"""Images as uint8 arrays: class folders, zip archives, Tiny-ImageNet, torchvision's CIFAR, or the embedded sample."""

import hashlib
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from platformdirs import user_cache_path
from torch import Tensor

from nqlava.command.files import open_regular, replacing, write_npz
from nqlava.errors import InputError
from train.choices import MAX_SEED, MAX_SIDE, Split

SAMPLE = Path(__file__).parent.parent / "sample" / "cifar10-sample.zip"
SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp"}
FORMATS = ("WEBP", "PNG", "JPEG", "BMP")  # whatever the suffix says: Pillow runs other programs for some formats
MAX_FILE_BYTES = 64 * 2**20
MAX_BYTES = 2**34
"""Largest size of all decoded images; train.imagenet takes larger sets, decoding them as it goes."""

# Names of a split's folder; of several that hold class folders the first counts.
FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val", "validation")}
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
TINY_LABELS = ("val", "val_annotations.txt")

# Makes training images, uint8 (N, C, H, W) channels-last in memory, of uint8 (N, H, W, C) and their indices (N,); the
# generator is on the CPU.
Augment = Callable[[Tensor, Tensor, torch.Generator], Tensor]
Batches = Generator[tuple[Tensor, Tensor], None, None]  # images and labels


# What zipfile raises on damaged archives, RuntimeError on encrypted ones, ValueError on names.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


class DataError(InputError):
    """Unusable image data: the message names the place and what is expected."""


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: int64 (N,), indices into ``classes``.
        classes: class names in label order.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as a network gets it."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images as engines take them: uint8 (N, C, H, W), a view."""
        pixels: NDArray[np.uint8] = self.images.numpy().transpose(0, 3, 1, 2)
        return pixels

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def subset(self, indices: Tensor) -> "ImageSet":
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def digest(self) -> str:
        """SHA-256 over classes, labels and images."""
        sha = hashlib.sha256(repr((self.classes, tuple(self.images.shape))).encode())
        for values in (self.labels, self.images):
            sha.update(values.cpu().contiguous().numpy())
        return sha.hexdigest()

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)

    def batches(self, size: int) -> Batches:
        """Images as uint8 (N, C, H, W), channels-last in memory, and labels, in order."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size].permute(0, 3, 1, 2), self.labels[start : start + size]

    def training_batches(self, order: Tensor, batch: int, generator: torch.Generator, augment: Augment) -> Batches:
        """Augmented images as uint8 (N, C, H, W) and labels, in the given order, in complete batches only.

        A batch is made when it is asked for, so that its draws from the generator come behind those that the caller
        made for the batches before.

        Args:
            order: indices, on the CPU.
            batch: N; what is left of ``order`` at the end is left out.
            generator: a CPU generator, for ``augment``.
            augment: makes training images of uint8 (N, H, W, C) and their indices.
        """
        for start in range(0, len(order) - batch + 1, batch):
            indices = order[start : start + batch]
            chosen = indices.to(self.device)
            yield augment(self.images[chosen], indices, generator), self.labels[chosen]

    def split(self, held_out: int, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(rest, held-out part), a random split decided by the seed."""
        rest, chosen = split_indices(len(self), held_out, seed)
        return self.subset(rest), self.subset(chosen)

    def sample(self, count: int, seed: int) -> "ImageSet":
        """``count`` images drawn without replacement, decided by the seed."""
        if not 1 <= count <= len(self):
            raise DataError(f"samples is {count}; allowed: 1..{len(self)}")
        if not 0 <= seed <= MAX_SEED:
            raise DataError(f"seed is {seed}; allowed: 0..{MAX_SEED}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:count])


def split_indices(count: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """(rest, held-out part) of 0 … count - 1 in random order, decided by the seed."""
    if not 1 <= held_out < count:
        raise DataError(f"validation: {held_out} images held out; allowed: 1..{count - 1}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:], order[:held_out]


def load(sources: Sequence[str], split: Split) -> ImageSet:
    """The given split of a data set, decoded once and cached as one uint8 array.

    Args:
        sources: ``["sample"]`` for the images shipped with the project; ``["cifar10"]`` or ``["cifar100"]`` (fine
            labels) for torchvision's, downloaded where there is a network; otherwise folders or zip archives that hold
            ``<split>/<class>/<image>`` or Tiny-ImageNet, or folders that hold such archives; several are united.
        split: ``"train"``, or ``"test"`` for the folder test, val or validation.

    Raises:
        DataError: no images, unreadable ones, several sizes, or a class that only one of the splits has.
    """
    if len(sources) == 1 and sources[0] in TORCHVISION:
        return _torchvision(TORCHVISION[sources[0]], split)
    try:
        paths = [SAMPLE] if list(sources) == ["sample"] else [p for s in sources for p in _archives(Path(s))]
        cached = _cache_file(paths, split)
    except OSError as error:
        raise DataError(f"data: {error.filename} is not readable ({error.strerror})") from None
    try:
        with cached.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels, classes = arrays["images"], arrays["labels"], arrays["classes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        images, labels, classes = _decode(paths, split)
        _store(cached, images=images, labels=labels, classes=classes)
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), tuple(str(name) for name in classes))


def _archives(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        names = ", ".join(f"'{name}'" for name in ("sample", *TORCHVISION))
        raise DataError(f"data: {path} does not exist; allowed: {names}, a folder or a zip archive")
    if any((path / top).is_dir() for tops in FOLDERS.values() for top in tops):
        return [path]
    archives = sorted(file for file in path.iterdir() if file.suffix.lower() == ".zip")
    if not archives:
        raise DataError(f"data: {path} holds neither train/ or test/ folders nor zip archives")
    return archives


def _cache_file(paths: Sequence[Path], split: Split) -> Path:
    key = hashlib.sha256(split.encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(f for top in FOLDERS[split] for f in (path / top).rglob("*"))
        for file in files:
            status = file.stat()
            key.update(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return user_cache_path("nq-lava") / f"{split}-{key.hexdigest()[:24]}.npz"


def _store(path: Path, **arrays: NDArray) -> None:
    """Write the cache; one that cannot be written is only slower."""
    with suppress(OSError), replacing(path) as file:
        write_npz(file, arrays)


def _decode(paths: Sequence[Path], split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]:
    found: list[tuple[str, str, NDArray[np.uint8]]] = []
    classes: dict[Split, set[str]] = {"train": set(), "test": set()}
    size: tuple[int, int] | None = None
    needed = 0
    with ThreadPoolExecutor() as pool:
        for path in paths:
            with _opened(path) as (names, read):
                listed = {key: _labelled(path, names, key, read) for key in classes}
                members = [member for _, member in listed[split]]
                if members:
                    size = size or _size(path / members[0], read(members[0]))
                    needed += len(members) * size[0] * size[1] * 3
                    if needed > MAX_BYTES:
                        raise DataError(f"data: {path}: {needed} bytes of images; allowed: {MAX_BYTES} in all")
                    images = pool.map(partial(_image, path=path, read=read, size=size), members)
                    found += [(name, file, image) for (name, file), image in zip(listed[split], images, strict=True)]
            for key in classes:
                classes[key].update(name for name, _ in listed[key])
    where = _some([str(path) for path in paths])
    if not found:
        raise DataError(f"data: no {split}/<class>/<image> in {where}")
    if all(classes.values()):
        check_classes(sorted(classes["train"]), sorted(classes["test"]), where)
    found.sort(key=lambda entry: (entry[0], PurePosixPath(entry[1]).name))
    number = {name: index for index, name in enumerate(sorted(classes[split]))}
    labels = np.array([number[name] for name, _, _ in found], dtype=np.int64)
    return np.stack([image for _, _, image in found]), labels, np.array(list(number))


def check_classes(train: Sequence[str], test: Sequence[str], where: str) -> None:
    """DataError where the class names of the two splits, both sorted, differ: labels would then mean something else."""
    if train != test:
        lonely = min(set(train) ^ set(test))
        raise DataError(
            f"data: {where}: test has classes {_some(test)}; allowed: {_some(train)} as in train "
            f"({lonely} is in one of them)"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])}, … ({len(names)})"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names of the files in a folder or archive, and what reads one in memory; nothing is unpacked to disk."""
    with _checked(path):
        is_folder = path.is_dir()
    if is_folder:
        places = [f"{top}/*/*" for tops in FOLDERS.values() for top in tops]
        with _checked(path):
            names = [
                f.relative_to(path).as_posix()
                for place in [*places, "/".join(TINY_LABELS), "train/*/images/*"]
                for f in sorted(path.glob(place))
            ]
        yield names, partial(_bytes_of, path)
        return
    with ExitStack() as opened:
        with _checked(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}

        def read(name: str) -> bytes:
            if sizes[name] > MAX_FILE_BYTES:
                raise DataError(f"data: {path}: {name} is larger than {MAX_FILE_BYTES} bytes")
            with _checked(path):
                return archive.read(name)

        yield list(sizes), read


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    """DataError for what the system or zipfile raises while it reads the folder or archive ``path``."""
    try:
        yield
    except _UNREADABLE as error:
        raise DataError(f"data: {path} is not readable ({str(error) or type(error).__name__})") from None


def _bytes_of(folder: Path, name: str) -> bytes:
    try:
        with open_regular(folder / name, MAX_FILE_BYTES) as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"data: {folder / name} is not readable ({error.strerror})") from None


def _labelled(path: Path, names: Iterable[str], split: Split, read: Callable[[str], bytes]) -> list[tuple[str, str]]:
    """(class, member) of the split's images among the files of a folder or archive ``path``."""
    files = {PurePosixPath(name): name for name in names}
    tiny = next((file for file in files if file.parts[-2:] == TINY_LABELS), None)
    images = {file: name for file, name in files.items() if file.suffix.lower() in SUFFIXES}
    if tiny is not None:
        return _tiny_imagenet(path, images, split, tiny, read(files[tiny]))
    for top in FOLDERS[split]:
        found = [(f.parts[1], name) for f, name in images.items() if len(f.parts) == 3 and f.parts[0] == top]
        if found:
            return found
    return []


def _tiny_imagenet(
    path: Path, images: Mapping[PurePosixPath, str], split: Split, annotations: PurePosixPath, lines: bytes
) -> list[tuple[str, str]]:
    """(class, member) in Tiny-ImageNet as distributed; its test images have no labels, so that test is its val."""
    root = annotations.parent.parent
    if split == "train":
        folders = [(file.parts, name) for file, name in images.items() if file.parent.parent.parent == root / "train"]
        return [(parts[-3], name) for parts, name in folders if parts[-2] == "images"]
    folder, labels = annotations.parent / "images", {}
    for number, line in enumerate(lines.decode(errors="replace").splitlines(), 1):
        file_name, *rest = line.split("\t")
        if not rest:
            raise DataError(
                f"data: {path / annotations}: line {number} is {line[:80]!r}; allowed: file, class, box, by tabs"
            )
        labels[folder / file_name] = rest[0]
    found = {file: name for file, name in images.items() if file.parent == folder}
    if labels.keys() != found.keys():
        file = min(labels.keys() ^ found.keys())
        raise DataError(f"data: {path / file} is in one of {annotations} and {folder}; allowed: in both")
    return [(labels[file], name) for file, name in found.items()]


@contextmanager
def opened_image(file: IO[bytes] | Path, name: str) -> Iterator[Image.Image]:
    """An image that Pillow recognises; DataError with the given name for any other. ``decoding`` is for its pixels."""
    with ExitStack() as opened:
        with decoding(name):
            stream = opened.enter_context(open_regular(file)) if isinstance(file, Path) else file
            image = opened.enter_context(Image.open(stream, formats=FORMATS))
        yield image


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """DataError with the given name for whatever Pillow raises on an image."""
    try:
        yield
    except UnidentifiedImageError:
        raise DataError(f"data: {name} is not a readable image; allowed: {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError, struct.error, ... on damaged images
        raise DataError(f"data: {name} is not a readable image ({error})") from None


def _size(name: Path, data: bytes) -> tuple[int, int]:
    """(H, W) of an image, which is not decoded."""
    with opened_image(io.BytesIO(data), str(name)) as image:
        if max(image.size) > MAX_SIDE:
            raise DataError(f"data: {name} is {image.size}; allowed: sides up to {MAX_SIDE}")
        return image.height, image.width


def _image(member: str, *, path: Path, read: Callable[[str], bytes], size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of an image of this (H, W) in the folder or archive ``path``."""
    name = str(path / member)
    with opened_image(io.BytesIO(read(member)), name) as image:
        found = (image.height, image.width)
        if found != size:
            raise DataError(f"data: {name} is {found}; allowed: {size} as the others")
        with decoding(name):
            return np.asarray(image.convert("RGB"))


def _torchvision(name: str, split: Split) -> ImageSet:
    from torchvision import datasets

    try:
        data = getattr(datasets, name)(str(user_cache_path("nq-lava")), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"data: {name} could not be downloaded ({error}); give a folder or archives instead") from None
    return ImageSet(torch.from_numpy(data.data), torch.tensor(data.targets), tuple(data.classes))
