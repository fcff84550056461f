"""The report of ``python -m deploy.fit`` as text, at most WIDTH columns wide."""

import textwrap
from collections.abc import Iterable, Sequence

from deploy.fit import chips
from deploy.fit.activity import Activity
from deploy.fit.report import ASSUMPTIONS, ChipFit, Report, changes, number, whole_bytes

WIDTH = 120
_NAME = 24


def lines(report: Report) -> Iterable[str]:
    """The report as text."""
    for fit in report.fits:
        yield from _wrap(fit.verdict())
    yield ""
    yield from _network_lines(report)
    for fit in report.fits:
        yield ""
        yield from _chip_lines(fit)
    yield ""
    if report.activity is None:
        yield "Activity and energy: not measured (--samples 0)."
    else:
        yield from _activity_lines(report, report.activity)
        yield ""
        yield from _energy_lines(report)
    yield ""
    yield from _source_lines(report)


def _network_lines(report: Report) -> Iterable[str]:
    rows = report.layers()
    total = sum(row["synapses"] for row in rows)
    neurons = sum(row["neurons"] for row in rows)
    yield from _wrap(
        f"{report.net}: {len(rows)} layers, {neurons:,} neurons, {total:,} synapses, "
        f"network {report.network.digest()[:16]}"
    )
    bits_of = ["/".join(map(str, dict.fromkeys(one["bits"] for one in row["connections"]))) for row in rows]
    yield from _table(
        ("layer", "shape", "neurons", "fan-in", "fan-out", "synapses", "bits", "KiB shared", "KiB expanded"),
        [
            (
                row["name"],
                "x".join(map(str, row["shape"])),
                f"{row['neurons']:,}",
                f"{row['fan_in']:,}",
                f"{row['fan_out']:,}",
                f"{row['synapses']:,}",
                bits,
                f"{row['memory_bytes_shared'] / 1024:,.1f}",
                f"{row['memory_bytes_expanded'] / 1024:,.1f}",
            )
            for row, bits in zip(rows, bits_of, strict=True)
        ],
    )
    if any("/" in bits for bits in bits_of):
        yield from _wrap("bits: of the weights, every width among the connections onto the layer once")
    delay = max(one["delay_steps"] for row in rows for one in row["connections"])
    if delay:
        yield from _wrap(f"shortcuts hold spikes back by up to {number(delay, 'time step')}")


def _activity_lines(report: Report, activity: Activity) -> Iterable[str]:
    n = activity.samples
    yield f"Activity: {n:,} images of {' '.join(report.data)}, T = {activity.steps}; per image"
    yield from _table(
        ("layer", "spikes", "spikes/neuron/step", "synaptic operations", "image MACs", "updates"),
        [
            (
                one.name,
                f"{one.spikes / n:,.1f}",
                f"{one.spikes / one.updates:.4f}",
                f"{sum(one.operations) / n:,.1f}",
                f"{one.image_operations / n:,.1f}",
                f"{one.updates / n:,.0f}",
            )
            for one in activity.layers
        ]
        + [
            (
                "sum",
                f"{activity.spikes / n:,.1f}",
                "",
                f"{activity.operations / n:,.1f}",
                f"{activity.image_operations / n:,.1f}",
                f"{activity.updates / n:,.0f}",
            )
        ],
    )
    yield from _wrap(
        "synaptic operations: by spikes, onto the layer. image MACs: the image's constant current, once per image "
        "(graded input, pixels that are not 0)."
    )


def _energy_lines(report: Report) -> Iterable[str]:
    yield "Energy, microjoules per image (estimates from published figures per operation, not measurements)"
    groups = (("Loihi 1 (pre-silicon, 0.75 V)", report.loihi1), ("45 nm CMOS, arithmetic only", report.cmos))
    for title, group in groups:
        if group:
            yield f"  {title}"
        for one in group:
            figure = f"{one.low:,.4g}" if one.low == one.high else f"{one.low:,.4g} to {one.high:,.4g}"
            yield from _wrap(f"    {one.name}: {figure}  ({one.how})", indent=6)
    if any(fit.chip is chips.LOIHI2 for fit in report.fits):
        yield "  Loihi 2: there is no public figure of the energy per operation"


def _source_lines(report: Report) -> Iterable[str]:
    yield "Assumptions (docs/fit.md) and sources"
    for text in ASSUMPTIONS:
        yield from _wrap(f"  {text}", indent=4)
    for source in report.sources():
        yield from _wrap(f"  [{source}]", indent=4)


def _chip_lines(fit: ChipFit) -> Iterable[str]:
    chip = fit.chip
    axons = "no public limit of axons"
    if chip.input_axons is not None:
        axons = f"{chip.input_axons:,} input and {chip.output_axons:,} output axons"
    yield from _wrap(
        f"{chip.name}: {chip.cores} cores per chip; per core {chip.compartments:,} {chip.places}, "
        f"{chip.memory_bytes // 1024} KiB synaptic memory, {axons}"
    )
    both = [fit.partitions["shared"], fit.partitions["expanded"]]
    rows = []
    for index, part in enumerate(fit.assumed.parts):
        use = part.use
        rows.append(
            (
                part.name,
                *(f"{one.parts[index].cores:,}" if one.parts[index].cores else "none fit" for one in both),
                "x".join(map(str, part.tiling.box)),
                f"{use.neurons.max():,}",
                f"{whole_bytes(int(use.memory_bits.max())) / 1024:,.1f}",
                f"{use.input_axons.max():,}",
                f"{use.output_axons.max():,}",
                part.used_most[0],
                percent(part.used_most[1]),
            )
        )
    rows.append(("sum", *(f"{one.cores:,}" for one in both), "", "", "", "", "", "", ""))
    yield from _table(
        ("layer", "shared", "expanded", "box", "neurons", "KiB", "in", "out", "binding limit", "used"), rows
    )
    yield from _wrap(
        f"shared, expanded: cores. The rest: the core that needs most, {fit.storage}. Chips: shared {both[0].chips:,}, "
        f"expanded {both[1].chips:,}. in, out: axons."
    )
    for text in changes(fit):
        yield from _wrap(f"  - {text}", indent=4)


def percent(fraction: float) -> str:
    """The fraction of a limit in whole per cent; what is above the limit never reads as 100%."""
    shown = f"{fraction:.0%}"
    return ">100%" if fraction > 1 and shown == "100%" else shown


def _wrap(text: str, indent: int = 2) -> Iterable[str]:
    """The text in lines of at most WIDTH columns, all but the first indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns two blanks apart, the first to the left; long names lose their middle."""
    cut = [(_shorten(row[0]), *row[1:]) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    for row in cut:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  " + "  ".join(cells).rstrip()


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[1 - _NAME // 2 :]}"
