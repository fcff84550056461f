"""A stored file and what it must compute: a change of the format or of the semantics cannot pass unseen.

The files in tests/golden, one for each version of the layout, stay readable for ever, and their digests stay as they
are. The values were computed with the reference, not with the engine.
"""

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from deploy.lava import build, netx_network, stock
from nqlava import netx, reference
from nqlava.engine.integer import Engine
from nqlava.network import MEMBRANE_MAX, Connection, IntegerNetwork, Layer
from nqlava.testing.engines import assert_same, judged, saturations
from nqlava.trace import Trace, concatenate
from tests.parts import part_of, verify
from tests.with_lava_dl import needs_lava_dl

GOLDEN = Path(__file__).parent / "golden"
FILES = {1: GOLDEN / "version1.h5", 2: GOLDEN / "version2.h5"}
NETWORK = {
    1: "0581c6a77d36074075370c4f0973b2308c17c6980b35b7577d244cf20d384b83",
    2: "fda55e35ce6871e764b68afbf3b988074e621a486df5d257467469c3045dc398",
}
RUN = {
    1: "35b3f615e2bd37b8d250600ecdf3fd76e5ff36f7e6b5133368a7bd5b439d6a0f",
    2: "672b56272d682dd5bcdd285154b89ac30ffb645cfb5d1d749f7ac8989b10535a",
}
DIGEST = {
    1: "86dfba9fdb959e5ded9d15ae05c269147e1fcd755510e6a22ed665b98f064281",
    2: "0d13c8d70df7ab877c2687db644fae9d3bdd194f5f4d4ca7d762b18ed2cee41d",
}
STATE = {
    1: ("43c090cceb6eac107588d3a1b49c04633888b5f838d5c352fe1e9080c860da8e", (0, 0, 0, 0)),
    2: ("b48d21530fbbaeecde03fb590edd4103ffdc75611fdd483410d0bdeedf9177b5", (0, 0, 0, 0, 0, 0, 0)),
}
"""SHA-256 over v(T) of the spiking layers, and saturations."""
SATURATING = (
    "68d99d6fe3632dbb2564dbd237fcbf2ca29c136600f738451f0477413832e6ce",
    "7752d0340dc21746fbaee2c93b1edd99ee84ef988235d055290e2557395e01ae",
    "becf7f68911f0f55eb65494f8f276ad8f3bc877c80e69a161cc8c977accf1171",
    (23, 18, 23),
)
"""Of ``saturating()``: digests of the network, of its run and of its state, and saturations."""
STEPS = 6
IMAGES = (np.arange(2 * 3 * 10 * 8) * 37 % 256).astype(np.uint8).reshape(2, 3, 10, 8)
LABELS = np.zeros(2, np.int64)

every_version = pytest.mark.parametrize("version", FILES)


def stacked(runs: list[reference.Run]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Spikes (samples, T, *shape) and v(T) (samples, *shape) per spiking layer, and the read-out (samples, T, K)."""
    spikes = [np.stack(values) for values in zip(*(run.spikes for run in runs), strict=True)]
    potentials = [np.stack(values) for values in zip(*(run.potentials for run in runs), strict=True)]
    return spikes, potentials, np.stack([run.readout for run in runs])


def digest(spikes: list[np.ndarray], readout: np.ndarray) -> str:
    """SHA-256 over the bits of all spikes (samples, T, *shape), layer by layer, and the read-out."""
    sha = hashlib.sha256()
    for values in spikes:
        sha.update(np.packbits(values).tobytes())
    sha.update(readout.astype("<i8").tobytes())
    return sha.hexdigest()


def digest_of(trace: Trace) -> str:
    return digest([trace.layer_spikes(i) for i in range(len(trace.shapes))], trace.readout)


def run_digest(network: IntegerNetwork, spikes: list[np.ndarray], readout: np.ndarray) -> str:
    """D of docs/semantics.md, from spikes bool (samples, T, *shape) and the read-out (samples, T, K)."""
    total = 0
    for sample, potentials in enumerate(readout):
        content = bytes.fromhex(network.digest()) + struct.pack("<Q", sample)
        for layer in spikes:
            for step in layer[sample]:
                content += np.packbits(np.moveaxis(step, 0, -1)).tobytes()
        content += struct.pack(f"<{potentials.size}i", *potentials.ravel().tolist())
        total += int(hashlib.sha256(content).hexdigest(), 16)
    return f"{total % 2**256:064x}"


def state_digest(membranes: Sequence[np.ndarray]) -> str:
    """SHA-256 over v(T) of the spiking layers, (samples, *shape)."""
    sha = hashlib.sha256()
    for v in membranes:
        sha.update(v.astype("<i8").tobytes())
    return sha.hexdigest()


def states_of(trace: Trace) -> str:
    return state_digest([trace.layer_membranes(i) for i in range(len(trace.shapes))])


def saturating() -> IntegerNetwork:
    """Registers that clip at both ends, with soft and hard resets, at steps of both images."""
    weight = (np.arange(4 * 240) * 53 % 255 - 127).astype(np.int8).reshape(4, 240)
    values = np.array([MEMBRANE_MAX, -MEMBRANE_MAX, 5_000_000, -1], np.int32)
    threshold = np.array([MEMBRANE_MAX, 1, 8_000_000, 3], np.int32)
    soft = Layer("soft", (Connection("input", weight, 7),), values, threshold, values[::-1].copy())
    hard = Layer("hard", (Connection("soft", weight[:, :4], 15),), values[::-1].copy(), threshold, values, "hard")
    both = (Connection("soft", weight[:3, 4:8], 15), Connection("hard", weight[:3, 8:12], 15))
    return IntegerNetwork((3, 10, 8), (soft, hard, Layer("out", both, values[:3], None, values[1:].copy())))


def test_saturation() -> None:
    """The files do not saturate; this network does, in every layer."""
    network = saturating()
    expected = judged(network, IMAGES, STEPS)
    spikes, potentials, readout = stacked(expected)
    pinned = (
        network.digest(),
        digest(spikes, readout),
        state_digest(potentials),
        saturations(expected),
    )
    assert pinned == SATURATING and all(saturations(expected))
    assert_same(expected, Engine(network).run(IMAGES, STEPS, membranes=True))
    assert_same(expected, concatenate(list(build.run(network, IMAGES, STEPS, batch=1, membranes=len(IMAGES)))))


@every_version
def test_file_is_read_and_written_as_ever(version: int, tmp_path: Path) -> None:
    network = netx.read(FILES[version])
    assert netx.version_of(network) == version
    assert network.digest() == NETWORK[version]
    assert network.info == {"T": 6, "note": "golden"}
    netx.write(network, tmp_path / "again.h5")
    with h5py.File(tmp_path / "again.h5") as file:
        assert file.attrs["version"] == version
    assert netx.read(tmp_path / "again.h5").digest() == NETWORK[version]


def test_version_2_holds_what_version_1_cannot() -> None:
    """A residual block with the identity in two digits, a strided projection, exponents, hard resets and groups."""
    network = netx.read(FILES[2])
    connections = [connection for layer in network.layers for connection in layer.connections]
    assert [layer.reset for layer in network.layers].count("hard") == 2
    assert {connection.exponent for connection in connections} == {0, 1, 2, 3, 4, 7}
    assert {connection.groups for connection in connections} == {1, 2, 4}
    assert [connection.source for connection in network.layers[2].connections] == ["one", "stem", "stem"]
    assert network.layers[4].connections[1].stride == (2, 1)
    assert all(Engine(network).run(IMAGES, STEPS).spike_counts())


@every_version
def test_reference(version: int) -> None:
    network = netx.read(FILES[version])
    expected = judged(network, IMAGES, STEPS)
    spikes, potentials, readout = stacked(expected)
    assert digest(spikes, readout) == RUN[version]
    assert run_digest(network, spikes, readout) == DIGEST[version]
    assert (state_digest(potentials), saturations(expected)) == STATE[version]


@every_version
def test_integer_engine(version: int) -> None:
    trace = Engine(netx.read(FILES[version])).run(IMAGES, STEPS, membranes=True)
    assert digest_of(trace) == RUN[version]
    assert (states_of(trace), trace.saturation_counts()) == STATE[version]


@pytest.mark.parametrize("batch", [1, 2])
@every_version
def test_lava(version: int, batch: int) -> None:
    network = netx.read(FILES[version])
    got = concatenate(list(build.run(network, IMAGES, STEPS, batch=batch, membranes=len(IMAGES))))
    assert digest_of(got) == RUN[version]
    assert (states_of(got), got.saturation_counts()) == STATE[version]
    verdict = verify(network, part_of(IMAGES, LABELS), STEPS, build.run(network, IMAGES, STEPS, batch=batch))
    assert verdict.exact and verdict.digest == DIGEST[version]


@pytest.mark.slow
def test_lava_of_stock_parts() -> None:
    verdict = verify(netx.read(FILES[1]), part_of(IMAGES, LABELS), STEPS, stock.run(netx.read(FILES[1]), IMAGES, STEPS))
    assert verdict.exact and verdict.digest == DIGEST[1]


@pytest.mark.slow
@needs_lava_dl
def test_lava_dl() -> None:
    verdict = verify(netx.read(FILES[1]), part_of(IMAGES, LABELS), STEPS, netx_network.run(FILES[1], IMAGES, STEPS))
    assert verdict.exact and verdict.digest == DIGEST[1]
