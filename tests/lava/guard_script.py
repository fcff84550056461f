"""A Lava run that test_guard.py watches from outside: python -m tests.lava.guard_script."""

import numpy as np

from deploy.lava import build
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for, random_layer


def main() -> None:
    rng = np.random.default_rng(0)
    hidden = random_layer(rng, "hidden", (1, 4, 4), outputs=5)
    network = IntegerNetwork(
        (1, 4, 4), (hidden, random_layer(rng, "out", (5,), source="hidden", outputs=2, readout=True))
    )
    build._CHUNK_BYTES = 1  # a line per batch
    for trace in build.run(network, images_for(network, 1_000_000), 10, batch=16):
        print(trace.samples, flush=True)


if __name__ == "__main__":
    main()
