"""Image files in folders and zip archives: listed from their names, decoded when they are asked for."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from nqlava.errors import shown
from train.choices import Split
from train.data.image_set import DataError
from train.data.layout import arrange, united
from train.data.sources import Source, opened

_Found = TypeVar("_Found")
Decode = Callable[[IO[bytes], str], _Found]
"""Makes something of an open image file and its name."""


@dataclass(frozen=True)
class Files:
    """Image files of one split, by class, then by name of the file.

    Attributes:
        sources: folders and archives.
        members: of every image the number of its source, and its name there.
        labels: int64 (N,), indices into ``classes``.
        classes: class names in label order.
    """

    sources: tuple[Path, ...]
    members: tuple[tuple[int, str], ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        """Of an image, for messages."""
        number, member = self.members[index]
        return f"{self.sources[number] / member}"

    def key(self) -> list[bytes]:
        """What names and labels the images have."""
        return [
            os.fsencode(f"{self.classes[label]}\0{number}\0{member}")
            for label, (number, member) in zip(self.labels, self.members, strict=True)
        ]

    def read(self) -> list[Path]:
        """The files on disk that hold the images."""
        archives = {number for number, path in enumerate(self.sources) if not path.is_dir()}
        images = [self.sources[number] / member for number, member in self.members if number not in archives]
        return [*(self.sources[number] for number in sorted(archives)), *images]

    def decoded(self, chosen: Sequence[int], decode: "Decode[_Found]") -> Iterator[tuple[int, _Found]]:
        """What ``decode`` makes of each chosen image, with its place in ``chosen``; source by source."""

        def one(source: Source, index: int) -> _Found:
            try:
                return decode(io.BytesIO(source.read(self.members[index][1])), self.name(index))
            except DataError as error:
                found = str(error)
            raise DataError(found)  # without the frames of the other, which hold the file

        with ThreadPoolExecutor() as pool:
            for number, path in enumerate(self.sources):
                places = [place for place, index in enumerate(chosen) if self.members[index][0] == number]
                if places:
                    with opened(path) as source:
                        yield from zip(places, pool.map(partial(one, source), [chosen[p] for p in places]), strict=True)


def list_files(paths: Sequence[Path], split: Split) -> Files:
    """The image files of a split; what is left out is named on standard error.

    Raises:
        DataError: no images, a class without images, or one that only one of the splits has.
    """
    parts, contents, entries = [], [], []
    for number, path in enumerate(paths):
        with opened(path) as source:
            part = arrange(source.names, source.read, str(path))
        parts.append(part)
        contents.append(source.shown)
        entries += [(label, PurePosixPath(member).name, number, member) for label, member in part[split].images]
    classes = united(parts, split, [str(path) for path in paths], ", ".join(contents))
    for path, part in zip(paths, parts, strict=True):
        if left_out := part[split].reasons():
            say(f"data: {path}: {split}: {len(part[split].images):,} images are read; left out: {left_out}")
    entries.sort()
    labels = {name: label for label, name in enumerate(classes)}
    return Files(
        tuple(paths),
        tuple((number, member) for _, _, number, member in entries),
        np.array([labels[label] for label, *_ in entries], dtype=np.int64),
        tuple(classes),
    )


def say(text: str) -> None:
    """A line on standard error about the data."""
    print(shown(text, 2000), file=sys.stderr, flush=True)
