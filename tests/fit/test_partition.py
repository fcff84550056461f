"""Partition into cores: by hand, against enumeration, and the invariants that must always hold."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.fit.chips import CHIPS, LOIHI1, LOIHI2, RESET_SYNAPSE_BITS, Chip
from deploy.fit.partition import Partition, Storage, partition
from deploy.fit.wiring import largest_fan_in, largest_fan_out, volume, wire
from nqlava.network import IMAGE, Connection, IntegerNetwork, Layer
from nqlava.testing.networks import random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from tests.fit.enumeration import synapses

chips = st.builds(
    lambda chip, compartments, memory, into, out: replace(
        chip,
        compartments=compartments,
        memory_bytes=memory,
        input_axons=into,
        output_axons=out,
    ),
    st.sampled_from(tuple(CHIPS.values())),
    st.sampled_from((2, 8, 60, 10**6)),
    st.sampled_from((16, 100, 1000, 10**6)),
    st.sampled_from((None, 8, 40, 200)),
    st.sampled_from((None, 8, 40, 200)),
)


def core_of(part_shape: tuple[int, int, int], box: tuple[int, int, int]) -> np.ndarray:
    """Number of the core of every neuron of a layer, flat, read off the boxes one neuron at a time."""
    grid = [-(-size // step) for size, step in zip(part_shape, box, strict=True)]
    numbers = np.empty(part_shape, int)
    for o, y, x in np.ndindex(*part_shape):
        numbers[o, y, x] = (o // box[0] * grid[1] + y // box[1]) * grid[2] + x // box[2]
    return numbers.ravel()


def soft(layer: Layer, chip: Chip) -> bool:
    """Whether the neurons of a layer take two compartments and a synapse onto themselves."""
    return chip.soft_reset_compartments > 1 and layer.reset == "soft" and not layer.is_readout


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(networks(), chips, st.sampled_from(("shared", "expanded")))
def test_cores_equal_enumeration_and_stay_within_the_limits(
    network: IntegerNetwork, chip: Chip, storage: Storage
) -> None:
    result = partition(network, wire(network), chip, storage)
    receivers: dict[str, list[set]] = {
        name: [set() for _ in range(int(np.prod(shape)))] for name, shape in network.shape_of.items()
    }
    cores = {}
    for part in result.parts:
        shape = volume(network.shape_of[part.name])
        cores[part.name] = core_of(shape, part.tiling.box)
    for layer, part in zip(network.layers, result.parts, strict=True):
        number = cores[layer.name]
        count = part.tiling.cores
        assert sorted(set(number.tolist())) == list(range(count)), "every neuron on one core, no core empty"
        neurons = np.bincount(number, minlength=count)
        into: list[set] = [set() for _ in range(count)]
        onto, memory = np.zeros(count, int), np.zeros(count, int)
        for index, connection in enumerate(layer.connections):
            if connection.source == IMAGE and not chip.graded_input:
                continue
            stored: list[set] = [set() for _ in range(count)]
            for source, target, weight in synapses(connection, network.shape_of[connection.source]):
                core = int(number[target])
                into[core].add((connection.source, source))
                receivers[connection.source][source].add((layer.name, 0 if part.lacking else core))
                stored[core].add((index, weight) if storage == "shared" else (source, target))
                onto[core] += 1
            memory += [connection.bits * len(one) for one in stored]
        own = neurons * soft(layer, chip)
        np.testing.assert_array_equal(part.use.neurons.ravel(), neurons)
        np.testing.assert_array_equal(part.use.compartments.ravel(), neurons + own)
        np.testing.assert_array_equal(part.use.synapses.ravel(), onto + own)
        np.testing.assert_array_equal(part.use.memory_bits.ravel(), memory + RESET_SYNAPSE_BITS * own)
        np.testing.assert_array_equal(part.use.input_axons.ravel(), own + [len(one) for one in into])
        if part.lacking is None:
            for limit, need, has in part.use.against(chip):
                assert need.max() <= has, limit
            assert part.used_most[1] <= 1
        else:
            limit, need, has = part.lacking
            assert need > has and part.cores == 0
    for layer, part in zip(network.layers, result.parts, strict=True):
        sent = np.array([len(one) for one in receivers[layer.name]], int)
        np.testing.assert_array_equal(result.targets[layer.name].ravel(), sent)
        own = part.use.neurons.ravel() * soft(layer, chip)
        per_core = np.bincount(cores[layer.name], sent, part.tiling.cores).astype(int)
        np.testing.assert_array_equal(part.use.output_axons.ravel(), per_core + own)
    assert result.cores == sum(part.tiling.cores for part in result.parts if part.lacking is None)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(networks(), chips, st.sampled_from(("shared", "expanded")))
def test_no_tiling_needs_fewer_cores(network: IntegerNetwork, chip: Chip, storage: Storage) -> None:
    """Against trying every box size of a layer, behind it the layers as they were cut."""
    from deploy.fit import partition as module

    wired = wire(network)
    result = partition(network, wired, chip, storage)
    for layer, part in zip(network.layers, result.parts, strict=True):
        shape = part.tiling.shape
        on_chip = [one for one in wired[layer.name] if chip.graded_input or one.source != IMAGE]
        mode = module._Mode(storage, 2 if soft(layer, chip) else 1)
        reaches = [module._Reach([w for w in on_chip if w.source == s]) for s in {w.source for w in on_chip}]
        fewest = None
        for box in np.ndindex(*shape):
            tiling = module.Tiling(shape, tuple(n + 1 for n in box))  # type: ignore[arg-type]
            use = module._use(on_chip, reaches, tiling, result.targets[layer.name], mode)
            if use.fits(chip):
                fewest = min(tiling.cores, fewest or tiling.cores)
        assert fewest == (None if part.lacking else part.tiling.cores)


def residual_network() -> IntegerNetwork:
    """2x4x4 image; 'first' 3x3 to 4 channels; 'add': 3x3 from first and the identity from first; 3 classes."""
    rng = np.random.default_rng(0)
    first = random_layer(rng, "first", (2, 4, 4), outputs=4, kernel=(3, 3), padding=(1, 1))
    branch = random_connection(rng, "first", (4, 4, 4), outputs=4, kernel=(3, 3), padding=(1, 1))
    identity = Connection("first", np.full((4, 1, 1, 1), 100, np.int8), groups=4)
    add = random_neurons(rng, "add", (branch, identity), (4, 4, 4))
    readout = random_layer(rng, "readout", (4, 4, 4), source="add", outputs=3, readout=True)
    return IntegerNetwork((2, 4, 4), (first, add, readout))


def test_residual_addition_by_hand() -> None:
    """'add' on one core: the identity's 64 source neurons are among those of the 3x3 and need no axons more.

    3x3 with padding 1 over 4x4: 2 + 3 + 3 + 2 = 10 taps along an axis, 4 · 4 · 100 = 1,600 synapses; identity: 64.
    Memory, shared: 4 · 4 · 9 weights + 4, of 8 bits: 148 bytes; expanded 1,664 bytes.
    Loihi 2: 64 input axons, 64 output axons (every neuron sends to the one core of the read-out).
    Loihi 1 adds for each of the 64 soft-reset neurons a compartment, a synapse of 8 bits, and two axons.
    """
    network = residual_network()
    part = partition(network, wire(network), LOIHI2, "shared").parts[1]
    assert (part.cores, part.use.synapses.item(), part.use.memory_bits.item()) == (1, 1664, 8 * 148)
    assert (part.use.input_axons.item(), part.use.output_axons.item()) == (64, 64)
    part = partition(network, wire(network), LOIHI2, "expanded").parts[1]
    assert part.use.memory_bits.item() == 8 * 1664
    part = partition(network, wire(network), LOIHI1, "shared").parts[1]
    assert (part.use.compartments.item(), part.use.synapses.item()) == (128, 1664 + 64)
    assert part.use.memory_bits.item() == 8 * (148 + 64)
    assert (part.use.input_axons.item(), part.use.output_axons.item()) == (128, 128)


def test_halo_of_spatial_boxes_by_hand() -> None:
    """'add' on cores of 32 compartments: 2 cores, and cutting the columns (as good as the rows) costs fewest axons.

    Two boxes of 4 channels · 4 rows · 2 columns: each sees 3 of the 4 source columns, 4 · 4 · 3 = 48 axons. (Cutting
    the channels would need all 64 source neurons on both cores.) A box has 10 row taps and 2 + 3 = 5 column taps, so
    4 · 4 · 50 = 800 synapses, + 32 of the identity. Of 'first', columns 1 and 2 go to both cores: 64 + 32 = 96 pairs,
    48 for each of its two cores.
    """
    network = residual_network()
    result = partition(network, wire(network), replace(LOIHI2, compartments=32), "shared")
    first, add, readout = result.parts
    assert add.tiling.box == (4, 4, 2)
    assert add.use.input_axons.ravel().tolist() == [48, 48]
    assert add.use.synapses.ravel().tolist() == [832, 832]
    assert first.use.output_axons.ravel().tolist() == [48, 48]
    assert add.used_most == ("neurons", 1.0)
    assert result.cores == 5 and result.chips == 1 and readout.cores == 1


def test_image_needs_no_synapses_where_spikes_are_binary() -> None:
    network = residual_network()
    assert partition(network, wire(network), LOIHI1, "shared").parts[0].use.synapses.item() == 64  # the resets
    assert partition(network, wire(network), LOIHI2, "shared").parts[0].use.synapses.item() == 4 * 2 * 100


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"input_axons": 63}, ("input axons", 64, 63)),
        ({"memory_bytes": 63}, ("synaptic memory", 8 * 64, 8 * 63)),
    ],
)
def test_a_neuron_that_fits_on_no_core_is_named(changes: dict[str, int], lacking: tuple[str, int, int]) -> None:
    """A neuron of the read-out has 64 sources and 64 weights of 8 bits."""
    network = residual_network()
    result: Partition = partition(network, wire(network), replace(LOIHI2, **changes), "shared")
    assert [(part.name, part.lacking) for part in result.lacking][-1] == ("readout", lacking)


def test_documented_layer() -> None:
    """The layer that lab/fit.md computes by hand: 3x3 behind 2x2 pooling, 64x32x32 to 128x16x16, on Loihi 2."""
    rng = np.random.default_rng(0)
    common = {"outputs": 128, "kernel": (3, 3), "padding": (1, 1)}
    layer = random_layer(rng, "layer", (64, 32, 32), window=2, **common)
    behind = random_layer(rng, "behind", (128, 16, 16), source="layer", **common)
    readout = random_layer(rng, "readout", (128, 16, 16), source="behind", outputs=2, readout=True, window=16)
    network = IntegerNetwork((64, 32, 32), (layer, behind, readout))
    wired = wire(network)
    assert wired["layer"][0].synapses == 128 * 64 * 92 * 92 == 69_337_088
    assert largest_fan_in(wired["layer"]) == 2304
    assert largest_fan_out("input", (64, 32, 32), wired) == 1152
    part = partition(network, wired, LOIHI2, "shared").parts[0]
    assert (part.cores, part.tiling.box) == (4, (32, 16, 16))
    assert part.use.memory_bits.ravel().tolist() == [8 * 73_728] * 4
    assert part.use.input_axons.ravel().tolist() == [65_536] * 4
    assert part.use.output_axons.ravel().tolist() == [18_432] * 4
    assert partition(network, wired, LOIHI2, "expanded").parts[0].cores == 608


@pytest.mark.slow
def test_vgg16_takes_seconds() -> None:
    """VGG-16 for 32x32 images: 284,682 neurons, 424 million synapses."""
    rng, layers, shape, source, window = np.random.default_rng(0), [], (3, 32, 32), IMAGE, 1
    for channels in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if not channels:
            window = 2
            continue
        options = {"outputs": channels, "kernel": (3, 3), "padding": (1, 1), "window": window}
        layers.append(random_layer(rng, f"conv{len(layers)}", shape, source=source, **options))
        source, window, shape = layers[-1].name, 1, (channels, *(n // window for n in shape[1:]))
    for outputs in (4096, 4096, 10):
        options = {"outputs": outputs, "window": window, "readout": outputs == 10}
        layers.append(random_layer(rng, f"dense{len(layers)}", shape, source=source, **options))
        source, window, shape = layers[-1].name, 1, (outputs,)
    network = IntegerNetwork((3, 32, 32), tuple(layers))
    assert sum(int(np.prod(shape)) for shape in network.shapes) == 284_682
    began = time.monotonic()
    wired = wire(network)
    cores = [partition(network, wired, LOIHI2, storage).cores for storage in ("shared", "expanded")]
    result = partition(network, wired, LOIHI1, "shared")
    assert time.monotonic() - began < 30
    assert cores == [424, 3472]
    assert result.lacking[0].lacking == ("input axons", 4609, 4096), "512 channels of 3x3, and the reset of the neuron"


def branches(size: int, count: int) -> IntegerNetwork:
    """The sum of 3x3 convolutions from one source with growing dilations, none of which joins what another joins."""
    rng, shape = np.random.default_rng(0), (8, size, size)
    first = random_layer(rng, "first", (3, size, size), outputs=8, kernel=(3, 3), padding=(1, 1))
    dilated = [((1 + n // 4, 1 + n % 4), 1 + n % 2) for n in range(count)]
    several = tuple(
        random_connection(
            rng, "first", shape, outputs=8, kernel=(3, 3), padding=dilation, dilation=dilation, groups=groups
        )
        for dilation, groups in dilated
    )
    add = random_neurons(rng, "add", several, shape)
    readout = random_layer(rng, "readout", shape, source="add", outputs=3, readout=True)
    return IntegerNetwork((3, size, size), (first, add, readout))


def test_many_branches_from_one_source_equal_enumeration() -> None:
    from deploy.fit import partition as module

    network = branches(9, 5)
    shape, add = network.shape_of["add"], network.layers[1]
    reach = module._Reach(wire(network)["add"])
    assert len(reach.wirings) == 5
    for box in ((8, 9, 9), (3, 2, 4), (1, 1, 1)):
        tiling = module.Tiling(shape, box)
        number = core_of(shape, box)
        pairs = {
            (source, int(number[target]))
            for connection in add.connections
            for source, target, _ in synapses(connection, network.shape_of["first"])
        }
        into = np.bincount([core for _, core in pairs], minlength=tiling.cores)
        sent = np.bincount([source for source, _ in pairs], minlength=int(np.prod(shape)))
        np.testing.assert_array_equal(reach.sources_of(tiling).ravel(), into)
        np.testing.assert_array_equal(reach.boxes_of(tiling).ravel(), sent)


@pytest.mark.parametrize("chip", [LOIHI1, replace(LOIHI2, input_axons=4096, output_axons=4096)], ids=["1", "2"])
def test_sixteen_branches_take_seconds(chip: Chip) -> None:
    network = branches(32, 16)
    wired = wire(network)
    began = time.monotonic()
    assert partition(network, wired, chip, "shared").cores > 0
    assert time.monotonic() - began < 10
