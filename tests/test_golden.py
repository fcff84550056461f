"""A stored file and what it must compute: a change of the format or of the semantics cannot pass unseen.

tests/golden/version1.h5 stays readable for ever, and its digests stay as they are. The values were computed with
tests/oracle.py, not with the engine.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from deploy.integer import IntegerEngine
from deploy.lava import build, netx_network
from deploy.trace import Trace, concatenate
from export import netx
from tests import oracle

FILE = Path(__file__).parent / "golden" / "version1.h5"
NETWORK = "0581c6a77d36074075370c4f0973b2308c17c6980b35b7577d244cf20d384b83"
RUN = "35b3f615e2bd37b8d250600ecdf3fd76e5ff36f7e6b5133368a7bd5b439d6a0f"
STEPS = 6
IMAGES = (np.arange(2 * 3 * 10 * 8) * 37 % 256).astype(np.uint8).reshape(2, 3, 10, 8)


def digest(spikes: list[np.ndarray], readout: np.ndarray) -> str:
    """SHA-256 over the bits of all spikes (samples, T, *shape), layer by layer, and the read-out."""
    sha = hashlib.sha256()
    for values in spikes:
        sha.update(np.packbits(values).tobytes())
    sha.update(readout.astype("<i8").tobytes())
    return sha.hexdigest()


def digest_of(trace: Trace) -> str:
    return digest([trace.layer_spikes(i) for i in range(len(trace.shapes))], trace.readout)


def test_file_is_read_and_written_as_ever(tmp_path: Path) -> None:
    network = netx.read(FILE)
    assert network.digest() == NETWORK
    assert network.info == {"T": 6, "note": "golden"}
    netx.write(network, tmp_path / "again.h5")
    assert netx.read(tmp_path / "again.h5").digest() == NETWORK


def test_oracle() -> None:
    spikes, readout, _ = oracle.simulate(netx.read(FILE), IMAGES, STEPS)
    assert digest(spikes, readout) == RUN


def test_integer_engine() -> None:
    assert digest_of(IntegerEngine(netx.read(FILE)).run(IMAGES, STEPS)) == RUN


@pytest.mark.parametrize("batch", [1, 2])
def test_lava(batch: int) -> None:
    assert digest_of(concatenate(list(build.run(netx.read(FILE), IMAGES, STEPS, batch=batch)))) == RUN


def test_lava_dl() -> None:
    assert digest_of(concatenate(list(netx_network.run(FILE, IMAGES, STEPS)))) == RUN
