"""Tables of many columns as text."""

from collections.abc import Sequence

_MOST = 8
_ALL = 16


def wrapped(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns are cells of one width: eight in a row, then the rest below, labels repeated."""
    parts = [columns[start : start + _MOST] for start in range(0, len(columns), _MOST)]
    return [label + "".join(cells) for part in parts for label, *cells in zip(labels, *part, strict=True)]


def steps_shown(steps: int) -> list[int]:
    """Which of the time steps 1 … T a table shows: all, or of more than sixteen the powers of two and the last."""
    chosen = range(1, steps + 1)
    return [step for step in chosen if steps <= _ALL or step & (step - 1) == 0 or step == steps]
