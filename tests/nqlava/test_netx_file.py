"""Files hold exactly the network that was written, and every damaged or foreign file gets its own message."""

import dataclasses
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from nqlava.network import IntegerNetwork
from nqlava.netx import NetxError, read, write
from nqlava.testing.networks import random_layer
from nqlava.testing.strategies import networks
from tests.hdf5_changes import attribute, replace


def assert_same(one: IntegerNetwork, two: IntegerNetwork) -> None:
    assert one.digest() == two.digest()
    assert one.input_shape == two.input_shape
    assert [layer.name for layer in one.layers] == [layer.name for layer in two.layers]
    assert dict(one.info) == dict(two.info)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(networks())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, network: IntegerNetwork) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.net"
    info = {"model": "vgg", "levels": 4, "accuracy": 0.9375, "größe": "ä\n"}
    write(dataclasses.replace(network, info={k: v for k, v in info.items() if k.isascii()}), path)
    again = read(path)
    assert again.digest() == network.digest()
    assert [type(again.info[key]) for key in ("model", "levels", "accuracy")] == [str, int, float]
    before = path.read_bytes()
    write(again, path)
    assert path.read_bytes() == before


@pytest.fixture
def network() -> IntegerNetwork:
    rng = np.random.default_rng(0)
    conv = random_layer(rng, "conv", (2, 6, 5), outputs=3, kernel=(3, 2), stride=(2, 1), padding=(1, 0), bias_map=True)
    dense = random_layer(rng, "dense", (3, 3, 4), source="conv", outputs=6)
    readout = random_layer(rng, "out", (6,), source="dense", outputs=3, readout=True)
    return IntegerNetwork((2, 6, 5), (conv, dense, readout), {"T": 8})


@pytest.fixture
def path(network: IntegerNetwork, tmp_path: Path) -> Path:
    write(network, tmp_path / "net.net")
    return tmp_path / "net.net"


def test_bytes_do_not_depend_on_time_or_name(network: IntegerNetwork, path: Path, tmp_path: Path) -> None:
    time.sleep(1.1)
    write(network, tmp_path / "other.net")
    assert (tmp_path / "other.net").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.net", "other.net"]
    assert_same(read(path), network)


def test_info_that_is_true_or_false(network: IntegerNetwork, tmp_path: Path) -> None:
    write(dataclasses.replace(network, info={"pruned": True, "merged": False}), tmp_path / "net.net")
    found = read(tmp_path / "net.net").info
    assert found["pruned"] is True and found["merged"] is False


def test_nothing_is_written_beside_the_file(
    network: IntegerNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(network, Path("net.net"))
    assert [p.name for p in tmp_path.iterdir()] == ["net.net"]


@pytest.mark.parametrize(
    ("name", "fits"), [("", False), ("a", True), ("a" * 64, True), ("a" * 65, False), ("ä", False)]
)
def test_names_of_layers(network: IntegerNetwork, tmp_path: Path, name: str, fits: bool) -> None:
    first, second, last = network.layers
    connection = dataclasses.replace(second.connections[0], source=name)
    layers = dataclasses.replace(first, name=name), dataclasses.replace(second, connections=(connection,)), last
    renamed = dataclasses.replace(network, layers=layers)
    if fits:
        write(renamed, tmp_path / "net.net")
        assert_same(read(tmp_path / "net.net"), renamed)
    else:
        with pytest.raises(NetxError, match=r"layer: name is .*; allowed: 1 to 64 printable ASCII"):
            write(renamed, tmp_path / "net.net")


def test_failed_write_keeps_the_old_file(network: IntegerNetwork, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def refuse(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write(network, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["net.net"]


def huge(file: h5py.File) -> None:
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (2**20, 2**10, 3, 2), np.int8, chunks=True)


def external(file: h5py.File) -> None:
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (3, 2, 3, 2), np.int8, external=[("/etc/passwd", 0, 36)])


def dangling(file: h5py.File) -> None:
    file["layer/1/weight_"] = 0
    del file["layer/1/weight_"], file["layer/1/neuron"]
    file["layer/1/neuron"] = h5py.SoftLink("/layer/3/neuron")


def foreign(file: h5py.File) -> None:
    del file.attrs["format"], file["layer"]


def no_image(file: h5py.File) -> None:
    del file["layer/0/shape"]
    replace("layer/0/type", np.bytes_("flatten"))(file)


def second_image(file: h5py.File) -> None:
    file["layer/2/shape"] = file["layer/0/shape"][()]
    replace("layer/2/type", np.bytes_("input"))(file)


def flattened_twice(file: h5py.File) -> None:
    del file["layer/3"]
    file.copy("layer/2", "layer/3")


def convolution_of_flat(file: h5py.File) -> None:
    del file["layer/3"]
    file.copy("layer/1", "layer/3")


def flatten_at_the_end(file: h5py.File) -> None:
    del file["layer/3"], file["layer/4"]


INT32 = np.int32
BAD = {
    "no version": (attribute("/", "version", None), "file: attribute version is missing; allowed: 1, 2"),
    "newer": (attribute("/", "version", np.int64(3)), "file: attribute version is 3; allowed: 1, 2"),
    "format": (attribute("/", "format", np.bytes_("x")), "file: attribute format is b'x'; allowed: nq-netx"),
    "no format": (attribute("/", "format", None), "file: attribute format is missing; allowed: nq-netx"),
    "foreign": (foreign, "file: attribute format is missing; allowed: nq-netx"),
    "no image": (no_image, "layer 0: type is flatten; allowed: input"),
    "second image": (second_image, "layer 2: type is input; allowed: input in layer 0 only"),
    "flattened twice": (
        flattened_twice,
        "layer 3: type is flatten; allowed: conv or dense behind an output of (3, 3, 4)",
    ),
    "convolution of flat": (convolution_of_flat, "layer 3: type is conv; allowed: dense behind flatten"),
    "flatten at the end": (flatten_at_the_end, "layer 2: type is flatten; allowed: dense in the last layer"),
    "of lava-dl": (
        lambda f: (attribute("/", "format", None)(f), replace("layer/0/type", np.array([b"input"]))(f)),
        "a network of lava-dl; python -m deploy.run_lava_dl runs it",
    ),
    "root attribute": (attribute("/", "x", 1), "file: attributes is {format, version, x}; allowed: {format, version}"),
    "attribute of the image": (attribute("layer/0", "x", 1), "layer 0: attributes is {x}; allowed: {}"),
    "attribute of flatten": (attribute("layer/2", "x", 1), "layer 2: attributes is {x}; allowed: {}"),
    "key of info": (lambda f: f["info"].create_dataset("x", data=1), "info: keys is {x}; allowed: {}"),
    "no name": (attribute("layer/3", "name", None), "layer 3: attributes is {}; allowed: {name}"),
    "root key": (replace("info", None), "file: keys is {layer}; allowed: {info, layer}"),
    "gap": (lambda f: f.move("layer/3", "layer/7"), "file: keys of layer is {0, 1, 2, 4, 7}; allowed: {0, 1, 2, 3, 4}"),
    "no layers": (replace("layer", None), "file: keys is {info}"),
    "type": (replace("layer/1/type", np.bytes_("pool")), "layer 1: type is pool; allowed: conv, dense, flatten, input"),
    "control characters": (replace("layer/1/type", np.bytes_("a\nb\x1b[2J")), "type is a b\\x1b[2J; allowed: conv"),
    "type number": (replace("layer/1/type", 3), "layer 1: type is of type int64; allowed: conv"),
    "order": (
        replace("layer/2/type", np.bytes_("input")),
        "layer 2: keys of type input is {type}; allowed: {shape, type}",
    ),
    "no flatten": (
        lambda f: (
            f.move("layer/3", "layer/x"),
            replace("layer/2", None)(f),
            f.move("layer/x", "layer/2"),
            f.move("layer/4", "layer/3"),
        ),
        "layer 2: type is dense; allowed: conv or flatten behind an output of (3, 3, 4)",
    ),
    "unknown key": (
        lambda f: f["layer/1"].create_dataset("delay", data=1),
        "layer 1: keys of type conv is {bias, delay,",
    ),
    "missing key": (replace("layer/1/stride", None), "layer 1: keys of type conv is {bias, dilation, groups, neuron,"),
    "name": (attribute("layer/1", "name", np.bytes_("a\nb")), "layer: name is 'a\\nb'; allowed: 1 to 64 printable"),
    "twice": (attribute("layer/3", "name", np.bytes_("conv")), "layer conv: name is used twice; allowed: unique names"),
    "float weights": (
        replace("layer/3/weight", np.full((6, 36), np.nan)),
        "layer 3 (dense): weight is of type float64; allowed: int8",
    ),
    "wide weights": (replace("layer/3/weight", np.zeros((6, 36), INT32)), "weight is of type int32; allowed: int8"),
    "-128": (
        replace("layer/3/weight", np.full((6, 36), -128, np.int8)),
        "layer 3 (dense): connection from conv: weight is -128; allowed: -127..127",
    ),
    "weight shape": (
        replace("layer/3/weight", np.zeros((6, 35), np.int8)),
        "layer 3 (dense): weight is of shape (6, 35); allowed: (O, 36), every size at least 1",
    ),
    "weight rank": (
        replace("layer/1/weight", np.zeros((6, 36), np.int8)),
        "layer 1 (conv): weight is of shape (6, 36); allowed: (O, I, kh, kw), every size at least 1",
    ),
    "empty": (replace("layer/3/weight", np.zeros((0, 36), np.int8)), "weight is of shape (0, 36)"),
    "null": (replace("layer/3/weight", h5py.Empty(np.int8)), "weight is of shape None; allowed: at most"),
    "channels": (
        replace("layer/1/weight", np.zeros((3, 4, 3, 2), np.int8)),
        "layer conv: connection from input: weight is for 4 channels; allowed: 2 input channels",
    ),
    "huge": (huge, "layer 1 (conv): weight is of shape (1048576, 1024, 3, 2); allowed: at most 268435456 values"),
    "external": (external, "layer 1 (conv): weight is stored elsewhere; allowed: stored in this file"),
    "soft link": (dangling, "layer 1 (conv): neuron is a SoftLink; allowed: stored in this file"),
    "external link": (replace("layer/1/bias", h5py.ExternalLink("/etc/passwd", "x")), "bias is a ExternalLink"),
    "group": (lambda f: (replace("layer/1/bias", None)(f), f.create_group("layer/1/bias")), "bias is not a dataset"),
    "no group": (replace("layer/1/neuron", 1), "layer 1 (conv): neuron is not a group; allowed: a group"),
    "threshold": (
        replace("layer/3/neuron/vThMant", np.zeros(6, INT32)),
        "layer dense: threshold is 0; allowed: 1..8388607",
    ),
    "thresholds": (replace("layer/3/neuron/vThMant", np.ones(5, INT32)), "vThMant is of shape (5,); allowed: (6)"),
    "v0": (
        replace("layer/3/neuron/v0", np.full(6, 2**23, INT32)),
        "layer dense: v0 is 8388608; allowed: -8388607..8388607",
    ),
    "bias": (
        replace("layer/3/bias", np.full(6, -(2**23), INT32)),
        "layer dense: bias is -8388608; allowed: -8388607..8388607",
    ),
    "bias map": (
        replace("layer/1/bias", np.zeros((3, 4, 3), INT32)),
        "layer conv: bias is shape (3, 4, 3); allowed: (3,) or (3, 3, 4)",
    ),
    "bias type": (replace("layer/1/bias", np.zeros(3)), "layer 1 (conv): bias is of type float64; allowed: int32"),
    "neuron": (replace("layer/1/neuron/type", np.bytes_("CUBA")), "type is CUBA; allowed: IF-soft-reset, integrator"),
    "neuron keys": (
        replace("layer/1/neuron/v0", None),
        "keys of neuron IF-soft-reset is {type, vThMant}; allowed: {type, v0, vThMant}",
    ),
    "output shape": (replace("layer/1/shape", np.int64([3, 4, 3])), "layer 1: shape is (3, 4, 3); allowed: (3, 3, 4)"),
    "input shape": (
        replace("layer/0/shape", np.int64([-2, 6, 5])),
        "layer 0: shape is (-2, 6, 5); allowed: 3 integers",
    ),
    "input product": (replace("layer/0/shape", np.int64([2**20] * 3)), "layer 0: shape is (1048576, 1048576, 1048576)"),
    "stride": (
        replace("layer/1/stride", np.int64([0, 1])),
        "layer 1 (conv): connection from input: stride is (0, 1); allowed: two integers (y, x)",
    ),
    "groups": (
        replace("layer/1/groups", np.int64(2)),
        "layer 1 (conv): connection from input: groups is 2; allowed: a divisor of the 3 outputs",
    ),
    "groups rank": (replace("layer/1/groups", np.int64([1])), "layer 1 (conv): groups is of shape (1,); allowed: ()"),
    "info array": (
        attribute("info", "x", [1, 2]),
        "info: x is int64 of shape (2,); allowed: a number or a string",
    ),
    "info variable": (
        attribute("info", "x", "text"),
        "holds strings of variable length; allowed: of fixed length",
    ),
    "info nan": (attribute("info", "x", np.nan), "info: x is nan (float); allowed: a string"),
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


def test_read_out_in_the_middle(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        replace("layer/3/neuron/type", np.bytes_("integrator"))(file)
        del file["layer/3/neuron/vThMant"]
    with pytest.raises(NetxError, match="layer dense: threshold is missing; allowed only in the last layer"):
        read(path)


@pytest.mark.parametrize("keep", [0, 7, 0.3, 0.9, -1])
def test_truncated_files(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(NetxError, match="not a readable HDF5 file") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_damaged_compressed_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = IntegerNetwork((1, 40, 40), (random_layer(rng, "out", (1, 40, 40), outputs=9, readout=True),))
    write(network, tmp_path / "net.net")
    with h5py.File(tmp_path / "net.net") as file:
        chunk = file["layer/2/weight"].id.get_chunk_info(0)
    data = bytearray((tmp_path / "net.net").read_bytes())
    data[chunk.byte_offset + 40 : chunk.byte_offset + 60] = bytes(20)
    (tmp_path / "net.net").write_bytes(data)
    with pytest.raises(NetxError, match="not a readable HDF5 file"):
        read(tmp_path / "net.net")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.net: no such file"):
        read(tmp_path / "nowhere.net")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NetxError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}: not a file"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"x": float("inf")}, r"info: x is inf \(float\); allowed"),
        ({"x": 2**63}, r"info: x is 9223372036854775808 \(int\)"),
        ({"x": "a\0"}, r"info: x is a\\x00 \(str\)"),
        ({"x": None}, r"info: x is None \(NoneType\)"),
        ({"": 1}, "info: key is ''; allowed"),
    ],
)
def test_info_that_the_format_cannot_hold(network: IntegerNetwork, tmp_path: Path, info: dict, message: str) -> None:
    with pytest.raises(NetxError, match=message):
        write(dataclasses.replace(network, info=info), tmp_path / "net.net")
    assert not list(tmp_path.iterdir())
