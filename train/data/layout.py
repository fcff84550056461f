"""Which files of a data set are images of which class, and what is left out, from their names alone."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from train.choices import Split
from train.data.image_set import DataError
from train.data.pixels import ALLOWED, SUFFIXES

# Names of a split's folder, in any case; of several that hold class folders the first counts.
FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
TOPS = frozenset(name for names in FOLDERS.values() for name in names)
TINY_LABELS = ("val", "val_annotations.txt")
# What systems and editors leave in folders, beside names that begin with a dot.
_LITTER = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found"}

Member = tuple[str, str]  # class, name of the file


@dataclass
class Listed:
    """The images of one split.

    Attributes:
        images: class and name of every image.
        classes: names of the class folders, those without images included.
        left_out: by reason, files that are not read; by class where they lie in its folder, else under "".
    """

    images: list[Member] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)

    def leave_out(self, name: str, reason: str, count: int = 1) -> None:
        self.left_out.setdefault(name, Counter())[reason] += count

    def reasons(self) -> str:
        """Such as "40 .xyz, 2 hidden"; empty where nothing was left out."""
        return _reasons(sum(self.left_out.values(), Counter()))


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])))


@lru_cache(4096)
def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one that systems and editors leave behind."""
    return name.startswith((".", "~$")) or name.casefold() in _LITTER


@lru_cache(4096)
def class_name(folder: str) -> str:
    """The name of a class: Unicode's form C, so that equal letters are equal; bytes that are no UTF-8 are escaped."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "backslashreplace"))


def arrange(names: Iterable[str], read: Callable[[str], bytes], where: str) -> dict[Split, Listed]:
    """The images of both splits.

    Args:
        names: of the files in the data set, with slashes; those of folders, which are optional, end with one.
        read: the content of a file.
        where: the data set in messages.

    Raises:
        DataError: a list of labels that does not fit.
    """
    split_names = [tuple(name.split("/")) for name in names]
    safe = [parts for parts in split_names if parts[0] and ".." not in parts]
    depth = _depth(safe)
    tops: dict[str, list[tuple[str, ...]]] = {}
    for parts in safe:
        if len(parts) > depth + 1:
            tops.setdefault(parts[depth], []).append(parts)
    tiny = next((parts for parts in tops.get("val", []) if parts[depth:] == TINY_LABELS), None)
    if tiny is not None:
        return _tiny_imagenet(tops, depth, tiny, read, where)
    return {split: _first_with_classes(tops, FOLDERS[split], depth) for split in FOLDERS}


def _depth(names: Sequence[tuple[str, ...]]) -> int:
    """Number of folders around everything: none of them is the folder of a split."""
    depth = 0
    while True:
        names = [parts for parts in names if len(parts) > depth + 1 and not is_litter(parts[depth])]
        folders = {parts[depth] for parts in names}
        if len(folders) != 1 or next(iter(folders)).casefold() in TOPS:
            return depth
        depth += 1


def _first_with_classes(tops: Mapping[str, Sequence[tuple[str, ...]]], candidates: Sequence[str], depth: int) -> Listed:
    """The first of the folders of a split that holds images, else that holds folders; the others are left out."""
    chosen_names = [top for name in candidates for top in sorted(tops) if top.casefold() == name]
    found = {top: _classes(tops[top], depth) for top in chosen_names}
    chosen = next((top for top in found if found[top].images), None)
    if chosen is None:
        return next((listed for listed in found.values() if listed.classes), Listed())
    for top, listed in found.items():
        if top != chosen and listed.images:
            found[chosen].leave_out("", f"in {top}/, as {chosen}/ counts", len(listed.images))
    return found[chosen]


def _classes(names: Sequence[tuple[str, ...]], depth: int) -> Listed:
    listed = Listed()
    for parts in names:
        *folders, name = parts[depth + 1 :]
        hidden = any(map(is_litter, folders)) or is_litter(name)
        label = "" if not folders or is_litter(folders[0]) else class_name(folders[0])
        if label:
            listed.classes.add(label)
        if not name:  # a folder
            continue
        if hidden:
            listed.leave_out(label, "hidden")
        elif not folders:
            listed.leave_out("", "outside of class folders")
        elif len(folders) > 1:
            listed.leave_out(label, "in folders of a class folder")
        elif (suffix := os.path.splitext(name)[1].lower()) in SUFFIXES:
            listed.images.append((label, "/".join(parts)))
        else:
            listed.leave_out(label, suffix or "without a suffix")
    return listed


def _tiny_imagenet(
    tops: Mapping[str, Sequence[tuple[str, ...]]],
    depth: int,
    annotations: tuple[str, ...],
    read: Callable[[str], bytes],
    where: str,
) -> dict[Split, Listed]:
    """Tiny-ImageNet as distributed; its test images have no labels, so that test is its val."""
    train, test = Listed(), Listed()
    for parts in tops.get("train", []):
        if len(parts) == depth + 4 and parts[-2] == "images" and _is_image(parts[-1]):
            train.images.append((class_name(parts[-3]), "/".join(parts)))
    path, folder = "/".join(annotations), "/".join((*annotations[:-1], "images"))
    labels = {}
    for number, line in enumerate(read(path).decode(errors="replace").splitlines(), 1):
        file_name, *rest = line.split("\t")
        if not rest:
            raise DataError(f"data: {where}/{path}: line {number} is {line[:80]!r}; allowed: file, class, box, by tabs")
        labels[f"{folder}/{file_name}"] = rest[0]
    found = {"/".join(p) for p in tops["val"] if "/".join(p[:-1]) == folder and _is_image(p[-1])}
    if labels.keys() != found:
        file = min(labels.keys() ^ found)
        raise DataError(f"data: {where}/{file} is in one of {path} and {folder}; allowed: in both")
    test.images = [(class_name(labels[file]), file) for file in sorted(found)]
    for listed in (train, test):
        listed.classes = {label for label, _ in listed.images}
    return {"train": train, "test": test}


def _is_image(name: str) -> bool:
    return not is_litter(name) and os.path.splitext(name)[1].lower() in SUFFIXES


def united(parts: Sequence[Mapping[Split, Listed]], split: Split, where: Sequence[str], found: str) -> list[str]:
    """Class names of a split, sorted.

    Args:
        parts: of each source.
        split: the one that is read.
        where: the sources in messages.
        found: what is there, for the message where nothing can be read.

    Raises:
        DataError: no images, a class without any, or one that only one of the splits has.
    """
    place = some(where)
    classes = {key: sorted(set().union(*(part[key].classes for part in parts))) for key in FOLDERS}
    full = {label for part in parts for label, _ in part[split].images}
    for label in classes[split]:
        if label not in full:
            left = _reasons(sum((part[split].left_out.get(label, Counter()) for part in parts), Counter()))
            raise DataError(
                f"data: {place}: {split}: class {label} has no images{f' ({left} left out)' if left else ''}; "
                f"allowed: {ALLOWED}, in the folder of the class"
            )
    if not classes[split]:
        names = ", ".join(f"{top}/" for top in FOLDERS[split])
        raise DataError(f"data: no images of {split} in {place} ({found}); allowed: <class>/<image> in {names}")
    if all(classes.values()):
        check_classes(classes["train"], classes["test"], place)
    return classes[split]


def check_classes(train: Sequence[str], test: Sequence[str], where: str) -> None:
    """DataError where the class names of the two splits, both sorted, differ: labels would then mean something else."""
    if train != test:
        lonely = min(set(train) ^ set(test))
        raise DataError(
            f"data: {where}: test has classes {some(test)}; allowed: {some(train)} as in train "
            f"({lonely} is in one of them)"
        )


def some(names: Sequence[str]) -> str:
    """The names, of many the first ten."""
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])}, … ({len(names)})"
