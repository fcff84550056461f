"""Results as tables in Markdown."""

from collections.abc import Mapping, Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with one line per row."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def significant(value: float) -> str:
    """Three significant digits, and all of those before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_spread(values: Mapping[str, float]) -> str:
    """Median (min … max)."""
    median, least, most = (significant(values[key]) for key in ("median", "min", "max"))
    return f"{median} ({least} … {most})"
