"""How the neurons of a network are split into cores, and what every core needs.

lab/fit.md describes the algorithm. In short: a layer is cut into equal boxes of channels × rows × columns, one box per
core, and no core holds neurons of two layers. Of all box sizes the one with the fewest cores is taken whose cores all
keep within every limit; of equal ones the one with the fewest input axons in total, then the one with the longest box
in channels, then in rows. Layers are cut from the last to the first, because the output axons of a core depend on how
the layers behind it were cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deploy.fit.chips import RESET_SYNAPSE_BITS, Chip
from deploy.fit.wiring import Axis, Shape, Wiring, volume
from nqlava.network import IMAGE, IntegerNetwork

Storage = Literal["shared", "expanded"]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Tiling:
    """A layer cut into boxes.

    Attributes:
        shape: (O, H, W) of the layer.
        box: (channels, rows, columns) of a box; the last one along an axis may be smaller.
    """

    shape: Shape
    box: Shape

    @property
    def grid(self) -> Shape:
        """Boxes along each axis."""
        o, y, x = (-(-size // step) for size, step in zip(self.shape, self.box, strict=True))
        return o, y, x

    @property
    def cores(self) -> int:
        return int(np.prod(self.grid))

    def edges(self, axis: int) -> Counts:
        """First position of each box, and the end."""
        return np.append(np.arange(0, self.shape[axis], self.box[axis]), self.shape[axis])


@dataclass(frozen=True)
class Use:
    """What each core of a layer needs: int64 arrays of the shape of the grid.

    Attributes:
        neurons: placed on the core.
        compartments: that they take.
        synapses: onto them.
        memory_bits: of the weights stored on the core, and of nothing else: a lower bound.
        input_axons: source neurons with a synapse on the core (and one per neuron that resets itself by a synapse).
        output_axons: pairs of a neuron and a core that it sends to (and one per neuron as above).
    """

    neurons: Counts
    compartments: Counts
    synapses: Counts
    memory_bits: Counts
    input_axons: Counts
    output_axons: Counts

    def against(self, chip: Chip) -> tuple[tuple[str, Counts, int], ...]:
        """(name, need per core, what a core has) for every limit that is public."""
        names = (chip.places, "synaptic memory", "input axons", "output axons")
        limits = (chip.compartments, 8 * chip.memory_bytes, chip.input_axons, chip.output_axons)
        needs = (self.compartments, self.memory_bits, self.input_axons, self.output_axons)
        return tuple(
            (name, need, limit) for name, need, limit in zip(names, needs, limits, strict=True) if limit is not None
        )

    def fits(self, chip: Chip) -> bool:
        """Whether no core is above any limit."""
        return all(int(need.max()) <= limit for _, need, limit in self.against(chip))


@dataclass(frozen=True)
class Part:
    """One layer on its cores.

    Attributes:
        name: of the layer.
        tiling: the boxes. Where not even single neurons fit, one box per neuron.
        use: what the cores need.
        lacking: (limit, need of the core that needs most, what a core has) where a single neuron is too much.
        used_most: (limit, fraction) of the limit that some core comes closest to.
    """

    name: str
    tiling: Tiling
    use: Use
    lacking: tuple[str, int, int] | None
    used_most: tuple[str, float]

    @property
    def cores(self) -> int:
        """0 where the layer does not fit on any number of cores."""
        return 0 if self.lacking else self.tiling.cores


@dataclass(frozen=True)
class _Classes:
    """Pairs of a box range and a source position along one axis, sorted by the wirings that join the two.

    Attributes:
        members: bool (classes, wirings), the wirings of each class; every row is different, none is empty.
        counts: (n, classes): of each box range the positions in a class, or of each position the box ranges.
    """

    members: NDArray[np.bool_]
    counts: Counts

    @classmethod
    def of(cls, joined: NDArray[np.bool_], weights: Counts) -> "_Classes":
        """Group the entries of ``joined`` (wirings, n, m), counting along the last axis with the given weights (m,)."""
        length = joined.shape[1]
        at, other = np.nonzero(joined.any(axis=0))
        members, number = np.unique(joined[:, at, other].T, axis=0, return_inverse=True)
        counts = np.zeros((length, len(members)), np.int64)
        np.add.at(counts, (at, number.ravel()), weights[other])
        return cls(members, counts)


class _Reach:
    """The source neurons that boxes of a layer reach from one source, over several wirings: a union of boxes.

    Along each axis, positions joined by the same wirings form a class. A class of channels, one of rows and one of
    columns are all in the union or all outside: inside where some wiring is in all three. So the union is a sum over
    classes, whose number does not grow with the subsets of wirings.
    """

    def __init__(self, wirings: Sequence[Wiring]) -> None:
        kept: list[Wiring] = []
        for wiring in wirings:
            if not any(wiring.within(other) for other in kept):
                kept = [other for other in kept if not other.within(wiring)] + [wiring]
        self.wirings = tuple(kept)
        self._by_box: dict[tuple[int, int], _Classes] = {}

    def sources_of(self, tiling: Tiling) -> Counts:
        """Source neurons that each box reaches, of the shape of the grid."""
        classes = []
        for axis in range(3):
            key = axis, tiling.box[axis]
            if key not in self._by_box:
                joined, sizes = self._joined(tiling, axis)
                self._by_box[key] = _Classes.of(joined, sizes)
            classes.append(self._by_box[key])
        return _union(*classes)

    def boxes_of(self, tiling: Tiling) -> Counts:
        """Boxes that reach each source neuron, of the shape (C, H, W) of the source."""
        classes = []
        for axis in range(3):
            joined, sizes = self._joined(tiling, axis)
            one = _Classes.of(joined.transpose(0, 2, 1), np.ones(joined.shape[1], np.int64))
            classes.append(_Classes(one.members, one.counts.repeat(sizes, axis=0)))
        return _union(*classes)

    def _joined(self, tiling: Tiling, axis: int) -> tuple[NDArray[np.bool_], Counts]:
        """Which wirings join which box ranges to which source positions, (wirings, ranges, m), and the positions each
        of the m stands for: one row or column, or adjacent channels that no range separates."""
        if axis:
            joined = np.stack([_reached(wiring, tiling, axis) for wiring in self.wirings])
            return joined, np.ones(joined.shape[2], np.int64)
        first, end = (
            np.stack(ends)[:, :, None] for ends in zip(*(_channels(w, tiling) for w in self.wirings), strict=True)
        )
        cuts = np.unique([0, self.wirings[0].inputs, *first.ravel(), *end.ravel()])
        return (first <= cuts[:-1]) & (cuts[1:] <= end), np.diff(cuts)


def _union(channels: _Classes, rows: _Classes, columns: _Classes) -> Counts:
    """Σ of the products of the counts over those classes that some wiring has in common, (channels, rows, columns)."""
    across = columns.members.T.astype(np.float32)
    planes = []
    for member in channels.members:
        common = (rows.members & member).astype(np.float32) @ across > 0
        planes.append(rows.counts @ (common @ columns.counts.T))
    return np.tensordot(channels.counts, np.array(planes), axes=1)


def _outer(channels: Counts, rows: Counts, columns: Counts) -> Counts:
    return channels[:, None, None] * rows[:, None] * columns


def _axis(wiring: Wiring, axis: int) -> Axis:
    return wiring.rows if axis == 1 else wiring.columns


def _channels(wiring: Wiring, tiling: Tiling) -> tuple[Counts, Counts]:
    """(first, end) of the source channels that a wiring reaches from each range of output channels."""
    edges = tiling.edges(0)
    return wiring.channels[0][edges[:-1]], wiring.channels[1][edges[1:] - 1]


def _reached(wiring: Wiring, tiling: Tiling, axis: int) -> NDArray[np.bool_]:
    """Positions along an axis that a wiring reaches from each range of rows or columns, (ranges, inputs)."""
    return np.logical_or.reduceat(_axis(wiring, axis).reaches, tiling.edges(axis)[:-1], axis=0)


def _use(wirings: Sequence[Wiring], reaches: Sequence[_Reach], tiling: Tiling, targets: Counts, mode: "_Mode") -> Use:
    """What the boxes of a tiling need; ``targets`` (O, H, W) is the number of cores that each neuron sends to."""
    sizes = [np.diff(tiling.edges(axis)) for axis in range(3)]
    neurons = _outer(*sizes)
    synapses, memory = np.zeros(tiling.grid, np.int64), np.zeros(tiling.grid, np.int64)
    for wiring in wirings:
        axes = [(_axis(wiring, axis).taps, tiling.edges(axis)[:-1]) for axis in (1, 2)]
        rows, columns = (np.add.reduceat(taps.sum(axis=1, dtype=np.int64), starts) for taps, starts in axes)
        onto = _outer(sizes[0] * wiring.inputs_per_group, rows, columns)
        synapses += onto
        if mode.storage == "shared":
            rows, columns = (np.logical_or.reduceat(taps, starts, axis=0).sum(axis=1) for taps, starts in axes)
            onto = _outer(sizes[0] * wiring.inputs_per_group, rows, columns)
        memory += wiring.bits * onto
    axons = np.zeros(tiling.grid, np.int64)
    for reach in reaches:
        axons += reach.sources_of(tiling)
    sent = targets
    for axis in range(3):
        sent = np.add.reduceat(sent, tiling.edges(axis)[:-1], axis=axis)
    if mode.compartments > 1:
        return Use(
            neurons,
            mode.compartments * neurons,
            synapses + neurons,
            memory + RESET_SYNAPSE_BITS * neurons,
            axons + neurons,
            sent + neurons,
        )
    return Use(neurons, neurons, synapses, memory, axons, sent)


@dataclass(frozen=True)
class _Mode:
    """How a layer is stored: its storage, and compartments per neuron."""

    storage: Storage
    compartments: int


def _steps(size: int) -> list[int]:
    """Box lengths ⌈size/n⌉ for every number n of boxes, each once, longest first."""
    return sorted({-(-size // n) for n in range(1, size + 1)}, reverse=True)


def _candidates(shape: Shape, wirings: Sequence[Wiring], mode: _Mode, chip: Chip) -> list[Tiling]:
    """Tilings that may keep within the limits, fewest cores first; a quick bound leaves out what cannot.

    Along each axis a box is at most its largest; the largest of products of such values is the product of the largest,
    for one wiring alone. What this bound admits is checked exactly afterwards.
    """
    steps = [_steps(size) for size in shape]
    bounds = [(_outer(*(np.array(s) for s in steps)) * mode.compartments, chip.compartments)]
    for wiring in wirings:
        uses: list[list[Counts]] = [[], []]  # memory and input axons, by axis
        for axis in range(3):
            memory, axons = [], []
            for step in steps[axis]:
                box: Shape = (step, 1, 1) if axis == 0 else (1, step, 1) if axis == 1 else (1, 1, step)
                tiling = Tiling(shape, box)
                if axis == 0:
                    first, end = _channels(wiring, tiling)
                    memory.append(step * wiring.inputs_per_group * wiring.bits)
                    axons.append(int((end - first).max()))
                    continue
                taps, starts = _axis(wiring, axis).taps, tiling.edges(axis)[:-1]
                if mode.storage == "shared":
                    memory.append(int(np.logical_or.reduceat(taps, starts, axis=0).sum(axis=1).max()))
                else:
                    memory.append(int(np.add.reduceat(taps.sum(axis=1, dtype=np.int64), starts).max()))
                axons.append(int(_reached(wiring, tiling, axis).sum(axis=1).max()))
            uses[0].append(np.array(memory, np.int64))
            uses[1].append(np.array(axons, np.int64))
        bounds.append((_outer(*uses[0]), 8 * chip.memory_bytes))
        if chip.input_axons is not None:
            bounds.append((_outer(*uses[1]), chip.input_axons))
    possible = np.logical_and.reduce([need <= limit for need, limit in bounds])
    found = [Tiling(shape, (steps[0][o], steps[1][y], steps[2][x])) for o, y, x in np.argwhere(possible).tolist()]
    return sorted(found, key=lambda tiling: tiling.cores)


def _place(name: str, shape: Shape, wirings: Sequence[Wiring], targets: Counts, mode: _Mode, chip: Chip) -> Part:
    """One layer on the fewest cores, as the module's docstring says."""
    by_source: dict[str, list[Wiring]] = {}
    for wiring in wirings:
        by_source.setdefault(wiring.source, []).append(wiring)
    reaches = [_Reach(several) for several in by_source.values()]
    best: tuple[Tiling, Use] | None = None
    for tiling in _candidates(shape, wirings, mode, chip):
        if best is not None and tiling.cores > best[0].cores:
            break
        use = _use(wirings, reaches, tiling, targets, mode)
        if use.fits(chip) and (best is None or use.input_axons.sum() < best[1].input_axons.sum()):
            best = tiling, use
    lacking = None
    if best is None:
        tiling = Tiling(shape, (1, 1, 1))
        best = tiling, _use(wirings, reaches, tiling, targets, mode)
        needs = [(limit, int(need.max()), has) for limit, need, has in best[1].against(chip)]
        lacking = max(needs, key=lambda one: one[1] / one[2])
    fractions = [(limit, float(need.max() / has)) for limit, need, has in best[1].against(chip)]
    return Part(name, *best, lacking, max(fractions, key=lambda one: one[1]))


@dataclass(frozen=True)
class Partition:
    """A network on the cores of one chip, or of several.

    Attributes:
        chip: the chip.
        storage: "shared": a core stores each weight of a convolution once; "expanded": once per synapse.
        parts: per layer.
        targets: by the name of a source, int64 of its shape: the number of cores that each of its neurons sends to,
            not counting itself. What lacks room on every core counts as one core.
    """

    chip: Chip
    storage: Storage
    parts: tuple[Part, ...]
    targets: Mapping[str, Counts]

    @cached_property
    def cores(self) -> int:
        """Cores of the layers that fit."""
        return sum(part.cores for part in self.parts)

    @property
    def chips(self) -> int:
        return -(-self.cores // self.chip.cores)

    @property
    def lacking(self) -> tuple[Part, ...]:
        """Layers that fit on no number of cores."""
        return tuple(part for part in self.parts if part.lacking)

    @property
    def largest(self) -> Part:
        """The layer on the most cores."""
        return max(self.parts, key=lambda part: part.cores)


def partition(
    network: IntegerNetwork, wired: Mapping[str, Sequence[Wiring]], chip: Chip, storage: Storage
) -> Partition:
    """Splits the network into cores.

    Args:
        network: the network.
        wired: its wirings, as ``deploy.fit.wiring.wire`` returns them.
        chip: whose limits hold.
        storage: see Partition.
    """
    targets = {name: np.zeros(volume(shape), np.int64) for name, shape in network.shape_of.items()}
    parts = []
    for layer in reversed(network.layers):
        on_chip = [one for one in wired[layer.name] if chip.graded_input or one.source != IMAGE]
        soft = layer.reset == "soft" and not layer.is_readout
        mode = _Mode(storage, chip.soft_reset_compartments if soft else 1)
        shape = volume(network.shape_of[layer.name])
        part = _place(layer.name, shape, on_chip, targets[layer.name], mode, chip)
        parts.append(part)
        tiling = Tiling(shape, shape) if part.lacking else part.tiling
        for source in dict.fromkeys(one.source for one in on_chip):
            targets[source] += _Reach([one for one in on_chip if one.source == source]).boxes_of(tiling)
    return Partition(chip, storage, tuple(reversed(parts)), targets)
