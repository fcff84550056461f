"""The engine for lava-dl's networks against lava-dl's own network."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deploy.lava_dl.engine import Activity
from deploy.lava_dl.reader import LifNetwork
from nqlava.trace import Mismatch


@dataclass
class Comparison:
    """What was compared so far.

    Attributes:
        network: the network.
        samples: how many.
        spikes, potentials: per layer, how many values differ.
        first: the difference that explains the others, or None; ``expected`` is what lava-dl's network has.
        first_is: "spike" or "membrane potential".
    """

    network: LifNetwork
    samples: int = 0
    spikes: list[int] = field(default_factory=list)
    potentials: list[int] = field(default_factory=list)
    first: Mismatch | None = None
    first_is: str = ""

    def __post_init__(self) -> None:
        self.spikes, self.potentials = ([0] * len(self.network.layers) for _ in range(2))

    @property
    def exact(self) -> bool:
        return not any(self.spikes) and not any(self.potentials)

    def add(self, lava: Activity, engine: Activity) -> None:
        """Compares further samples."""
        best: Mismatch | None = None
        for index, layer in enumerate(self.network.layers):
            expected: tuple[NDArray, NDArray] = (lava.spikes[index], lava.potentials[index])
            got: tuple[NDArray, NDArray] = (engine.spikes[index], engine.potentials[index])
            differ = [one != other for one, other in zip(expected, got, strict=True)]
            self.spikes[index] += int(differ[0].sum())
            self.potentials[index] += int(differ[1].sum())
            wrong = differ[0] | differ[1]
            if self.first is not None or not wrong.any():
                continue
            # Lowest sample, in it the earliest layer, in that the first step: a layer depends on those before it only.
            place = tuple(int(n) for n in np.argwhere(wrong)[0])
            if best is None or self.samples + place[0] < best.sample:
                kind = 0 if differ[0][place] else 1
                values = int(expected[kind][place]), int(got[kind][place])
                best = Mismatch(self.samples + place[0], layer.name, place[1] + 1, place[2:], *values)
                self.first_is = ("spike", "membrane potential")[kind]
        self.first = self.first or best
        self.samples += len(lava.spikes[0])
