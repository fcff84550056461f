"""Published limits of the chips and published energies per operation, each with its source."""

from dataclasses import dataclass

DAVIES = "Davies et al., IEEE Micro 38(1), 2018 (Loihi 1; energies are pre-silicon, at 0.75 V)"
BRIEF = "Intel Labs, technology brief on Loihi 2 and Lava, 2021"
NXTF = (
    "Rueckauer et al., NxTF, arXiv 2101.04261; code: github.com/intel-nrc-ecosystem/models, nxsdk_modules_ncl/dnn "
    "(Loihi 1: soft reset with two compartments, weight sharing)"
)
NENGO = "nengo-loihi pull request 276, 2020 (Loihi 1: reset by subtraction is not available on the hardware)"
LAVA = "lava-nc/lava pull request 341, 2022 (Loihi 2 has a convolution feature; what it takes is not public)"
BRIAN2LOIHI = "Michaelis et al., Brian2Loihi, Front. Neuroinform. 2022 (Loihi 1: scales of weights and thresholds)"
HOROWITZ = "Horowitz, ISSCC 2014 (45 nm CMOS)"


@dataclass(frozen=True)
class Chip:
    """Limits of one chip. None stands for "no public figure": nothing is checked against it.

    Attributes:
        key: on the command line.
        name: in the report.
        cores: neuro-cores per chip.
        cores_exposed: neuro-cores on the parts that expose the fewest of them.
        compartments: per core; a neuron takes one, or ``soft_reset_compartments``.
        places: what the sources call them.
        memory_bytes: synaptic memory per core.
        input_axons, output_axons: per core.
        weight_bits: most bits of a signed weight.
        delay: most time steps by which a synapse can hold a spike back.
        graded_input: whether 8-bit values can be sent as spikes. Where not, the image enters as bias.
        soft_reset_compartments: compartments of a neuron with soft reset. The second one needs a synapse, an input axon
            and an output axon of the neuron onto itself, which carries −θ.
        fixed_registers: whether threshold, bias and weight have fixed formats (deploy/fit/findings.py).
        sources: where the numbers come from.
    """

    key: str
    name: str
    cores: int
    cores_exposed: int
    compartments: int
    places: str
    memory_bytes: int
    input_axons: int | None
    output_axons: int | None
    weight_bits: int
    delay: int
    graded_input: bool
    soft_reset_compartments: int
    fixed_registers: bool
    sources: tuple[str, ...]


LOIHI1 = Chip(
    key="loihi1",
    name="Loihi 1",
    cores=128,
    cores_exposed=128,
    compartments=1024,
    places="compartments",
    memory_bytes=128 * 1024,
    input_axons=4096,
    output_axons=4096,
    weight_bits=9,
    delay=62,
    graded_input=False,
    soft_reset_compartments=2,
    fixed_registers=True,
    sources=(DAVIES, NXTF, NENGO, BRIAN2LOIHI),
)
LOIHI2 = Chip(
    key="loihi2",
    name="Loihi 2",
    cores=128,
    cores_exposed=120,
    compartments=8192,
    places="neurons",
    memory_bytes=128 * 1024,
    input_axons=None,
    output_axons=None,
    weight_bits=8,
    delay=63,
    graded_input=True,
    soft_reset_compartments=1,
    fixed_registers=False,
    sources=(BRIEF, LAVA),
)
CHIPS = {chip.key: chip for chip in (LOIHI1, LOIHI2)}

RESET_SYNAPSE_BITS = 8
"""Bits of the synapse by which a soft-reset neuron of Loihi 1 subtracts its threshold: the 8-bit mantissa (Davies)."""

# Energies in picojoules.
SYNAPTIC_OPERATION = 23.6
"""Loihi 1 (Davies)."""
UPDATE_INACTIVE, UPDATE_ACTIVE = 52.0, 81.0
"""Loihi 1 (Davies): update of a neuron that is idle, and of one that is not."""
SPIKE_IN_TILE = 1.7
"""Loihi 1 (Davies): a spike message inside its tile."""
HOP_EAST_WEST, HOP_NORTH_SOUTH = 3.0, 4.0
"""Loihi 1 (Davies): a spike message from one tile to the next."""
INT8_ADD, INT32_ADD, INT8_MULTIPLY = 0.03, 0.1, 0.2
"""45 nm (Horowitz)."""
FP32_ADD, FP32_MULTIPLY = 0.9, 3.7
"""45 nm (Horowitz)."""
