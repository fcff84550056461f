"""Invalid networks cannot be built, valid ones cannot be changed, and the digest covers what is computed."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from nqlava.network import EXPONENT_MAX, MEMBRANE_MAX, Connection, IntegerNetwork, Layer, NetworkError

I32 = np.int32


def kernel(**changes: Any) -> Connection:
    fields: dict[str, Any] = {
        "source": "input",
        "weight": np.arange(-24, 24, dtype=np.int8).reshape(4, 2, 3, 2),
        "stride": (2, 1),
        "padding": (1, 0),
    }
    return Connection(**{**fields, **changes})


def matrix(**changes: Any) -> Connection:
    fields: dict[str, Any] = {"source": "conv", "weight": np.ones((3, 48), np.int8)}
    return Connection(**{**fields, **changes})


def convolution(**changes: Any) -> Layer:
    fields: dict[str, Any] = {
        "name": "conv",
        "connections": (kernel(),),
        "bias": np.array([1, -2, 3, -4], I32),
        "threshold": np.array([9, 8, 7, 6], I32),
        "v0": np.array([4, 4, 3, -3], I32),
    }
    return Layer(**{**fields, **changes})


def dense(**changes: Any) -> Layer:
    fields: dict[str, Any] = {
        "name": "out",
        "connections": (matrix(),),
        "bias": np.zeros(3, I32),
        "threshold": None,
        "v0": np.zeros(3, I32),
    }
    return Layer(**{**fields, **changes})


def network(first: Layer | None = None, last: Layer | None = None, **changes: Any) -> IntegerNetwork:
    fields: dict[str, Any] = {"input_shape": (2, 6, 5), "layers": (first or convolution(), last or dense())}
    return IntegerNetwork(**{**fields, **changes})


def shortcut(**changes: Any) -> Connection:
    """From a layer of (4, 3, 4) to one of the same shape."""
    fields: dict[str, Any] = {"source": "conv", "weight": np.ones((4, 1, 1, 1), np.int8), "groups": 4}
    return Connection(**{**fields, **changes})


def residual(*connections: Connection, **changes: Any) -> IntegerNetwork:
    """conv → side → add → out, where add also takes the spikes of conv."""
    side = convolution(name="side", connections=(shortcut(weight=np.ones((4, 1, 3, 3), np.int8), padding=(1, 1)),))
    behind = connections or (shortcut(source="side"), shortcut())
    add = convolution(name="add", connections=behind, **changes)
    return network(layers=(convolution(), side, add, dense(connections=(matrix(source="add"),))))


def test_shapes() -> None:
    """A 3x2 kernel with stride (2, 1) and padding (1, 0) over 6x5: 3x4."""
    assert network().shapes == ((4, 3, 4), (3,)) and network().classes == 3
    assert network().shape_of == {"input": (2, 6, 5), "conv": (4, 3, 4), "out": (3,)}
    assert convolution().is_convolution and not convolution().is_readout and dense().is_readout
    assert kernel(dilation=(1, 3)).output_shape((2, 6, 5)) == (4, 3, 2)


def test_places_in_the_pipeline() -> None:
    """The shortcut around ``side`` skips a place; a layer beside another one has the same place."""
    assert residual().depth_of == {"input": 0, "conv": 1, "side": 2, "add": 3, "out": 4} and residual().depth == 4
    beside = convolution(name="beside")
    add = convolution(name="add", connections=(shortcut(), shortcut(source="beside")))
    built = network(layers=(convolution(), beside, add, dense(connections=(matrix(source="add"),))))
    assert built.depth_of == {"input": 0, "conv": 1, "beside": 1, "add": 2, "out": 3} and built.depth == 3
    assert built.layers[2].sources == ("conv", "beside")


def test_sequences() -> None:
    """An exponent or a reset does not change the wiring; a second connection does, even from the same source."""
    assert network().is_sequence and network(last=dense(connections=(matrix(exponent=3),))).is_sequence
    assert network(convolution(reset="hard")).is_sequence
    assert not residual().is_sequence and not network(last=dense(connections=(matrix(), matrix()))).is_sequence
    parallel = (convolution(), convolution(name="b"), dense(connections=(matrix(), matrix(source="b"))))
    assert not network(layers=parallel).is_sequence


@pytest.mark.parametrize(("largest", "bits"), [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (63, 7), (64, 8), (127, 8)])
def test_bits(largest: int, bits: int) -> None:
    assert matrix(weight=np.full((1, 2), largest, np.int8)).bits == matrix(weight=np.int8([[-largest, 0]])).bits == bits


CONNECTIONS: dict[str, tuple[Callable[[], Connection], str]] = {
    "source": (lambda: kernel(source=0), "connection from 0: source is int; allowed: the name of a layer"),
    "weight type": (lambda: kernel(weight=np.ones((4, 2, 3, 2), I32)), "weight is int32; allowed: an array of int8"),
    "list": (lambda: matrix(weight=[[1]]), "connection from conv: weight is list; allowed: an array of int8"),
    "rank": (
        lambda: kernel(weight=np.ones((4, 2, 3), np.int8)),
        "connection from input: weight is shape (4, 2, 3); allowed: (O, I, kh, kw) or (O, N), every size at least 1",
    ),
    "empty": (lambda: kernel(weight=np.ones((4, 2, 0, 2), np.int8)), "weight is shape (4, 2, 0, 2); allowed: (O, I"),
    "-128": (lambda: kernel(weight=np.full((4, 2, 3, 2), -128, np.int8)), "weight is -128; allowed: -127..127"),
    "exponent large": (lambda: matrix(exponent=16), "connection from conv: exponent is 16; allowed: 0..15"),
    "exponent negative": (lambda: matrix(exponent=-1), "connection from conv: exponent is -1; allowed: 0..15"),
    "exponent type": (lambda: matrix(exponent=1.0), "connection from conv: exponent is 1.0; allowed: 0..15"),
    "exponent bool": (lambda: matrix(exponent=True), "connection from conv: exponent is True; allowed: 0..15"),
    "stride": (
        lambda: kernel(stride=(0, 1)),
        "connection from input: stride is (0, 1); allowed: two integers (y, x) of at least 1",
    ),
    "stride type": (lambda: kernel(stride=[1, 1]), "stride is [1, 1]; allowed: two integers (y, x) of at least 1"),
    "stride number": (lambda: kernel(stride=2), "stride is 2; allowed: two integers (y, x) of at least 1"),
    "padding": (lambda: kernel(padding=(0, -1)), "padding is (0, -1); allowed: two integers (y, x) of at least 0"),
    "dilation": (lambda: kernel(dilation=(1.0, 1)), "dilation is (1.0, 1); allowed: two integers (y, x) of at least 1"),
    "groups": (lambda: kernel(groups=3), "connection from input: groups is 3; allowed: a divisor of the 4 outputs"),
    "no groups": (lambda: kernel(groups=0), "groups is 0; allowed: a divisor of the 4 outputs"),
    "dense stride": (
        lambda: matrix(stride=(2, 1)),
        "stride, padding, dilation, groups is set; allowed: defaults in a dense connection",
    ),
    "dense groups": (
        lambda: matrix(groups=3),
        "stride, padding, dilation, groups is set; allowed: defaults in a dense connection",
    ),
}


@pytest.mark.parametrize("case", CONNECTIONS)
def test_invalid_connections(case: str) -> None:
    build, message = CONNECTIONS[case]
    with pytest.raises(NetworkError) as caught:
        build()
    text = str(caught.value)
    assert text.startswith("connection from ") and message in text and "\n" not in text


LAYERS: dict[str, tuple[Callable[[], Layer], str]] = {
    "no connections": (lambda: dense(connections=()), "out: connections is empty; allowed: at least one"),
    "different outputs": (
        lambda: dense(connections=(matrix(), matrix(source="b", weight=np.ones((4, 2), np.int8)))),
        "out: connection from b is 4 outputs, dense; allowed: 3 outputs, dense as the first connection",
    ),
    "dense and convolution": (
        lambda: convolution(connections=(kernel(), matrix(source="b", weight=np.ones((4, 2), np.int8)))),
        "conv: connection from b is 4 outputs, dense; allowed: 4 outputs, convolution as the first connection",
    ),
    "list": (lambda: convolution(bias=[1, 2, 3, 4]), "conv: bias is list; allowed: an array of int32"),
    "no bias": (lambda: convolution(bias=None), "conv: bias is NoneType; allowed: an array of int32"),
    "float bias": (lambda: convolution(bias=np.zeros(4)), "conv: bias is float64; allowed: an array of int32"),
    "threshold type": (
        lambda: convolution(threshold=np.ones(4, np.int64)),
        "conv: threshold is int64; allowed: an array of int32",
    ),
    "v0 type": (lambda: convolution(v0=4), "conv: v0 is int; allowed: an array of int32"),
    "bias length": (
        lambda: convolution(bias=np.zeros(3, I32)),
        "conv: bias is shape (3,); allowed: (4,) or (4, H, W)",
    ),
    "bias rank": (
        lambda: convolution(bias=np.zeros((4, 3), I32)),
        "conv: bias is shape (4, 3); allowed: (4,) or (4, H, W)",
    ),
    "empty bias": (
        lambda: convolution(bias=np.zeros((4, 0, 3), I32)),
        "conv: bias is shape (4, 0, 3); allowed: (4,) or (4, H, W)",
    ),
    "dense bias map": (
        lambda: dense(bias=np.zeros((3, 1, 1), I32)),
        "out: bias is 3-dimensional; allowed: (3,)",
    ),
    "thresholds": (lambda: convolution(threshold=np.ones(1, I32)), "conv: threshold is shape (1,); allowed: (4,)"),
    "v0 length": (lambda: convolution(v0=np.ones((4, 1), I32)), "conv: v0 is shape (4, 1); allowed: (4,)"),
    "threshold 0": (
        lambda: convolution(threshold=np.array([1, 2, 0, 3], I32)),
        "conv: threshold is 0; allowed: 1..8388607",
    ),
    "threshold large": (
        lambda: convolution(threshold=np.array([1, 2, 2**23, 3], I32)),
        "conv: threshold is 8388608; allowed: 1..8388607",
    ),
    "bias large": (lambda: dense(bias=np.full(3, -(2**23), I32)), "out: bias is -8388608; allowed: -8388607..8388607"),
    "v0 large": (lambda: dense(v0=np.full(3, 2**23, I32)), "out: v0 is 8388608; allowed: -8388607..8388607"),
    "reset": (lambda: convolution(reset="none"), "conv: reset is 'none'; allowed: 'soft' or 'hard'"),
    "reset of a read-out": (lambda: dense(reset="hard"), "out: reset is 'hard'; allowed: 'soft'"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_invalid_layers(case: str) -> None:
    build, message = LAYERS[case]
    with pytest.raises(NetworkError) as caught:
        build()
    assert str(caught.value) == f"layer {message}"


NETWORKS: dict[str, tuple[Callable[[], IntegerNetwork], str]] = {
    "input": (
        lambda: network(input_shape=(2, 6)),
        "input: shape is (2, 6); allowed: (C, H, W), every size at least 1",
    ),
    "input size": (
        lambda: network(input_shape=(2, 0, 5)),
        "input: shape is (2, 0, 5); allowed: (C, H, W), every size at least 1",
    ),
    "input type": (
        lambda: network(input_shape=(2, 6.0, 5)),
        "input: shape is (2, 6.0, 5); allowed: (C, H, W), every size at least 1",
    ),
    "empty": (lambda: network(layers=()), "network: layers is empty; allowed: at least the read-out"),
    "names": (lambda: network(last=dense(name="conv")), "layer conv: name is used twice; allowed: unique names"),
    "name of the image": (
        lambda: network(convolution(name="input")),
        "layer input: name is input; allowed: other names, this one means the image",
    ),
    "early read-out": (
        lambda: network(convolution(threshold=None)),
        "layer conv: threshold is missing; allowed only in the last layer",
    ),
    "spiking end": (
        lambda: network(last=dense(threshold=np.ones(3, I32))),
        "layer out: the last layer is not a read-out; allowed: dense, without threshold",
    ),
    "convolution end": (
        lambda: network(layers=(convolution(threshold=None),)),
        "layer conv: the last layer is not a read-out; allowed: dense, without threshold",
    ),
    "unknown source": (
        lambda: network(last=dense(connections=(matrix(), matrix(source="x")))),
        "layer out: source is x; allowed: one of input, conv, which come before",
    ),
    "later source": (
        lambda: residual(shortcut(), shortcut(source="side"), shortcut(source="out")),
        "layer add: source is out; allowed: one of input, conv, side, which come before",
    ),
    "itself": (
        lambda: residual(shortcut(), shortcut(source="side"), shortcut(source="add")),
        "layer add: source is add; allowed: one of input, conv, side, which come before",
    ),
    "unused layer": (
        lambda: residual(shortcut()),
        "layer side: it is the source of nothing; allowed: only what the read-out needs",
    ),
    "unused image": (
        lambda: network(convolution(connections=(kernel(source="conv"),))),
        "layer input: it is the source of nothing; allowed: only what the read-out needs",
    ),
    "output shapes": (
        lambda: residual(shortcut(source="side"), shortcut(stride=(1, 2))),
        "layer add: connection from conv is for an output of (4, 3, 2); allowed: (4, 3, 4)",
    ),
    "bias map": (
        lambda: network(convolution(bias=np.zeros((4, 4, 3), I32))),
        "layer conv: bias is shape (4, 4, 3); allowed: (4,) or (4, 3, 4)",
    ),
    "inputs": (
        lambda: network(last=dense(connections=(matrix(weight=np.ones((3, 47), np.int8)),))),
        "layer out: connection from conv: weight is shape (3, 47); allowed: (O, 48) behind an output of (4, 3, 4)",
    ),
    "channels": (
        lambda: network(input_shape=(3, 6, 5)),
        "layer conv: connection from input: weight is for 2 channels; allowed: 3 input channels",
    ),
    "grouped channels": (
        lambda: network(convolution(connections=(kernel(groups=2),))),
        "layer conv: connection from input: weight is for 4 channels; allowed: 2 input channels",
    ),
    "kernel": (
        lambda: network(convolution(connections=(kernel(dilation=(4, 1)),))),
        "layer conv: connection from input: weight is a kernel reaching over 9; allowed: at most 8",
    ),
    "convolution behind dense": (
        lambda: network(
            layers=(
                dense(
                    name="a",
                    connections=(matrix(source="input", weight=np.ones((3, 60), np.int8)),),
                    threshold=np.ones(3, I32),
                ),
                convolution(connections=(kernel(source="a"),)),
                dense(),
            )
        ),
        "layer conv: connection from a: weight is a convolution; allowed: a dense connection behind an output of (3,)",
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_invalid_networks(case: str) -> None:
    build, message = NETWORKS[case]
    with pytest.raises(NetworkError) as caught:
        build()
    assert str(caught.value) == message


def test_the_limits_themselves_are_allowed() -> None:
    extreme = np.array([MEMBRANE_MAX, -MEMBRANE_MAX, 0, 1], I32)
    weight = np.array([-127, 127] * 24, np.int8).reshape(4, 2, 3, 2)
    layer = convolution(
        connections=(kernel(weight=weight, exponent=EXPONENT_MAX),),
        bias=extreme,
        v0=extreme,
        threshold=np.array([1, MEMBRANE_MAX, 5, 6], I32),
    )
    assert network(layer).layers[0].bias.tolist() == extreme.tolist()


def test_nothing_can_be_changed_and_the_callers_arrays_stay_their_own() -> None:
    weight = np.ones((3, 48), np.int8)[:, ::-1]
    connections = [matrix(weight=weight)]
    layers, info = [convolution(), dense(connections=connections)], {"T": 4}
    built = network(layers=layers, info=info)
    weight[:] = 5
    connections.clear()
    layers.clear()
    info["T"] = 5
    assert weight.flags.writeable
    assert len(built.layers) == 2 and built.info == {"T": 4} and (built.layers[1].connections[0].weight == 1).all()
    for layer in built.layers:
        for value in (layer.connections[0].weight, layer.bias, layer.v0, layer.threshold):
            if value is not None:
                assert value.flags.c_contiguous
                with pytest.raises(ValueError, match="read-only"):
                    value[:] = 0
        with pytest.raises(FrozenInstanceError):
            layer.reset = "hard"  # type: ignore[misc]
        with pytest.raises(FrozenInstanceError):
            layer.connections[0].groups = 2  # type: ignore[misc]
    for mapping in (built.info, built.shape_of, built.depth_of):
        with pytest.raises(TypeError):
            mapping["T"] = 5  # type: ignore[index]


def test_digest_covers_what_is_computed_and_nothing_else() -> None:
    one = np.array([1, 0, 0, 0], I32)

    def first(**changes: Any) -> IntegerNetwork:
        return network(convolution(connections=(kernel(**changes),)))

    base, weight = convolution(), kernel().weight
    variants = [
        network(),
        first(weight=weight[::-1].copy()),
        network(replace(base, bias=base.bias + one)),
        network(replace(base, bias=np.broadcast_to(base.bias[:, None, None], (4, 3, 4)).copy())),
        network(replace(base, threshold=base.threshold + one)),
        network(replace(base, v0=base.v0 + one)),
        network(replace(base, v0=base.threshold, threshold=np.array([4, 4, 3, 3], I32))),
        first(stride=(3, 1), padding=(2, 0)),
        first(dilation=(2, 1), padding=(2, 0)),
        first(weight=weight[:, :1].copy(), groups=2),
        network(last=dense(bias=np.ones(3, I32))),
        network(convolution(connections=(kernel(stride=(1, 1), padding=(0, 0)),)), input_shape=(2, 5, 5)),
    ]
    for stride in ((2, 1), (1, 1)):
        narrow = convolution(connections=(kernel(stride=stride, padding=(0, 0)),))
        variants.append(
            network(narrow, dense(connections=(matrix(weight=np.ones((3, 4), np.int8)),)), input_shape=(2, 3, 2))
        )
    digests = [variant.digest() for variant in variants]
    assert len(set(digests)) == len(variants)
    renamed = network(replace(base, name="x"), dense(name="y", connections=(matrix(source="x"),)), info={"T": 4})
    assert renamed.digest() == network().digest() == digests[0]
    assert digests[0] == "1a4343ad8ec210ffe45a3c19157a1684403b9d727a15fa9d6597969ac226d423"


def test_digest_covers_the_graph() -> None:
    side, straight = shortcut(source="side"), shortcut()
    variants = [
        residual(),
        residual(straight, side),
        residual(side, straight, straight),
        residual(side, side, straight),
        residual(side, replace(straight, exponent=1)),
        residual(replace(side, exponent=1), straight),
        residual(side, replace(straight, weight=-straight.weight)),
        residual(side, shortcut(weight=np.ones((4, 4, 1, 1), np.int8), groups=1)),
        residual(side, kernel()),
        residual(side, straight, reset="hard"),
        network(),
        network(convolution(reset="hard")),
        network(convolution(connections=(kernel(exponent=1),))),
        network(convolution(connections=(kernel(), kernel()))),
        network(last=dense(connections=(matrix(), matrix()))),
        network(last=dense(connections=(matrix(exponent=2),))),
        network(layers=(convolution(), convolution(name="b"), dense(connections=(matrix(), matrix(source="b"))))),
        network(layers=(convolution(), convolution(name="b"), dense(connections=(matrix(source="b"), matrix())))),
    ]
    conv, middle, add, out = residual().layers
    variants.append(network(layers=(conv, replace(middle, reset="hard"), add, out)))
    assert len({variant.digest() for variant in variants}) == len(variants)
    names = {"input": "input", "conv": "a", "side": "b", "add": "c", "out": "d"}
    renamed = tuple(
        replace(
            layer, name=names[layer.name], connections=[replace(c, source=names[c.source]) for c in layer.connections]
        )
        for layer in residual().layers
    )
    assert network(layers=renamed).digest() == residual().digest()
