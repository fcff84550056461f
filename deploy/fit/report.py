"""What ``python -m deploy.fit`` found: verdicts, what to change, and everything as plain values for JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.fit import chips
from deploy.fit.activity import Activity
from deploy.fit.chips import Chip
from deploy.fit.energy import Energy
from deploy.fit.findings import Finding, Scale
from deploy.fit.partition import Part, Partition, Storage
from deploy.fit.wiring import Wiring, largest_fan_in, largest_fan_out
from nqlava.network import IMAGE, IntegerNetwork

ADVICE = {
    "compartments": "fewer neurons: pool or stride earlier, or narrower layers",
    "neurons": "fewer neurons: pool or stride earlier, or narrower layers",
    "synaptic memory": "fewer weight bits (4 instead of 8 halve it), or narrower layers",
    "input axons": "fewer source neurons per core: narrower layers before it, groups, smaller kernels (a folded "
    "pooling enlarges them)",
    "output axons": "fewer cores behind it: narrower layers there, smaller kernels",
}
"""What helps where a layer needs many cores, by the limit that it comes closest to."""


@dataclass(frozen=True)
class ChipFit:
    """One chip.

    Attributes:
        chip: the chip.
        storage: the one that the verdict assumes.
        partitions: by storage, both.
        findings: what the chip cannot do.
        scales: by layer, where registers are fixed.
    """

    chip: Chip
    storage: Storage
    partitions: Mapping[Storage, Partition]
    findings: tuple[Finding, ...]
    scales: Mapping[str, Scale]

    @property
    def assumed(self) -> Partition:
        return self.partitions[self.storage]

    @property
    def fits(self) -> bool:
        """Whether the network fits one chip and nothing blocks it."""
        return not self.assumed.lacking and self.assumed.chips <= 1 and not any(one.blocks for one in self.findings)

    def verdict(self) -> str:
        """One line."""
        used, blocked = self.assumed, [one for one in self.findings if one.blocks]
        size = f"{used.cores:,} of {self.chip.cores} cores ({self.storage})"
        if used.chips > 1:
            size = f"{used.chips:,} chips ({used.cores:,} cores, {self.chip.cores} per chip, {self.storage})"
        if used.lacking:
            names = ", ".join(part.name for part in used.lacking[:3])
            more = f" and {len(used.lacking) - 3} more" if len(used.lacking) > 3 else ""
            text = f"does not fit: {_lacking(used.lacking[0])}"
            text += f" ({names}{more}); the other layers: {size}" if len(used.lacking) > 1 else f"; the others: {size}"
        else:
            part = used.largest
            start = "fits" if self.fits else "does not fit as it is" if used.chips <= 1 else "does not fit one chip"
            text = f"{start}: {size}; binding limit: {part.used_most[0]} in {part.name} ({number(part.cores, 'core')})"
        if blocked:
            layers = len({one.layer for one in blocked})
            text += f"; its registers cannot hold what {layers} layer{'s' * (layers > 1)} need{'s' * (layers == 1)}"
        if used.cores > self.chip.cores_exposed and used.chips <= 1:
            text += f"; too many for parts that expose {self.chip.cores_exposed}"
        other: Storage = "expanded" if self.storage == "shared" else "shared"
        rest = self.partitions[other]
        also = f"; {other}: {number(rest.cores, 'core')}, {number(rest.chips, 'chip')}" if not used.lacking else ""
        return f"{self.chip.name}: {text}{also}"


def number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _lacking(part: Part) -> str:
    assert part.lacking is not None
    limit, need, has = part.lacking
    return f"one neuron of {part.name} needs {_amount(limit, need)} {limit}, a core has {_amount(limit, has)}"


def _amount(limit: str, count: int) -> str:
    """Bits of memory as bytes; anything else is a number."""
    return f"{whole_bytes(count):,} bytes of" if limit == "synaptic memory" else f"{count:,}"


@dataclass(frozen=True)
class Report:
    """Everything measured and computed about one network.

    Attributes:
        net: path of the file.
        network: what it holds.
        wired: its wirings.
        fits: per chip.
        activity: measured, or None.
        data: sources of the images.
        loihi1: energy on Loihi 1, or empty.
        cmos: energy in 45 nm CMOS, or empty.
    """

    net: str
    network: IntegerNetwork
    wired: Mapping[str, Sequence[Wiring]]
    fits: tuple[ChipFit, ...]
    activity: Activity | None
    data: Sequence[str]
    loihi1: tuple[Energy, ...]
    cmos: tuple[Energy, ...]

    def layers(self) -> list[dict[str, Any]]:
        rows = []
        for layer in self.network.layers:
            shape, wired = self.network.shape_of[layer.name], self.wired[layer.name]
            rows.append(
                {
                    "name": layer.name,
                    "shape": list(shape),
                    "neurons": _product(shape),
                    "fan_in": largest_fan_in(wired),
                    "fan_out": largest_fan_out(layer.name, shape, self.wired),
                    "synapses": sum(one.synapses for one in wired),
                    "memory_bytes_shared": whole_bytes(sum(one.bits * one.weights for one in wired)),
                    "memory_bytes_expanded": whole_bytes(sum(one.bits * one.synapses for one in wired)),
                    "connections": [
                        {
                            "source": one.source,
                            "synapses": one.synapses,
                            "weights": one.weights,
                            "zero_weights": int((connection.weight == 0).sum()),
                            "bits": one.bits,
                            "delay_steps": 0
                            if one.source == IMAGE
                            else self.network.depth_of[layer.name] - self.network.depth_of[one.source] - 1,
                        }
                        for one, connection in zip(wired, layer.connections, strict=True)
                    ],
                }
            )
        return rows

    def sources(self) -> list[str]:
        used = [source for fit in self.fits for source in fit.chip.sources]
        return list(dict.fromkeys(used + ([chips.HOROWITZ] if self.cmos else [])))

    def content(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "verdicts": [fit.verdict() for fit in self.fits],
            "net": self.net,
            "network_sha256": self.network.digest(),
            "layers": self.layers(),
            "chips": {fit.chip.key: _chip_content(fit) for fit in self.fits},
            "activity": None if self.activity is None else _activity_content(self.activity, self.data),
            "energy_microjoules_per_image": {
                "loihi1": [asdict(one) for one in self.loihi1],
                "loihi2": None,
                "cmos_45nm_arithmetic_only": [asdict(one) for one in self.cmos],
            },
            "assumptions": list(ASSUMPTIONS),
            "sources": self.sources(),
        }


ASSUMPTIONS = (
    "A core holds neurons of one layer, a box of channels x rows x columns; boxes take the fewest cores, then axons.",
    "Memory counts weight bits only, a lower bound: what a synapse takes besides its weight is not counted.",
    "shared: a core stores each weight of a convolution once. expanded: once per synapse.",
    "An input axon per source neuron with synapses on the core, an output axon per neuron and core that it sends to.",
    "A limit without a public figure (axons of Loihi 2) is not checked.",
)


def changes(fit: ChipFit) -> list[str]:
    """What to know and what to change, one line each."""
    used, lines = fit.assumed, []
    few: dict[str, list[Part]] = {}
    for part in used.lacking:
        few.setdefault(part.used_most[0], []).append(part)
    for limit, parts in few.items():
        names = ", ".join(part.name for part in parts[1:])
        also = f"; likewise {names}" if names else ""
        lines.append(f"{_lacking(parts[0])}{also}; what helps: {ADVICE[limit]}")
    if used.chips > 1:
        many: dict[str, list[str]] = {}
        for part in sorted(used.parts, key=lambda one: -one.cores)[:3]:
            many.setdefault(part.used_most[0], []).append(f"{part.name} ({part.cores:,})")
        for limit, names_of in many.items():
            lines.append(f"most cores, for their {limit}: {', '.join(names_of)}; what helps: {ADVICE[limit]}")
    return lines + [str(one) for one in fit.findings]


def _chip_content(fit: ChipFit) -> dict[str, Any]:
    return {
        "verdict": fit.verdict(),
        "fits": fit.fits,
        "storage_assumed": fit.storage,
        "limits": asdict(fit.chip),
        "storage": {storage: _partition_content(one) for storage, one in fit.partitions.items()},
        "findings": [asdict(one) for one in fit.findings],
        "changes": changes(fit),
        "register_scales": {name: asdict(scale) for name, scale in fit.scales.items()},
    }


def _partition_content(partition: Partition) -> dict[str, Any]:
    return {
        "cores": partition.cores,
        "chips": partition.chips,
        "layers": [
            {
                "name": part.name,
                "cores": part.cores,
                "box": list(part.tiling.box),
                "binding_limit": part.used_most[0],
                "used": part.used_most[1],
                "lacking": None
                if part.lacking is None
                else dict(zip(("limit", "need", "has"), part.lacking, strict=True)),
                "per_core": None
                if part.lacking
                else {
                    "neurons": part.use.neurons.ravel().tolist(),
                    "compartments": part.use.compartments.ravel().tolist(),
                    "synapses": part.use.synapses.ravel().tolist(),
                    "memory_bytes": (-(-part.use.memory_bits // 8)).ravel().tolist(),
                    "input_axons": part.use.input_axons.ravel().tolist(),
                    "output_axons": part.use.output_axons.ravel().tolist(),
                },
            }
            for part in partition.parts
        ],
    }


def _activity_content(activity: Activity, data: Sequence[str]) -> dict[str, Any]:
    return {
        "data": list(data),
        "samples": activity.samples,
        "T": activity.steps,
        "spikes": activity.spikes,
        "synaptic_operations": activity.operations,
        "image_macs": activity.image_operations,
        "neuron_updates": activity.updates,
        "layers": [
            {
                "name": one.name,
                "neurons": one.neurons,
                "spikes": one.spikes,
                "spikes_per_neuron_and_step": one.spikes / one.updates,
                "synaptic_operations": list(one.operations),
                "image_macs": one.image_operations,
                "image_macs_dense": one.image_synapses,
                "neuron_updates": one.updates,
            }
            for one in activity.layers
        ],
    }


def _product(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def whole_bytes(bits: int) -> int:
    return -(-bits // 8)
