"""Random networks of lava-dl that reach the edges of every range, and files of them as SLAYER writes them."""

from pathlib import Path

import h5py
import numpy as np
from hypothesis import strategies as st

from deploy.lava_dl.reader import LifLayer, LifNetwork


def random_neurons(rng: np.random.Generator, shape: tuple[int, ...], scale: float, *, extreme: bool) -> dict:
    """Parameters with which neurons fire now and then, if currents are about ``scale``."""
    channels = int(rng.choice([1, shape[0]]))
    current, voltage = (
        np.where(rng.random(channels) < 0.3, rng.choice([0, 4095, 4096], channels), rng.integers(0, 4097, channels))
        for _ in range(2)
    )
    bias_shape = [(1,), (shape[0],), shape][rng.integers(0, 3)] if len(shape) == 3 else (shape[0],)
    most = 2**15 - 1 if extreme else max(1, int(scale / 4))
    return {
        "current_decay": current,
        "voltage_decay": voltage,
        "threshold": int(rng.choice([0, 2**17 - 1, 2**18 - 1])) if extreme else int(rng.uniform(0, 3 * scale)),
        "bias": np.zeros(1, np.int64)
        if rng.random() < 0.4 or bias_shape == (1,)
        else rng.integers(-most, most + 1, bias_shape),
    }


def random_weight(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Even as SLAYER writes them, or odd, of both signs, one sign or a narrow range."""
    low, high = [(-256, 254), (0, 255), (-256, 0), (-255, -1), (-20, 30), (-3, 5)][rng.integers(0, 6)]
    weight = rng.integers(low, high + 1, shape)
    if rng.random() < 0.5:
        weight = weight // 2 * 2
    if not weight.any():
        weight.flat[0] = 2
    return weight


def random_network(rng: np.random.Generator) -> LifNetwork:
    """Input neurons or not, convolutions or not, then dense layers; small."""
    convolutions = int(rng.integers(0, 3))
    shape: tuple[int, ...] = (
        (int(rng.integers(1, 4)), *(int(n) for n in rng.integers(4, 7, 2)))
        if convolutions
        else (int(rng.integers(2, 9)),)
    )
    input_shape = shape
    layers = []
    if rng.random() < 0.4:
        parameters = random_neurons(rng, shape, 60, extreme=rng.random() < 0.2)
        layers.append(LifLayer("0 (input)", shape, **(parameters | {"bias": np.zeros(1, np.int64)})))
    place = 1
    for _ in range(convolutions):
        groups = shape[0] if rng.random() < 0.3 else 1
        outputs = groups * int(rng.integers(1, 4))
        kernel, stride = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
        padding, dilation = rng.integers(0, 3, 2), rng.integers(1, 3, 2)
        size = (np.array(shape[1:]) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if size.min() < 1:
            continue
        weight = random_weight(rng, (outputs, shape[0] // groups, *kernel))
        shape = (outputs, *(int(n) for n in size))
        scale = np.sqrt(weight[0].size) * (1 + np.abs(weight).mean()) / 2
        layers.append(
            LifLayer(
                f"{place} (conv)",
                shape,
                weight=weight,
                stride=tuple(int(n) for n in stride),
                padding=tuple(int(n) for n in padding),
                dilation=tuple(int(n) for n in dilation),
                groups=groups,
                **random_neurons(rng, shape, scale, extreme=rng.random() < 0.2),
            )
        )
        place += 1
    place += len(shape) == 3  # flatten
    for _ in range(int(rng.integers(0 if layers else 1, 3))):
        inputs, outputs = int(np.prod(shape)), int(rng.integers(1, 6))
        weight = random_weight(rng, (outputs, inputs))
        delays: list[tuple[int, ...] | None] = [None, None, (), (outputs, 1), (outputs, inputs)]
        kind = delays[rng.integers(0, 5)]
        delay = None if kind is None else rng.integers(0, rng.choice([1, 4, 63]), kind)
        shape = (outputs,)
        scale = np.sqrt(inputs) * (1 + np.abs(weight).mean()) / 2
        layers.append(
            LifLayer(
                f"{place} (dense)",
                shape,
                weight=weight,
                delay=None if delay is None else np.asarray(delay),
                **random_neurons(rng, shape, scale, extreme=rng.random() < 0.2),
            )
        )
        place += 1
    return LifNetwork(input_shape, tuple(layers), (64, 0) if layers[0].weight is None else None)


def random_inputs(
    rng: np.random.Generator, network: LifNetwork, samples: int, steps: int, *, graded: bool
) -> np.ndarray:
    """(samples, T, *input_shape): spikes, or integers where the network takes them or ``graded``."""
    shape = (samples, steps, *network.input_shape)
    if not graded and not network.has_input_neurons:
        return (rng.random(shape) < rng.choice([0.1, 0.5])).astype(np.uint8)
    most = 2**15 - 1 if rng.random() < 0.3 else 100
    return rng.integers(-most, most + 1, shape)


@st.composite
def generators(draw: st.DrawFn) -> np.random.Generator:
    """Random number generators."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def write(network: LifNetwork, path: Path) -> None:
    """The network in lava-dl's layout."""
    with h5py.File(path, "w") as file:
        groups = file.create_group("layer")
        if not network.has_input_neurons:
            _add(groups, "input", network.input_shape)
        before = network.input_shape
        for layer in network.layers:
            kind = layer.name.split("(")[1].strip(")")
            if kind == "dense" and len(before) == 3:
                _add(groups, "flatten", (1, 1, int(np.prod(before))))
            group = _add(groups, kind, layer.shape)
            if layer.weight is not None:
                group["weight"] = (layer.weight[..., None] if layer.weight.ndim == 4 else layer.weight).astype(
                    np.float32
                )
                if layer.bias.any():
                    group["bias"] = layer.bias.T.astype(np.float32)
            if layer.weight is not None and layer.weight.ndim == 4:
                for key in ("stride", "padding", "dilation", "groups"):
                    group[key] = getattr(layer, key)
            if layer.delay is not None:
                group["delay"] = _squeezed(layer.delay).astype(np.float32)
            group["neuron/type"] = "CUBA"
            group["neuron/iDecay"] = layer.current_decay if layer.current_decay.size > 1 else layer.current_decay[0]
            group["neuron/vDecay"] = layer.voltage_decay if layer.voltage_decay.size > 1 else layer.voltage_decay[0]
            group["neuron/vThMant"] = layer.threshold
            group["neuron/refDelay"] = 1
            group["neuron/gradedSpike"] = False
            before = layer.shape


def _squeezed(delay: np.ndarray) -> np.ndarray:
    return delay.reshape(-1) if delay.ndim == 2 and delay.shape[1] == 1 else delay


def _add(groups: h5py.Group, kind: str, shape: tuple[int, ...]) -> h5py.Group:
    group = groups.create_group(str(len(groups)))
    group.create_dataset("type", (1,), "S10", [kind.encode()])
    group["shape"] = np.array(shape)
    return group
