"""The entries of a network's info that deployment uses; all others are notes for people (docs/format.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from nqlava.errors import InputError

Value = str | int | float

STEPS = (1, 4096)
"""Least and largest T."""
_DEFAULT_STEPS = 4


@dataclass(frozen=True)
class Info:
    """Where a network comes from; None for what its file does not say.

    Attributes:
        steps: T that it was exported for.
        classes: their names.
        source: path of the model file, relative to the folder of the netx file; the name alone of a shipped model.
        source_sha256: SHA-256 of the model file.
        original_accuracy: of the network that it was converted from, in percent, on training images.
    """

    steps: int | None = None
    classes: tuple[str, ...] | None = None
    source: str | None = None
    source_sha256: str | None = None
    original_accuracy: float | None = None

    @classmethod
    def of(cls, entries: Mapping[str, Value]) -> "Info":
        """Read the info of a network; InputError names an entry that is not usable."""
        steps = entries.get("T")
        if steps is not None:
            _check("info: T", steps)
        try:
            classes = json.loads(str(entries.get("classes", "null")))
        except (json.JSONDecodeError, RecursionError):
            classes = ""
        if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise InputError("info: classes is no list of names; export the network again")
        source, digest, accuracy = (entries.get(key) for key in ("source", "source_sha256", "original_accuracy"))
        return cls(
            None if steps is None else int(steps),
            None if classes is None else tuple(classes),
            source if isinstance(source, str) else None,
            digest if isinstance(digest, str) else None,
            accuracy if isinstance(accuracy, float) and 0 <= accuracy <= 100 else None,
        )

    def entries(self) -> dict[str, Value]:
        """What ``of`` reads."""
        classes = None if self.classes is None else json.dumps(self.classes)
        found = {
            "T": self.steps,
            "classes": classes,
            "source": self.source,
            "source_sha256": self.source_sha256,
            "original_accuracy": self.original_accuracy,
        }
        return {key: value for key, value in found.items() if value is not None}

    def steps_or(self, asked: int | None) -> int:
        """T of a run: that asked for, else that of the file, else 4; InputError where ``asked`` is out of range."""
        if asked is not None:
            _check("T", asked)
        return asked or self.steps or _DEFAULT_STEPS


def _check(name: str, steps: object) -> None:
    low, high = STEPS
    if not (isinstance(steps, int) and low <= steps <= high):
        raise InputError(f"{name} is {steps!r}; allowed: {low}..{high}")
