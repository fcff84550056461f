"""Invalid networks cannot be built, valid ones cannot be changed, and the digest covers what is computed."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from export.network import MEMBRANE_MAX, IntegerNetwork, Layer, NetworkError

I32 = np.int32


def convolution(**changes: Any) -> Layer:
    fields: dict[str, Any] = {
        "name": "conv",
        "weight": np.arange(-24, 24, dtype=np.int8).reshape(4, 2, 3, 2),
        "bias": np.array([1, -2, 3, -4], I32),
        "threshold": np.array([9, 8, 7, 6], I32),
        "v0": np.array([4, 4, 3, -3], I32),
        "stride": (2, 1),
        "padding": (1, 0),
    }
    return Layer(**{**fields, **changes})


def dense(**changes: Any) -> Layer:
    fields: dict[str, Any] = {
        "name": "out",
        "weight": np.ones((3, 48), np.int8),
        "bias": np.zeros(3, I32),
        "threshold": None,
        "v0": np.zeros(3, I32),
    }
    return Layer(**{**fields, **changes})


def network(first: Layer | None = None, last: Layer | None = None, **changes: Any) -> IntegerNetwork:
    fields: dict[str, Any] = {"input_shape": (2, 6, 5), "layers": (first or convolution(), last or dense())}
    return IntegerNetwork(**{**fields, **changes})


def test_shapes() -> None:
    """A 3x2 kernel with stride (2, 1) and padding (1, 0) over 6x5: 3x4."""
    assert network().shapes == ((4, 3, 4), (3,)) and network().classes == 3
    assert convolution().is_convolution and not convolution().is_readout and dense().is_readout
    assert convolution(dilation=(1, 3)).output_shape((2, 6, 5)) == (4, 3, 2)


LAYERS: dict[str, tuple[Callable[[], Layer], str]] = {
    "weight type": (
        lambda: convolution(weight=np.ones((4, 2, 3, 2), I32)),
        "conv: weight is int32; allowed: an array of int8",
    ),
    "list": (lambda: convolution(bias=[1, 2, 3, 4]), "conv: bias is list; allowed: an array of int32"),
    "no bias": (lambda: convolution(bias=None), "conv: bias is NoneType; allowed: an array of int32"),
    "float bias": (lambda: convolution(bias=np.zeros(4)), "conv: bias is float64; allowed: an array of int32"),
    "threshold type": (lambda: convolution(threshold=np.ones(4, np.int64)), "conv: threshold is int64; allowed: an ar"),
    "v0 type": (lambda: convolution(v0=4), "conv: v0 is int; allowed: an array of int32"),
    "rank": (
        lambda: convolution(weight=np.ones((4, 2, 3), np.int8)),
        "conv: weight is shape (4, 2, 3); allowed: (O, I, kh, kw) or (O, N), every size at least 1",
    ),
    "empty": (lambda: convolution(weight=np.ones((4, 2, 0, 2), np.int8)), "conv: weight is shape (4, 2, 0, 2); allow"),
    "-128": (
        lambda: convolution(weight=np.full((4, 2, 3, 2), -128, np.int8)),
        "conv: weight is -128; allowed: -127..127",
    ),
    "bias length": (
        lambda: convolution(bias=np.zeros(3, I32)),
        "conv: bias is shape (3,); allowed: (4,) or (4, H, W)",
    ),
    "bias rank": (lambda: convolution(bias=np.zeros((4, 3), I32)), "conv: bias is shape (4, 3); allowed: (4,) or (4,"),
    "empty bias": (lambda: convolution(bias=np.zeros((4, 0, 3), I32)), "conv: bias is shape (4, 0, 3); allowed: (4,) "),
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
    "stride": (
        lambda: convolution(stride=(0, 1)),
        "conv: stride is (0, 1); allowed: two integers (y, x) of at least 1",
    ),
    "stride type": (lambda: convolution(stride=[1, 1]), "conv: stride is [1, 1]; allowed: two integers"),
    "stride number": (lambda: convolution(stride=2), "conv: stride is 2; allowed: two integers"),
    "padding": (
        lambda: convolution(padding=(0, -1)),
        "conv: padding is (0, -1); allowed: two integers (y, x) of at le",
    ),
    "dilation": (lambda: convolution(dilation=(1.0, 1)), "conv: dilation is (1.0, 1); allowed: two integers (y, x)"),
    "groups": (lambda: convolution(groups=3), "conv: groups is 3; allowed: a divisor of the 4 outputs"),
    "no groups": (lambda: convolution(groups=0), "conv: groups is 0; allowed: a divisor of the 4 outputs"),
    "dense stride": (
        lambda: dense(stride=(2, 1)),
        "out: stride, padding, dilation, groups is set; allowed: defaults in a dense layer",
    ),
    "dense groups": (
        lambda: dense(groups=3),
        "out: stride, padding, dilation, groups is set; allowed: defaults in a d",
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_invalid_layers(case: str) -> None:
    build, message = LAYERS[case]
    with pytest.raises(NetworkError) as caught:
        build()
    assert str(caught.value).startswith(f"layer {message}") and "\n" not in str(caught.value)


NETWORKS: dict[str, tuple[Callable[[], IntegerNetwork], str]] = {
    "input": (
        lambda: network(input_shape=(2, 6)),
        "input: shape is (2, 6); allowed: (C, H, W), every size at least 1",
    ),
    "input size": (lambda: network(input_shape=(2, 0, 5)), "input: shape is (2, 0, 5); allowed: (C, H, W), every size"),
    "input type": (lambda: network(input_shape=(2, 6.0, 5)), "input: shape is (2, 6.0, 5); allowed: (C, H, W), every "),
    "empty": (lambda: network(layers=()), "network: layers is empty; allowed: at least the read-out"),
    "names": (lambda: network(last=dense(name="conv")), "layer conv: name is used twice; allowed: unique names"),
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
    "dense bias map": (
        lambda: network(last=dense(bias=np.zeros((3, 1, 1), I32))),
        "layer out: bias is 3-dimensional; allowed: (3,)",
    ),
    "bias map": (
        lambda: network(convolution(bias=np.zeros((4, 4, 3), I32))),
        "layer conv: bias is shape (4, 4, 3); allowed: (4,) or (4, 3, 4)",
    ),
    "inputs": (
        lambda: network(last=dense(weight=np.ones((3, 47), np.int8))),
        "layer out: weight is shape (3, 47); allowed: (O, 48) behind an output of (4, 3, 4)",
    ),
    "channels": (
        lambda: network(input_shape=(3, 6, 5)),
        "layer conv: weight is for 2 channels; allowed: 3 input channels",
    ),
    "grouped channels": (
        lambda: network(convolution(groups=2)),
        "layer conv: weight is for 4 channels; allowed: 2 input channels",
    ),
    "kernel": (
        lambda: network(convolution(dilation=(4, 1))),
        "layer conv: weight is a kernel reaching over 9; allowed: at most 8",
    ),
    "convolution behind dense": (
        lambda: network(
            layers=(
                dense(name="a", weight=np.ones((3, 60), np.int8), threshold=np.ones(3, I32)),
                convolution(),
                dense(),
            )
        ),
        "layer conv: weight is a convolution; allowed: a dense layer behind an output of (3,)",
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_invalid_networks(case: str) -> None:
    build, message = NETWORKS[case]
    with pytest.raises(NetworkError) as caught:
        build()
    assert str(caught.value) == message or str(caught.value).startswith(message[:70])


def test_the_limits_themselves_are_allowed() -> None:
    extreme = np.array([MEMBRANE_MAX, -MEMBRANE_MAX, 0, 1], I32)
    layer = convolution(
        weight=np.array([-127, 127] * 24, np.int8).reshape(4, 2, 3, 2),
        bias=extreme,
        v0=extreme,
        threshold=np.array([1, MEMBRANE_MAX, 5, 6], I32),
    )
    assert network(layer).layers[0].bias.tolist() == extreme.tolist()


def test_nothing_can_be_changed_and_the_callers_arrays_stay_their_own() -> None:
    weight = np.ones((3, 48), np.int8)[:, ::-1]
    layers, info = [convolution(), dense(weight=weight)], {"T": 4}
    built = network(layers=layers, info=info)
    weight[:] = 5
    layers.clear()
    info["T"] = 5
    assert weight.flags.writeable
    assert len(built.layers) == 2 and built.info == {"T": 4} and (built.layers[1].weight == 1).all()
    for layer in built.layers:
        for value in (layer.weight, layer.bias, layer.v0, layer.threshold):
            if value is not None:
                assert value.flags.c_contiguous
                with pytest.raises(ValueError, match="read-only"):
                    value[:] = 0
        with pytest.raises(FrozenInstanceError):
            layer.groups = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        built.info["T"] = 5  # type: ignore[index]


def test_digest_covers_what_is_computed_and_nothing_else() -> None:
    first, last = convolution(), dense()
    one = np.array([1, 0, 0, 0], I32)
    variants = [
        network(),
        network(replace(first, weight=first.weight[::-1].copy())),
        network(replace(first, bias=first.bias + one)),
        network(replace(first, bias=np.broadcast_to(first.bias[:, None, None], (4, 3, 4)).copy())),
        network(replace(first, threshold=first.threshold + one)),
        network(replace(first, v0=first.v0 + one)),
        network(replace(first, v0=first.threshold, threshold=np.array([4, 4, 3, 3], I32))),
        network(replace(first, stride=(3, 1), padding=(2, 0)), last),
        network(replace(first, dilation=(2, 1), padding=(2, 0))),
        network(replace(first, weight=first.weight[:, :1].copy(), groups=2)),
        network(last=replace(last, bias=last.bias + 1)),
        network(replace(first, stride=(1, 1), padding=(0, 0)), input_shape=(2, 5, 5)),
    ]
    small, behind = replace(first, padding=(0, 0)), dense(weight=np.ones((3, 4), np.int8))
    variants += [network(replace(small, stride=s), behind, input_shape=(2, 3, 2)) for s in ((2, 1), (1, 1))]
    digests = [variant.digest() for variant in variants]
    assert len(set(digests)) == len(variants)
    renamed = network(replace(first, name="x"), replace(last, name="y"), info={"T": 4})
    assert renamed.digest() == network().digest() == digests[0]
    assert digests[0] == "1a4343ad8ec210ffe45a3c19157a1684403b9d727a15fa9d6597969ac226d423"
