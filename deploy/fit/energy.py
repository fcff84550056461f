"""Energy per image from published energies per operation; docs/fit.md says what they leave out."""

from dataclasses import dataclass

import numpy as np

from deploy.fit import chips
from deploy.fit.activity import Activity
from deploy.fit.chips import LOIHI1
from deploy.fit.partition import Partition
from deploy.fit.wiring import Axis, Wiring, volume
from nqlava.network import IntegerNetwork


@dataclass(frozen=True)
class Energy:
    """One line of the report, in microjoules per image.

    Attributes:
        name: what is counted.
        low, high: bounds from the spread of the published figures.
        how: operations and energies behind it.
    """

    name: str
    low: float
    high: float
    how: str


def loihi1(network: IntegerNetwork, activity: Activity, partition: Partition) -> tuple[Energy, ...]:
    """Loihi 1: N_synop · e_synop + N_update · e_update, and the routing of spikes apart.

    Args:
        network: the network.
        activity: measured on it.
        partition: of the network on Loihi 1, from which the number of messages follows.
    """
    per_image = 1e-6 / activity.samples
    soft = [layer.name for layer in network.layers[:-1] if layer.reset == "soft"]
    resets = sum(int(activity.counts[name].sum()) for name in soft)
    operations = activity.operations + resets
    by_layer = {layer.name: layer.updates for layer in activity.layers}
    extra = (LOIHI1.soft_reset_compartments - 1) * sum(by_layer[name] for name in soft)
    messages = resets + sum(
        int((activity.counts[layer.name] * partition.targets[layer.name]).sum()) for layer in network.layers[:-1]
    )
    synapses = operations * chips.SYNAPTIC_OPERATION
    low, high = activity.updates * chips.UPDATE_INACTIVE, (activity.updates + extra) * chips.UPDATE_ACTIVE
    each = f"{operations / activity.samples:,.0f} at {chips.SYNAPTIC_OPERATION} pJ, resets by synapse included"
    hop = (chips.HOP_EAST_WEST, chips.HOP_NORTH_SOUTH)
    return (
        Energy("synaptic operations", synapses * per_image, synapses * per_image, each),
        Energy(
            "neuron updates",
            low * per_image,
            high * per_image,
            f"{activity.updates / activity.samples:,.0f} inactive at {chips.UPDATE_INACTIVE:g} pJ; with both "
            f"compartments, active at {chips.UPDATE_ACTIVE:g} pJ",
        ),
        Energy(
            "sum",
            (synapses + low) * per_image,
            (synapses + high) * per_image,
            "the usual estimate; the host adds the image",
        ),
        Energy(
            "spikes in their tile (not in the sum)",
            messages * chips.SPIKE_IN_TILE * per_image,
            messages * chips.SPIKE_IN_TILE * per_image,
            f"{messages / activity.samples:,.0f} messages to cores at {chips.SPIKE_IN_TILE} pJ",
        ),
        Energy(
            "each hop between tiles (not in the sum)",
            messages * hop[0] * per_image,
            messages * hop[1] * per_image,
            f"{hop[0]} pJ east-west, {hop[1]} pJ north-south; the placement, so the number of hops, is unknown",
        ),
    )


@dataclass(frozen=True)
class AnnOperations:
    """Operations of the ANN with the same shape, for one image.

    Attributes:
        macs: multiply-accumulates inside the image; average pooling that was folded into a kernel is taken out again.
        additions: of the average poolings, and of identity shortcuts: one per neuron and source.
        neurons: each adds its bias and applies its activation.
    """

    macs: int
    additions: int
    neurons: int


def ann_operations(network: IntegerNetwork) -> AnnOperations:
    """Counts the operations of the ANN that the network came from.

    An identity shortcut is an addition there: its factor is a ratio of scales, which the ANN does not multiply by.
    """
    macs = additions = 0
    for layer in network.layers:
        added: set[str] = set()
        small_of = [one.convolution(network.shape_of[one.source]) for one in layer.connections]
        pairs = zip(layer.connections, small_of, strict=True)
        digit_of = [None if small.diagonal is None else one.source for one, small in pairs]
        for connection, small, digit in zip(layer.connections, small_of, digit_of, strict=True):
            if digit in added:
                continue  # another digit of the same factor
            channels, *size = volume(network.shape_of[connection.source])
            y, x = size[0] // small.window[0], size[1] // small.window[1]
            additions += channels * y * x * (small.window[0] * small.window[1] - 1)
            if digit is not None and any(other != digit for other in digit_of):
                added.add(digit)
                additions += int(np.prod(network.shape_of[layer.name]))
                continue
            kernel = small.weight.shape[2:]
            geometry = zip((y, x), kernel, small.stride, small.padding, small.dilation, strict=True)
            rows, columns = (Axis.of(*one) for one in geometry)
            macs += Wiring(
                connection.source, connection.bits, connection.outputs, channels, small.groups, rows, columns
            ).synapses
    return AnnOperations(macs, additions, sum(int(np.prod(shape)) for shape in network.shapes))


def cmos(network: IntegerNetwork, activity: Activity) -> tuple[Energy, ...]:
    """Arithmetic in 45 nm CMOS: the SNN, and the ANN with the same shape. Memory and control are not counted.

    A synaptic operation adds an 8-bit weight to a 24-bit sum: between an 8-bit and a 32-bit addition. A neuron update
    is three 32-bit additions (the sum, the bias, the comparison), a spike one more (the reset). The image is constant,
    so its multiply-accumulates (8-bit multiplication, 32-bit addition) are done once per image.
    """
    mac, float_mac = chips.INT8_MULTIPLY + chips.INT32_ADD, chips.FP32_MULTIPLY + chips.FP32_ADD
    operations, spikes, updates, image = (
        n / activity.samples
        for n in (activity.operations, activity.spikes, activity.updates, activity.image_operations)
    )
    fixed = image * mac + (3 * updates + spikes) * chips.INT32_ADD
    ann = ann_operations(network)
    others = ann.additions + 2 * ann.neurons
    integer = ann.macs * mac + others * chips.INT32_ADD
    floating = ann.macs * float_mac + others * chips.FP32_ADD
    return (
        Energy(
            "SNN, integer",
            (operations * chips.INT8_ADD + fixed) * 1e-6,
            (operations * chips.INT32_ADD + fixed) * 1e-6,
            f"{operations:,.0f} additions at {chips.INT8_ADD} to {chips.INT32_ADD} pJ, {image:,.0f} MACs of the image, "
            f"{updates:,.0f} updates",
        ),
        Energy("ANN, integer", integer * 1e-6, integer * 1e-6, f"{ann.macs:,} INT8 MACs at {mac:.1f} pJ"),
        Energy(
            "ANN, FP32 (another precision)", floating * 1e-6, floating * 1e-6, f"{ann.macs:,} at {float_mac:.1f} pJ"
        ),
    )
