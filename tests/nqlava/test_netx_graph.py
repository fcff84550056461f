"""Version 2 of the file, for graphs: what is written is read again, and everything else gets its own message."""

import re
from dataclasses import replace as changed
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nqlava.network import IMAGE, Connection, IntegerNetwork
from nqlava.netx import NetxError, read, version_of, write
from nqlava.netx_layout import MAX_CONNECTIONS, MAX_LAYERS
from nqlava.testing.networks import random_connection, random_layer, random_neurons
from nqlava.testing.strategies import networks
from tests.hdf5_changes import Change, attribute, replace


def residual() -> IntegerNetwork:
    """Layer 1 (first) → 2 (second, with a shortcut from 0, the image) → 3 (out, which also takes layer 1)."""
    rng = np.random.default_rng(0)
    shape = (4, 6, 5)
    first = random_layer(rng, "first", (2, 6, 5), outputs=4, kernel=(3, 3), padding=(1, 1), exponent=1)
    connections = (
        random_connection(rng, "first", shape, outputs=4, kernel=(3, 1), padding=(1, 0), groups=2),
        random_connection(rng, IMAGE, (2, 6, 5), outputs=4, kernel=(1, 1), exponent=7),
    )
    second = random_neurons(rng, "second", connections, shape, bias_map=True, reset="hard")
    dense = (
        random_connection(rng, "second", shape, outputs=3),
        random_connection(rng, "first", shape, outputs=3, exponent=15),
    )
    return IntegerNetwork((2, 6, 5), (first, second, random_neurons(rng, "out", dense, (3,), readout=True)), {"T": 8})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(residual(), tmp_path / "net.net")
    return tmp_path / "net.net"


def sequence(exponent: int = 0, reset: str = "soft") -> IntegerNetwork:
    rng = np.random.default_rng(1)
    first = random_layer(rng, "first", (1, 3, 4), outputs=2, exponent=exponent, reset=reset)
    return IntegerNetwork((1, 3, 4), (first, random_layer(rng, "out", (2,), source="first", outputs=3, readout=True)))


def stored_version(path: Path) -> int:
    with h5py.File(path) as file:
        return int(file.attrs["version"])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(networks(graph=True))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, network: IntegerNetwork) -> None:
    path = tmp_path_factory.getbasetemp() / "graph.net"
    write(network, path)
    again = read(path)
    assert again.digest() == network.digest() and again.input_shape == network.input_shape
    assert [(layer.name, layer.sources, layer.reset) for layer in again.layers] == [
        (layer.name, layer.sources, layer.reset) for layer in network.layers
    ]
    assert stored_version(path) == version_of(network)
    before = path.read_bytes()
    write(again, path)
    assert path.read_bytes() == before


def test_the_network_decides_on_the_version(tmp_path: Path) -> None:
    twice = sequence().layers[1]
    wired = changed(sequence(), layers=(sequence().layers[0], changed(twice, connections=2 * twice.connections)))
    for network, version in [
        (sequence(), 1),
        (sequence(exponent=1), 2),
        (sequence(reset="hard"), 2),
        (wired, 2),
        (residual(), 2),
    ]:
        write(network, tmp_path / "net.net")
        assert stored_version(tmp_path / "net.net") == version_of(network) == version


def test_a_layer_and_its_connections_as_documented(path: Path) -> None:
    with h5py.File(path) as file:
        assert set(file["layer/2"]) == {"type", "shape", "bias", "neuron", "connection"}
        assert file["layer/2/type"][()] == b"neurons" and file["layer/2/neuron/type"][()] == b"IF-hard-reset"
        assert file["layer/2/bias"].shape == (5, 6, 4)
        connections = file["layer/2/connection"]
        assert [connections[k]["source"][()] for k in "01"] == [1, 0]
        assert [connections[k]["exponent"][()] for k in "01"] == [0, 7]
        assert [connections[k]["groups"][()] for k in "01"] == [2, 1]
        assert [connections[k]["type"][()] for k in "01"] == [b"conv", b"conv"]
        assert [connections[k]["weight"].shape for k in "01"] == [(4, 2, 3, 1), (4, 2, 1, 1)]
        assert connections["0/padding"][()].tolist() == [1, 0]
        assert set(file["layer/3/connection/0"]) == {"type", "source", "weight", "exponent"}


def cycle(file: h5py.File) -> None:
    del file["layer/2/connection/0"]
    file["layer/2/connection/0"] = file["layer/2/connection"]


def around(file: h5py.File) -> None:
    del file["layer/2/connection"]
    file["layer/2/connection"] = file["layer"]


def gap(file: h5py.File) -> None:
    file.move("layer/2/connection/1", "layer/2/connection/2")


def too_many(file: h5py.File) -> None:
    for number in range(2, MAX_CONNECTIONS + 1):
        file[f"layer/2/connection/{number}"] = file["layer/2/connection/1"]


def huge(file: h5py.File) -> None:
    del file["layer/2/connection/1/weight"]
    file.create_dataset("layer/2/connection/1/weight", (2**20, 2**10, 3, 2), np.int8, chunks=True)


def heavy(file: h5py.File) -> None:
    del file["layer/2/bias"]
    file.create_dataset("layer/2/bias", (2**13, 2**13, 4), np.int32, chunks=True)


def large_chunk(file: h5py.File) -> None:
    del file["layer/1/bias"]
    file.create_dataset("layer/1/bias", (4,), np.int32, maxshape=(None,), chunks=(2**29,), compression="gzip")


def small_chunks(file: h5py.File) -> None:
    del file["layer/1/bias"]
    file.create_dataset("layer/1/bias", (2**16 + 1,), np.int32, chunks=(1,))


def external(file: h5py.File) -> None:
    del file["layer/2/connection/1/weight"]
    file.create_dataset("layer/2/connection/1/weight", (4, 2, 1, 1), np.int8, external=[("/etc/passwd", 0, 8)])


def virtual(file: h5py.File) -> None:
    del file["layer/2/connection/1/weight"]
    layout = h5py.VirtualLayout((4, 2, 1, 1), np.int8)
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 2, 1, 1))
    file.create_virtual_dataset("layer/2/connection/1/weight", layout)


def no_numpy_type(file: h5py.File) -> None:
    del file["layer/1/bias"]
    h5py.h5d.create(file["layer/1"].id, b"bias", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((4,)))


def no_numpy_attribute(file: h5py.File) -> None:
    h5py.h5a.create(file["info"].id, b"x", h5py.h5t.UNIX_D32LE, h5py.h5s.create(h5py.h5s.SCALAR))


AT = "layer/2/connection/1"
SHORTCUT = "layer 2 (second), connection 1: "
BAD: dict[str, tuple[Change, str]] = {
    "newer": (attribute("/", "version", np.int64(3)), "file: attribute version is 3; allowed: 1, 2"),
    "older": (
        attribute("/", "version", np.int64(1)),
        "layer 1: type is neurons; allowed: conv, dense, flatten, input",
    ),
    "type of version 1": (
        replace("layer/1/type", np.bytes_("conv")),
        "layer 1: type is conv; allowed: input, neurons",
    ),
    "missing group": (
        replace("layer/2/connection", None),
        "layer 2: keys of type neurons is {bias, neuron, shape, type}; allowed: {bias, connection, neuron,",
    ),
    "no group": (replace("layer/2/connection", 1), "layer 2 (second): connection is not a group; allowed: a group"),
    "no connections": (
        lambda f: (replace(AT, None)(f), replace("layer/2/connection/0", None)(f)),
        "layer 2 (second): number of connections is 0; allowed: 1..64",
    ),
    "too many": (too_many, "layer 2 (second): number of connections is 65; allowed: 1..64"),
    "gap": (gap, "layer 2 (second): keys of connection is {0, 2}; allowed: {0, 1}"),
    "a dataset": (replace(AT, 1), "layer 2 (second), connection: 1 is not a group; allowed: a group"),
    "attribute": (
        attribute("layer/2/connection", "x", 1),
        "layer 2 (second): attributes of connection is {x}; allowed: {}",
    ),
    "attribute of one": (attribute(AT, "name", "x"), f"{SHORTCUT}attributes is {{name}}; allowed: {{}}"),
    "attribute of all layers": (attribute("layer", "x", 1), "file: attributes of layer is {x}; allowed: {}"),
    "unknown key": (
        lambda f: f[AT].create_dataset("delay", data=1),
        f"{SHORTCUT}keys of type conv is {{delay, dilation, exponent, groups,",
    ),
    "missing source": (replace(f"{AT}/source", None), f"{SHORTCUT}keys of type conv is {{dilation, exponent, groups,"),
    "name that is not UTF-8": (
        lambda f: f["layer/3/connection/0"].id.link(b"weight", b"\xff", h5py.h5g.LINK_HARD),
        "layer 3 (out), connection 0: keys of type dense is {b'\\xff', exponent, source, type, weight}; allowed",
    ),
    "geometry of a dense connection": (
        lambda f: f["layer/3/connection/0"].create_dataset("groups", data=1),
        "layer 3 (out), connection 0: keys of type dense is {exponent, groups, source, type, weight}; allowed",
    ),
    "type": (replace(f"{AT}/type", np.bytes_("flatten")), f"{SHORTCUT}type is flatten; allowed: conv, dense"),
    "type number": (replace(f"{AT}/type", 3), f"{SHORTCUT}type is of type int64; allowed: conv, dense"),
    "later source": (
        replace(f"{AT}/source", np.int64(3)),
        f"{SHORTCUT}source is 3; allowed: 0..1, the layers that come before",
    ),
    "itself": (replace(f"{AT}/source", np.int64(2)), f"{SHORTCUT}source is 2; allowed: 0..1, the layers that come bef"),
    "negative source": (replace(f"{AT}/source", np.int64(-1)), f"{SHORTCUT}source is -1; allowed: 0..1, the layers"),
    "large source": (replace(f"{AT}/source", np.int64(2**62)), f"{SHORTCUT}source is 4611686018427387904; allowed: 0"),
    "named source": (replace(f"{AT}/source", np.bytes_("first")), f"{SHORTCUT}source is of type |S5; allowed: int64"),
    "sources": (replace(f"{AT}/source", np.int64([0])), f"{SHORTCUT}source is of shape (1,); allowed: ()"),
    "other source": (
        replace(f"{AT}/source", np.int64(1)),
        "layer second: connection from first: weight is for 2 channels; allowed: 4 input channels",
    ),
    "exponent": (
        replace(f"{AT}/exponent", np.int64(16)),
        f"{SHORTCUT}connection from input: exponent is 16; allowed: 0..15",
    ),
    "negative exponent": (
        replace(f"{AT}/exponent", np.int64(-1)),
        f"{SHORTCUT}connection from input: exponent is -1; allowed: 0..15",
    ),
    "float exponent": (replace(f"{AT}/exponent", 2.0), f"{SHORTCUT}exponent is of type float64; allowed: int64"),
    "float weights": (
        replace(f"{AT}/weight", np.ones((4, 2, 1, 1))),
        f"{SHORTCUT}weight is of type float64; allowed: int8",
    ),
    "-128": (
        replace(f"{AT}/weight", np.full((4, 2, 1, 1), -128, np.int8)),
        f"{SHORTCUT}connection from input: weight is -128; allowed: -127..127",
    ),
    "dense weights": (
        replace("layer/3/connection/1/weight", np.ones((3, 119), np.int8)),
        "layer 3 (out), connection 1: weight is of shape (3, 119); allowed: (O, 120), every size at least 1",
    ),
    "outputs": (
        replace(f"{AT}/weight", np.ones((5, 2, 1, 1), np.int8)),
        "layer second: connection from input is 5 outputs, convolution; allowed: 4 outputs, convolution as the first",
    ),
    "output shapes": (
        replace(f"{AT}/padding", np.int64([1, 0])),
        "layer second: connection from input is for an output of (4, 8, 5); allowed: (4, 6, 5)",
    ),
    "stride": (
        replace(f"{AT}/stride", np.int64([1, 0])),
        f"{SHORTCUT}connection from input: stride is (1, 0); allowed: two integers (y, x) of at least 1",
    ),
    "padding": (
        replace(f"{AT}/padding", np.int64([2**40, 0])),
        f"{SHORTCUT}padding is (1099511627776, 0); allowed: 2 integers 0..268435456",
    ),
    "declared shape": (
        replace("layer/2/shape", np.int64([4, 5, 6])),
        "layer 2 (second): shape is (4, 5, 6); allowed: (4",
    ),
    "name of the image": (
        attribute("layer/1", "name", np.bytes_("input")),
        "layer 1: name is input; allowed: unique names, and not input",
    ),
    "name twice": (attribute("layer/2", "name", np.bytes_("first")), "layer 2: name is first; allowed: unique names"),
    "unused layer": (
        lambda f: replace("layer/3/connection/0/source", np.int64(1))(f),
        "layer second: it is the source of nothing; allowed: only what the read-out needs",
    ),
    "neuron": (
        replace("layer/2/neuron/type", np.bytes_("LIF")),
        "layer 2 (second): type is LIF; allowed: IF-hard-reset, IF-soft-reset, integrator",
    ),
    "no threshold": (
        replace("layer/2/neuron/vThMant", None),
        "layer 2 (second): keys of neuron IF-hard-reset is {type, v0}; allowed: {type, v0, vThMant}",
    ),
    "hard reset in the read-out": (
        lambda f: (
            replace("layer/3/neuron/type", np.bytes_("IF-hard-reset"))(f),
            f["layer/3/neuron"].create_dataset("vThMant", data=np.ones(3, np.int32)),
        ),
        "layer out: the last layer is not a read-out; allowed: dense, without threshold",
    ),
    "huge": (huge, f"{SHORTCUT}weight is of shape (1048576, 1024, 3, 2); allowed: at most 268435456 values"),
    "heavy": (heavy, "file: size of the values up to layer 2 (second): bias is 107374"),
    "chunk": (
        large_chunk,
        "file: size of the values up to layer 1 (first): bias is 2147483861 bytes; allowed: at most 1073741824",
    ),
    "chunks": (
        small_chunks,
        "layer 1 (first): bias is in 65537 chunks; allowed: at most 65536",
    ),
    "type unknown to NumPy": (no_numpy_type, "not a readable HDF5 file: No NumPy equivalent for TypeTimeID exists"),
    "attribute unknown to NumPy": (no_numpy_attribute, "not a readable HDF5 file: No NumPy equivalent for TypeTimeID"),
    "external": (external, f"{SHORTCUT}weight is stored elsewhere; allowed: stored in this file"),
    "virtual": (virtual, f"{SHORTCUT}weight is stored elsewhere; allowed: stored in this file"),
    "soft link": (
        replace(AT, h5py.SoftLink("/layer/2/connection/0")),
        "layer 2 (second), connection: 1 is a SoftLink; allowed: stored in this file",
    ),
    "soft link to itself": (replace(AT, h5py.SoftLink(f"/{AT}")), "connection: 1 is a SoftLink; allowed: stored in th"),
    "external link": (
        replace(f"{AT}/weight", h5py.ExternalLink("/etc/passwd", "x")),
        f"{SHORTCUT}weight is a ExternalLink; allowed: stored in this file",
    ),
    "external group": (
        replace("layer/2/connection", h5py.ExternalLink("/etc/passwd", "x")),
        "layer 2 (second): connection is a ExternalLink; allowed: stored in this file",
    ),
    "cycle": (cycle, "layer 2 (second), connection 0: type is missing; allowed: present"),
    "cycle through the layers": (around, "layer 2 (second), connection 0: type is input; allowed: conv, dense"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(path: Path, case: str) -> None:
    change, message = BAD[case]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(NetxError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text and "\n" not in text


def test_hard_reset_is_no_neuron_of_version_1(tmp_path: Path) -> None:
    write(sequence(), tmp_path / "net.net")
    with h5py.File(tmp_path / "net.net", "r+") as file:
        replace("layer/2/neuron/type", np.bytes_("IF-hard-reset"))(file)
    with pytest.raises(NetxError, match="type is IF-hard-reset; allowed: IF-soft-reset, integrator"):
        read(tmp_path / "net.net")


def test_what_version_1_can_hold_is_refused_in_version_2(tmp_path: Path) -> None:
    write(sequence(exponent=1), tmp_path / "net.net")
    with h5py.File(tmp_path / "net.net", "r+") as file:
        replace("layer/1/connection/0/exponent", np.int64(0))(file)
    with pytest.raises(NetxError, match="file: attribute version is 2; allowed: 1 for this network"):
        read(tmp_path / "net.net")


def test_all_values_together_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly: the file is read with a limit of its size, and refused with one byte less.

    An array with several hard links counts each time that it is read.
    """
    with h5py.File(path, "r+") as file:
        replace(f"{AT}/stride", None)(file)
        file[f"{AT}/stride"] = file["layer/2/connection/0/stride"]
        sizes: list[int] = [file[f"{AT}/stride"].nbytes]
        file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    monkeypatch.setattr("nqlava.hdf5.MAX_BYTES", sum(sizes))
    assert read(path).digest() == residual().digest()
    monkeypatch.setattr("nqlava.hdf5.MAX_BYTES", sum(sizes) - 1)
    message = (
        f"file: size of the values up to layer 3 (out): shape is {sum(sizes)} bytes; allowed: at most {sum(sizes) - 1}"
    )
    with pytest.raises(NetxError, match=re.escape(message)):
        read(path)


@pytest.mark.slow
def test_what_could_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, last = sequence().layers
    wired = changed(last, connections=last.connections * (MAX_CONNECTIONS + 1))
    with pytest.raises(NetxError, match=r"net: layer 2 \(out\): number of connections is 65; allowed: 1\.\.64"):
        write(changed(sequence(), layers=(one, wired)), tmp_path / "net.net")
    single = Connection(IMAGE, np.ones((1, 1), np.int8), exponent=1)
    layers = []
    for index in range(MAX_LAYERS):
        final = index == MAX_LAYERS - 1
        value = np.ones(1, np.int32)
        source = changed(single, source=f"layer{index - 1}") if index else single
        layers.append(type(one)(f"layer{index}", (source,), value, None if final else value, value))
    with pytest.raises(NetxError, match=r"net: file: number of layers is 1001; allowed: 2\.\.1000"):
        write(IntegerNetwork((1, 1, 1), tuple(layers)), tmp_path / "net.net")
    monkeypatch.setattr("nqlava.hdf5.MAX_BYTES", 100)
    with pytest.raises(NetxError, match=r"bytes; allowed: at most 100"):
        write(residual(), tmp_path / "net.net")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "net.net"
    write(residual(), path)
    return path.read_bytes()


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes(tmp_path_factory: pytest.TempPathFactory, valid: bytes, data: st.DataObject) -> None:
    """Whatever bytes are changed or missing: a valid network or a NetxError of one line."""
    path = tmp_path_factory.getbasetemp() / "damaged.net"
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        assert read(path).input_shape
    except NetxError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
