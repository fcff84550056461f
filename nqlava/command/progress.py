"""Progress of long work: a bar on terminals, now and then a line elsewhere."""

import sys
import time
from typing import Protocol

from tqdm import tqdm

INTERVAL = 30.0  # seconds between lines, at least


class Progress(Protocol):
    """What both forms can do; use it as a context."""

    def __enter__(self) -> "Progress": ...

    def __exit__(self, *error: object) -> object: ...

    def update(self, count: int) -> object:
        """``count`` more are done."""

    def set_postfix(self, *, refresh: bool = True, **values: str) -> object:
        """Show these values too."""


class Lines:
    """Lines without control characters, for pipes, files and CI; none for work that takes less than the interval."""

    def __init__(self, total: int, unit: str, description: str) -> None:
        self.total, self.unit, self.description = total, unit, description
        self.done, self.values = 0, ""
        self.start = self.shown = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.shown < INTERVAL or not self.done or self.done >= self.total:
            return
        self.shown = now
        spent = now - self.start
        left = spent * (self.total - self.done) / self.done
        print(
            f"{self.description}: {self.done}/{self.total} {self.unit}, {spent:.0f} s, about {left:.0f} s left"
            f"{self.values}",
            file=sys.stderr,
            flush=True,
        )

    def set_postfix(self, *, refresh: bool = True, **values: str) -> None:
        self.values = "".join(f", {name} {value}" for name, value in values.items())


def progress(total: int, unit: str, description: str, *, shown: bool = True) -> Progress:
    """A bar on stderr where that is a terminal, which is erased at the end, and ``Lines`` where it is not.

    ``shown`` is False in processes that shall show nothing.
    """
    if shown and not sys.stderr.isatty():
        return Lines(total, unit, description)
    bar: Progress = tqdm(
        total=total,
        unit=f" {unit}",
        desc=description,
        smoothing=0.1,
        disable=not shown,
        leave=False,
        dynamic_ncols=True,
    )
    return bar
