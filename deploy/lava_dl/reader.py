"""lava-dl's own netx files, as SLAYER's ``export_hdf5`` writes them; docs/lava_dl.md says what they mean."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nqlava.errors import shown
from nqlava.hdf5 import MAX_SIZE, CheckedFile, NetxError, existing
from nqlava.netx_layout import FORMAT, MAX_LAYERS

__all__ = ["MAX_DELAY", "LifLayer", "LifNetwork", "NetxError", "read"]

Shape = tuple[int, ...]
Pair = tuple[int, int]

MAX_DELAY = 62
"""Longer delays become this one in lava-dl."""
_WEIGHT, _BIAS, _DECAY, _THRESHOLD = (-256, 255), (-(2**15), 2**15 - 1), (0, 2**12), (0, 2**18 - 1)
_MAX_VALUE = 2**31 - 1

_SYNAPSES = {"type", "shape", "weight", "bias", "delay", "neuron"}
_LAYER_KEYS = {
    "input": {"type", "shape", "weight", "bias", "neuron"},
    "flatten": {"type", "shape"},
    "dense": _SYNAPSES | {"inFeatures", "outFeatures"},
    "conv": _SYNAPSES | {"stride", "padding", "dilation", "groups", "inChannels", "outChannels", "kernelSize"},
}
"""Keys that may be there, by the type of the layer."""
_NEURONS = {"CUBA", "LOIHI"}
_NEURON_KEYS = {"type", "iDecay", "vDecay", "vThMant", "tauRho", "scaleRho", "theta"}
_WITHOUT_EFFECT = {"refDelay": 1, "gradedSpike": 0, "messageBits": 0, "wgtExp": 0, "weight_exp": 0}
"""Keys of neuron that lava-dl's reader ignores, or that change what it builds: the value with which that is right."""


@dataclass(frozen=True)
class LifLayer:
    """Current-based leaky integrate-and-fire neurons and the synapses before them; docs/lava_dl.md has the equations.

    Attributes:
        name: place in the file and type, such as "2 (conv)".
        shape: of the neurons, (C, H, W) or (N,).
        current_decay, voltage_decay: int64 (1,) or (C,), of 4096ths per step.
        threshold: θ; a neuron fires above 64 · θ.
        bias: int64 (1,), (C,) or (C, H, W); 64 times it is added to the potential at every step.
        weight: int64 (O, I, kh, kw) or (O, I) as in the file; None for input neurons, which have no synapses.
        delay: int64, 0 … 62, broadcasts to (O, I); None for none.
        stride, padding, dilation: (y, x), of a convolution.
        groups: of a convolution.
    """

    name: str
    shape: Shape
    current_decay: NDArray[np.int64]
    voltage_decay: NDArray[np.int64]
    threshold: int
    bias: NDArray[np.int64]
    weight: NDArray[np.int64] | None = None
    delay: NDArray[np.int64] | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class LifNetwork:
    """A sequence of layers.

    Attributes:
        input_shape: (C, H, W) or (N,).
        layers: in order; only the first may be one of input neurons.
        transform: (weight, bias) that an input layer with neurons holds for programs that scale images, or None.
    """

    input_shape: Shape
    layers: tuple[LifLayer, ...]
    transform: tuple[float, float] | None = None

    @property
    def has_input_neurons(self) -> bool:
        return self.layers[0].weight is None

    @property
    def has_delays(self) -> bool:
        """Whether a spike can still be under way when the next sample starts."""
        return any(layer.delay is not None and layer.delay.any() for layer in self.layers)

    @property
    def places(self) -> tuple[int, ...]:
        """Place l of each layer: local step k is time step k + l."""
        first = 0 if self.has_input_neurons else 1
        return tuple(range(first, first + len(self.layers)))


def read(path: str | os.PathLike[str], input_shape: Shape | None = None) -> LifNetwork:
    """The network in a file of lava-dl; every size is checked before it is allocated.

    Args:
        path: the file.
        input_shape: (C, H, W), needed where the file begins with a convolution.

    Raises:
        NetxError: not such a network, or one that has what is not supported.
        MissingFileError, FileError: there is no such file, or it cannot be read.
    """
    where = existing(path)
    try:
        with h5py.File(where, "r") as file:
            return _Reader(where).network(file, input_shape)
    except NetxError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise NetxError(f"{where}: not a readable HDF5 file: {shown(error, 300)}") from None


class _Reader(CheckedFile):
    """Reads one file."""

    value_bytes = 48  # int64, and the copies that checking makes
    _given: Shape | None

    def network(self, file: h5py.File, input_shape: Shape | None) -> LifNetwork:
        if self.attribute("file", file, "format") == np.bytes_(FORMAT):
            raise NetxError(f"{self.path}: a network of this project; python -m deploy.run_lava runs it")
        groups = self.numbered("file", file, "layer", "layers", 1, MAX_LAYERS)
        kinds = [self._kind(index, group) for index, group in enumerate(groups)]
        self._given = input_shape
        first: Shape | None = None  # shape of the input, once known
        shape: Shape | None = None  # of what the next layer takes
        transform = None
        layers: list[LifLayer] = []
        flat = False
        for index, (kind, group) in enumerate(zip(kinds, groups, strict=True)):
            where, name = f"layer {index} ({kind})", f"{index} ({kind})"
            if kind == "input":
                first = shape = self._shape(where, group)
                if "neuron" in group:
                    layers.append(self._neurons(where, group, shape, name, bias=np.zeros(1, np.int64)))
                    transform = self._number(where, group, "weight", 64), self._number(where, group, "bias", 0)
                continue
            if kind == "flatten":
                if flat or (layers and len(layers[-1].shape) != 3):
                    self.fail(where, "type", kind, "conv or dense here")
                flat = True
                continue
            if kind == "conv" and (flat or (shape is not None and len(shape) != 3)):
                self.fail(where, "type", kind, f"dense behind {'flatten' if flat else f'an output of {shape}'}")
            if kind == "dense" and shape is not None and len(shape) == 3 and not flat:
                self.fail(where, "type", kind, f"conv or flatten behind an output of {shape}")
            layer, before = self._synapses(where, group, kind, name, shape)
            layers.append(layer)
            first, shape, flat = first or before, layer.shape, False
        if first is None or not layers or flat:
            self.fail(
                f"layer {len(groups) - 1}", "type", kinds[-1], "conv, dense or input with neurons, as the last layer"
            )
        return LifNetwork(first, tuple(layers), transform)

    def _kind(self, index: int, group: h5py.Group) -> str:
        where = f"layer {index}"
        kind = self._text(where, group, "type", set(_LAYER_KEYS) - ({"input"} if index else set()))
        self._known(f"{where} ({kind})", set(group), _LAYER_KEYS[kind], "keys")
        return kind

    def _known(self, where: str, found: Iterable[object], known: set[str], what: str) -> None:
        unknown = sorted(str(key)[:80] for key in found if key not in known)
        if unknown:
            self.fail(where, what, ", ".join(unknown[:20]), ", ".join(sorted(known)))

    def _text(self, where: str, group: h5py.Group, key: str, allowed: set[str]) -> str:
        """A string, alone or in an array of one."""
        dataset = self._dataset(where, group, key)
        value = f"of type {dataset.dtype}"
        if dataset.size == 1 and self.is_text(dataset):
            value = bytes(dataset[()].item() if dataset.shape else dataset[()]).decode("ascii", "replace")[:80]
        if value not in allowed:
            self.fail(where, key, value, ", ".join(sorted(allowed)))
        return value

    def _integers(
        self, where: str, group: h5py.Group, key: str, bounds: tuple[int, int], *, whole: bool = True
    ) -> NDArray[np.int64]:
        """Whole numbers within bounds, of any numeric type and shape; with ``whole`` false, fractions are cut off."""
        dataset = self._dataset(where, group, key)
        if dataset.dtype.kind not in "biuf":
            self.fail(where, key, f"of type {dataset.dtype}", "numbers")
        if dataset.size == 0:
            self.fail(where, key, f"of shape {dataset.shape}", "every size at least 1")
        values = dataset[()]
        values = np.asarray(values, np.float64 if values.dtype.kind == "f" else None)
        bad = ~(values >= bounds[0]) | ~(values <= bounds[1])
        if whole:
            bad |= values != np.floor(values)
        if bad.any():
            shown = values[bad].flat[0]
            self.fail(where, key, f"{shown:.6g}", f"{'integers ' if whole else ''}{bounds[0]}..{bounds[1]}")
        return values.astype(np.int64)

    def _integer(self, where: str, group: h5py.Group, key: str, bounds: tuple[int, int]) -> int:
        return int(self._sized(where, key, self._integers(where, group, key, bounds), [1])[0])

    def _number(self, where: str, group: h5py.Group, key: str, otherwise: float) -> float:
        """A number that only programs use."""
        if key not in group:
            return otherwise
        dataset = self._dataset(where, group, key)
        if dataset.size != 1 or dataset.dtype.kind not in "biuf":
            self.fail(where, key, f"{dataset.dtype} of shape {dataset.shape}", "one number")
        return float(dataset[()].item() if dataset.shape else dataset[()])

    def _sized(self, where: str, key: str, values: NDArray[np.int64], sizes: list[int]) -> NDArray[np.int64]:
        """The values, flat, which must be as many as one of ``sizes``."""
        if values.size not in sizes or max(values.shape, default=1) != values.size:
            allowed = " or ".join(str(size) for size in dict.fromkeys(sizes))
            self.fail(where, key, f"of shape {values.shape}", f"{allowed} values")
        return values.reshape(-1)

    def _shape(self, where: str, group: h5py.Group) -> Shape:
        shape = tuple(int(n) for n in self._integers(where, group, "shape", (1, MAX_SIZE)).reshape(-1))
        if len(shape) not in (1, 3) or math.prod(shape) > MAX_SIZE:
            self.fail(where, "shape", shape, f"1 or 3 integers whose product is at most {MAX_SIZE}")
        return shape

    def _pair(self, where: str, group: h5py.Group, key: str, low: int) -> Pair:
        values = self._sized(where, key, self._integers(where, group, key, (low, 2**15 - 1)), [1, 2])
        return int(values[0]), int(values[-1])

    def _synapses(
        self, where: str, group: h5py.Group, kind: str, name: str, shape: Shape | None
    ) -> tuple[LifLayer, Shape]:
        """A conv or dense layer behind neurons of ``shape`` (None where that is unknown), and the shape it takes."""
        weight = self._integers(where, group, "weight", _WEIGHT)
        declared = self._shape(where, group)
        geometry: dict[str, Any] = {}
        if kind == "conv":
            if weight.ndim == 5 and weight.shape[-1] == 1:
                weight = weight[..., 0]
            if weight.ndim != 4:
                self.fail(where, "weight", f"of shape {weight.shape}", "(O, I, kh, kw), or (O, I, kh, kw, 1)")
            for key, low in (("stride", 1), ("padding", 0), ("dilation", 1)):
                geometry[key] = self._pair(where, group, key, low)
            geometry["groups"] = self._integer(where, group, "groups", (1, 2**15 - 1))
            before, after = self._convolution(where, weight, shape, **geometry)
            if declared != after:
                self.fail(where, "shape", declared, str(after))
        else:
            outputs = math.prod(declared)
            if weight.ndim == 1 and weight.size % outputs == 0:
                weight = weight.reshape(outputs, -1)
            before = weight.shape[-1:] if shape is None else shape
            if weight.shape != (outputs, math.prod(before)):
                self.fail(where, "weight", f"of shape {weight.shape}", str((outputs, math.prod(before))))
            after = (outputs,)
        delay = self._delay(where, group, weight)
        return self._neurons(where, group, after, name, weight=weight, delay=delay, **geometry), before

    def _convolution(
        self,
        where: str,
        weight: NDArray[np.int64],
        shape: Shape | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> tuple[Shape, Shape]:
        """Shapes of input and output."""
        outputs, inputs = weight.shape[0], weight.shape[1] * groups
        shape = shape or self._given
        if shape is None or len(shape) != 3:
            found = "not in the file" if shape is None else shape
            self.fail(where, "shape of the input", found, f"({inputs}, H, W), given by the inputs")
        if shape[0] != inputs or outputs % groups:
            allowed = f"(O, {shape[0]} / groups, kh, kw), O a multiple of groups"
            self.fail(where, "weight", f"of shape {weight.shape} with groups {groups}", allowed)
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        rows, columns = (
            (size + 2 * p - r) // s + 1 for size, p, r, s in zip(shape[1:], padding, reach, stride, strict=True)
        )
        if min(rows, columns) < 1:
            self.fail(where, "weight", f"of shape {weight.shape}", f"a kernel within the padded input of {shape}")
        return shape, (outputs, rows, columns)

    def _delay(self, where: str, group: h5py.Group, weight: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if "delay" not in group:
            return None
        delay = np.minimum(self._integers(where, group, "delay", (0, _MAX_VALUE), whole=False), MAX_DELAY)
        if weight.ndim == 4:
            if delay.any():
                self.fail(
                    where, "delay", f"up to {delay.max()}", "0, since lava-dl's reader ignores delays of conv layers"
                )
            return None
        outputs, inputs = weight.shape
        if delay.shape in ((), (outputs, inputs)):
            return delay
        if delay.shape not in ((outputs,), (inputs,)):
            self.fail(
                where, "delay", f"of shape {delay.shape}", f"(), ({outputs},), ({inputs},) or ({outputs}, {inputs})"
            )
        return delay.reshape(-1, 1) if delay.size == outputs else delay.reshape(1, -1)

    def _neurons(
        self,
        where: str,
        group: h5py.Group,
        shape: Shape,
        name: str,
        *,
        bias: NDArray[np.int64] | None = None,
        **synapses: Any,
    ) -> LifLayer:
        """The neurons of a layer; ``bias`` where the one in the file means something else."""
        if bias is None:
            bias = np.zeros(1, np.int64) if "bias" not in group else self._bias(where, group, shape)
        if "neuron" not in group and len(shape) == 1:
            # What lava-dl's reader takes instead: an integrator that cannot fire.
            current, voltage, threshold = np.array([0]), np.array([4096]), 2**17
        else:
            neuron = self.group(where, group, "neuron")
            self._text(where, group, "neuron/type", _NEURONS)
            self._known(where, neuron, _NEURON_KEYS | set(_WITHOUT_EFFECT), "keys of neuron")
            current, voltage = (
                self._sized(where, key, self._integers(where, group, key, _DECAY), [1, shape[0]])
                for key in ("neuron/iDecay", "neuron/vDecay")
            )
            threshold = self._integer(where, group, "neuron/vThMant", _THRESHOLD)
            for key, allowed in _WITHOUT_EFFECT.items():
                value = self._number(where, group, f"neuron/{key}", allowed)
                if value != allowed:
                    meant = f"{allowed}, as lava-dl's reader does not do what else it means"
                    self.fail(where, f"neuron/{key}", f"{value:g}", meant)
        return LifLayer(name, shape, current, voltage, threshold, bias, **synapses)

    def _bias(self, where: str, group: h5py.Group, shape: Shape) -> NDArray[np.int64]:
        """One value per channel, or, behind a convolution, one per neuron in lava-dl's order (W, H, C)."""
        bias = self._integers(where, group, "bias", _BIAS)
        if len(shape) == 3 and bias.shape == shape[::-1]:
            return np.ascontiguousarray(bias.T)
        return self._sized(where, "bias", bias, [shape[0]] if len(shape) == 3 else [1, shape[0]])
