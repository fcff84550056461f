"""Everything that deploy.fit says about one network."""

from collections.abc import Mapping, Sequence

from deploy.fit import energy
from deploy.fit.activity import Activity
from deploy.fit.chips import CHIPS, LOIHI1
from deploy.fit.findings import best_scale, findings
from deploy.fit.partition import Partition, Storage, partition
from deploy.fit.report import ChipFit, Report
from deploy.fit.wiring import Wiring
from nqlava.network import IntegerNetwork


def examine(
    net: str,
    network: IntegerNetwork,
    wired: Mapping[str, Sequence[Wiring]],
    activity: Activity | None,
    data: Sequence[str],
    chips: Sequence[str] = tuple(CHIPS),
    storage: Storage = "shared",
) -> Report:
    """Fit, findings and energy of a network.

    Args:
        net: path of its file.
        network, wired: what is in it, and its wirings (``deploy.fit.wiring.wire``).
        activity: measured on images of the sources ``data``; None for no energy.
        chips: keys of deploy.fit.chips.CHIPS.
        storage: what the verdict assumes.
    """
    fits = []
    for chip in (CHIPS[key] for key in chips):
        partitions: dict[Storage, Partition] = {
            "shared": partition(network, wired, chip, "shared"),
            "expanded": partition(network, wired, chip, "expanded"),
        }
        scales = {layer.name: best_scale(layer) for layer in network.layers if chip.fixed_registers}
        fits.append(ChipFit(chip, storage, partitions, findings(network, chip, scales), scales))
    loihi1: tuple[energy.Energy, ...] = ()
    cmos: tuple[energy.Energy, ...] = ()
    if activity is not None:
        cmos = energy.cmos(network, activity)
        for fit in fits:
            if fit.chip is LOIHI1:
                loihi1 = energy.loihi1(network, activity, fit.assumed)
    return Report(net, network, wired, tuple(fits), activity, data, loihi1, cmos)
