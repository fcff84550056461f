"""Files of lava-dl: what is read, and what is refused in one line."""

from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from deploy.lava_dl import reader as lava_dl
from deploy.lava_dl.reader import LifNetwork, NetxError
from nqlava import netx
from tests.hdf5_changes import Change, replace
from tests.lava_dl.networks import generators, random_network, write


def assert_equal(one: LifNetwork, other: LifNetwork) -> None:
    assert (one.input_shape, one.transform, len(one.layers)) == (other.input_shape, other.transform, len(other.layers))
    for layer, twin in zip(one.layers, other.layers, strict=True):
        for field in fields(layer):
            a, b = getattr(layer, field.name), getattr(twin, field.name)
            assert (a is None) == (b is None) and np.array_equal(a, b) if a is not None else b is None, field.name


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generators())
def test_reads_what_was_written(tmp_path: Path, rng: np.random.Generator) -> None:
    network = random_network(rng)
    write(network, tmp_path / "network.net")
    assert_equal(lava_dl.read(tmp_path / "network.net"), network)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An input (2, 5, 4), 1 a convolution to (3, 3, 3), 2 flatten, 3 dense with delays."""
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "network.net", "w") as file:
        for index, kind in enumerate(["input", "conv", "flatten", "dense"]):
            file.create_dataset(f"layer/{index}/type", (1,), "S10", [kind.encode()])
        file["layer/0/shape"] = [2, 5, 4]
        file["layer/1/shape"] = [3, 3, 3]
        file["layer/1/weight"] = (2 * rng.integers(-50, 50, (3, 2, 3, 2, 1))).astype(np.float32)
        file["layer/1/bias"] = np.array([4.0, -2.0, 0.0], np.float32)
        for key, value in {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}.items():
            file[f"layer/1/{key}"] = value
        file["layer/3/shape"] = [6]
        file["layer/3/weight"] = (2 * rng.integers(-50, 50, (6, 27))).astype(np.float32)
        file["layer/3/delay"] = np.array([0.0, 1.0, 99.0, 3.7, 0.0, 0.0], np.float32)
        for index in (1, 3):
            for key, value in {"iDecay": 1024, "vDecay": 128, "vThMant": 80, "refDelay": 1}.items():
                file[f"layer/{index}/neuron/{key}"] = value
            file[f"layer/{index}/neuron/type"] = "CUBA"
    return tmp_path / "network.net"


def test_reads_what_slayer_writes(path: Path) -> None:
    network = lava_dl.read(path)
    convolution, dense = network.layers
    assert network.input_shape == (2, 5, 4) and not network.has_input_neurons and network.has_delays
    assert network.places == (1, 2)
    assert convolution.name == "1 (conv)" and convolution.shape == (3, 3, 3) and convolution.delay is None
    assert convolution.weight is not None and convolution.weight.shape == (3, 2, 3, 2)
    assert convolution.bias.tolist() == [4, -2, 0]
    assert dense.delay is not None and dense.delay.reshape(-1).tolist() == [0, 1, 62, 3, 0, 0]
    assert (dense.current_decay, dense.voltage_decay, dense.threshold) == (1024, 128, 80)


def test_neurons_that_are_not_there_are_those_of_lava_dl(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["layer/3/neuron"]
    dense = lava_dl.read(path).layers[-1]
    assert (dense.current_decay, dense.voltage_decay, dense.threshold) == (0, 4096, 2**17)


def test_a_convolution_without_input_layer_needs_the_shape_of_the_input(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["layer/0"]
        for index in range(3):
            file.move(f"layer/{index + 1}", f"layer/{index}")
    with pytest.raises(NetxError, match="shape of the input is not in the file; allowed: \\(2, H, W\\), given by"):
        lava_dl.read(path)
    assert lava_dl.read(path, (2, 5, 4)).input_shape == (2, 5, 4)


def put(key: str, value: object) -> Change:
    """Stores a value where there may be one."""

    def change(file: h5py.File) -> None:
        if key in file:
            del file[key]
        file[key] = value

    return change


def link(key: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = h5py.ExternalLink("/dev/zero", "/x")

    return change


CONV, DENSE = "layer 1 (conv): ", "layer 3 (dense): "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("layer/1/type", "pool"), "layer 1: type is pool; allowed: conv, dense, flatten"),
        (put("layer/3/type", "dense_rec"), "layer 3: type is dense_rec; allowed: conv, dense, flatten"),
        (put("layer/3/type", "input"), "layer 3: type is input; allowed: conv, dense, flatten"),
        (put("layer/2/type", "dense"), "layer 2 (dense): type is dense; allowed: conv or flatten behind an"),
        (put("layer/3/type", "flatten"), "layer 3 (flatten): keys is delay, neuron, weight; allowed: shape, type"),
        (put("layer/1/neuron/type", "SDNN"), CONV + "neuron/type is SDNN; allowed: CUBA, LOIHI"),
        (put("layer/3/neuron/type", "ALIF"), DENSE + "neuron/type is ALIF; allowed: CUBA, LOIHI"),
        (put("layer/3/neuron/type", "RF_PHASE"), DENSE + "neuron/type is RF_PHASE; allowed: CUBA, LOIHI"),
        (put("layer/3/neuron/thDecay", 3), DENSE + "keys of neuron is thDecay; allowed: "),
        (put("layer/3/weight_rec", 3), DENSE + "keys is weight_rec; allowed: "),
        (put("layer/3/weight", np.full((6, 27), 256)), DENSE + "weight is 256; allowed: integers -256..255"),
        (put("layer/3/weight", np.full((6, 27), 0.5)), DENSE + "weight is 0.5; allowed: integers -256..255"),
        (put("layer/3/weight", np.full((6, 27), np.nan)), DENSE + "weight is nan; allowed: integers -256..255"),
        (put("layer/3/weight", np.zeros((6, 26))), DENSE + "weight is of shape (6, 26); allowed: (6, 27)"),
        (put("layer/3/weight", np.zeros((0, 27))), DENSE + "weight is of shape (0, 27); allowed: every"),
        (put("layer/3/weight", "text"), DENSE + "weight is of type object; allowed: numbers"),
        (put("layer/1/weight", np.zeros((3, 3, 3, 2))), CONV + "weight is of shape (3, 3, 3, 2) with groups 1"),
        (put("layer/1/weight", np.zeros((3, 2, 6, 2))), CONV + "weight is of shape (3, 2, 6, 2); allowed: a kernel"),
        (put("layer/1/shape", [3, 3, 4]), CONV + "shape is (3, 3, 4); allowed: (3, 3, 3)"),
        (put("layer/1/stride", [0, 1]), CONV + "stride is 0; allowed: integers 1..32767"),
        (put("layer/1/stride", [1, 1, 1]), CONV + "stride is of shape (3,); allowed: 1 or 2 values"),
        (put("layer/1/groups", 2), CONV + "weight is of shape (3, 2, 3, 2) with groups 2; allowed: (O, 2 / groups"),
        (put("layer/1/delay", [0.0, 2.0, 0.0]), CONV + "delay is up to 2; allowed: 0, since lava-dl's reader ignores"),
        (put("layer/3/delay", [1.0, 2.0]), DENSE + "delay is of shape (2,); allowed: (), (6,), (27,) or (6, 27)"),
        (put("layer/3/delay", -np.ones(6)), DENSE + "delay is -1; allowed: 0..2147483647"),
        (put("layer/1/bias", [1, 2]), CONV + "bias is of shape (2,); allowed: 3 values"),
        (put("layer/1/bias", [1, 2, 2**15]), CONV + "bias is 32768; allowed: integers -32768..32767"),
        (put("layer/1/neuron/iDecay", 4097), CONV + "neuron/iDecay is 4097; allowed: integers 0..4096"),
        (put("layer/1/neuron/vDecay", [1, 2]), CONV + "neuron/vDecay is of shape (2,); allowed: 1 or 3 values"),
        (put("layer/1/neuron/vThMant", -1), CONV + "neuron/vThMant is -1; allowed: integers 0..262143"),
        (put("layer/1/neuron/refDelay", 2), CONV + "neuron/refDelay is 2; allowed: 1, "),
        (put("layer/1/neuron/weight_exp", [1.0]), CONV + "neuron/weight_exp is 1; allowed: 0, "),
        (put("layer/1/neuron/gradedSpike", True), CONV + "neuron/gradedSpike is 1; allowed: 0, "),
        (replace("layer/1/neuron", None), CONV + "neuron is missing; allowed: present"),
        (replace("layer/1/weight", None), CONV + "weight is missing; allowed: present"),
        (replace("layer/3", None), "layer 2: type is flatten; allowed: "),
        (replace("layer/2", None), "file: keys of layer is {0, 1, 3}; allowed: {0, 1, 2}"),
        (replace("layer", None), "file: layer is missing; allowed: present"),
        (link("layer/3/weight"), DENSE + "weight is a ExternalLink; allowed: stored in this file"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(path: Path, change: Change, message: str) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(NetxError) as error:
        lava_dl.read(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_refuses_complex_weights(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["layer/3/weight"]
        file["layer/3/weight/real"] = file["layer/3/weight/imag"] = np.zeros((6, 27))
    with pytest.raises(NetxError, match="weight is not a dataset"):
        lava_dl.read(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2**15, 2**15), "f4", r"weight is of shape \(32768, 32768\); allowed: at most 268435456 values"),
        ((2**13, 2**12), "i1", r"size of the values up to layer 3 \(dense\): weight is 16\d* bytes"),
    ],
    ids=["to be read", "to be checked"],
)
def test_refuses_what_is_too_large_before_it_is_read(
    path: Path, shape: tuple[int, int], dtype: str, message: str
) -> None:
    with h5py.File(path, "r+") as file:
        del file["layer/3/weight"]
        file.create_dataset("layer/3/weight", shape, dtype, chunks=(64, 64))
    with pytest.raises(NetxError, match=message):
        lava_dl.read(path)


def test_refuses_a_dense_weight_without_axes_behind_an_unknown_shape(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.net", "w") as file:
        put("layer/0/type", "dense")(file)
        put("layer/0/shape", [1])(file)
        put("layer/0/weight", 2)(file)
    with pytest.raises(NetxError, match=r"layer 0 \(dense\): weight is of shape \(\); allowed: \(1, 1\)"):
        lava_dl.read(tmp_path / "net.net")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, not the file itself"),
        (b"something", "not a readable HDF5 file"),
    ],
)
def test_refuses_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "network.net").write_bytes(content)
    with pytest.raises(NetxError, match=message):
        lava_dl.read(tmp_path / "network.net")


def test_names_the_command_for_the_other_kind_of_file(path: Path) -> None:
    with pytest.raises(netx.NetxError, match=r"a network of lava-dl; python -m deploy\.run_lava_dl runs it$"):
        netx.read(path)
    ours = Path(__file__).parent.parent / "golden" / "version1.h5"
    with pytest.raises(NetxError, match=r"a network of this project; python -m deploy\.run_lava runs it$"):
        lava_dl.read(ours)


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        lava_dl.read(tmp_path / "network.net")
    with pytest.raises(NetxError, match="not a file"):
        lava_dl.read(tmp_path)
