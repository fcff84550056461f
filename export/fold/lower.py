"""From a trained module to layers of neurons, by tracing: steps 1 to 3 of docs/semantics.md."""

import operator
import re
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from export.fold.folded import (
    ExportError,
    Floats,
    FoldedLayer,
    FoldedNetwork,
    Value,
    add,
    apply_matrix,
    average,
    convolve,
    scale,
    source_value,
)
from nqlava.errors import shown
from nqlava.network import IMAGE, Pair
from train.model.activation import Neuron
from train.model.models import Normalize

MODULES = (
    "Normalize, Conv2d, Linear, BatchNorm1d, BatchNorm2d, NQ, RateReLU, AvgPool2d, AdaptiveAvgPool2d, Flatten, "
    "Dropout, Identity"
)
FUNCTIONS = "+, torch.flatten, avg_pool2d, adaptive_avg_pool2d, mean over height and width, dropout"


def lower(model: nn.Module, input_shape: tuple[int, int, int]) -> FoldedNetwork:
    """Fold batch norm, spike amplitude and average pooling into the connections between layers of neurons.

    The forward of ``model`` is traced with torch.fx, so any module does that is built of the parts in ``MODULES`` and
    ``FUNCTIONS``: one image goes in, through Normalize first, and class scores come out of a linear layer.

    Args:
        model: in evaluation mode.
        input_shape: (C, H, W) of an image.

    Raises:
        ExportError: a part that cannot be exported, or parts in an order that cannot; it names the place.
    """
    _require_plain(model)
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except ExportError:
        raise
    except Exception as error:  # the module's own code runs here, on symbols instead of tensors
        raise ExportError(
            f"{type(model).__name__}: forward cannot be traced ({shown(error, 200)}); "
            "allowed: a fixed sequence of operations that does not depend on values"
        ) from None
    return _Lowering(model, input_shape).run(graph)


def _require_plain(model: nn.Module) -> None:
    """ExportError where modules do something else than their forward says: it would be lost."""
    for path, module in model.named_modules():
        place = f"{path} {type(module).__name__}".strip()
        if module.training:
            raise ExportError(f"{place}: is in training mode; allowed: evaluation mode, model.eval()")
        if module._forward_hooks or module._forward_pre_hooks:
            raise ExportError(
                f"{place}: has forward hooks, as weight_norm, spectral_norm and prune add them; allowed: none "
                "(remove them, or use torch.nn.utils.parametrizations)"
            )
        if "forward" in vars(module):
            raise ExportError(f"{place}: forward was replaced on the object; allowed: forward as its class defines it")
        for known in (Neuron, Normalize):
            if isinstance(module, known) and type(module).forward is not known.forward:
                raise ExportError(f"{place}: has a forward of its own; allowed: that of {known.__name__}")


class _Tracer(fx.Tracer):
    """Records operations, and where in the source they stand; activations and Normalize are operations."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Neuron | Normalize) or super().is_leaf_module(m, module_qualified_name)


class _Size:
    """Stands for a tensor's size or one entry of it, which only ``view`` and ``reshape`` use."""


class _Lowering:
    """Goes through the operations of one traced module once."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.modules = dict(model.named_modules())
        self.input_shape = input_shape
        self.values: dict[fx.Node, Value | _Size | None] = {}
        self.layers: list[FoldedLayer] = []
        self.normalize: Normalize | None = None

    def run(self, graph: fx.Graph) -> FoldedNetwork:
        inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
        if len(inputs) != 1:
            raise ExportError(f"forward: takes {len(inputs)} inputs that it uses; allowed: one, the image")
        for node in graph.nodes:
            if node.op == "output":
                self.read_out(node)
            elif node.op == "placeholder":
                self.values[node] = None
            else:
                self.values[node] = self.operation(node)
        assert self.normalize is not None  # or the read-out would have failed
        mean, std = _array(self.normalize.mean).ravel(), _array(self.normalize.std).ravel()
        for key, values, valid in (("mean", mean, np.isfinite(mean)), ("std", std, (std > 0) & (std < np.inf))):
            if not valid.all():
                raise ExportError(f"Normalize: {key} is {values[~valid][0]}; allowed: finite numbers, std above 0")
        if len(mean) != self.input_shape[0]:
            raise ExportError(f"Normalize: is for {len(mean)} channels; allowed: {self.input_shape[0]} as the image")
        for layer in self.layers:
            _check_finite(layer)
        return FoldedNetwork(self.input_shape, tuple(self.layers), mean, std)

    def fail(self, node: fx.Node, found: str, allowed: str) -> NoReturn:
        raise ExportError(f"{self.place(node)}: {found}; allowed: {allowed}")

    def place(self, node: fx.Node) -> str:
        """Path and type of a module, or file, line and name of an operation in somebody's forward."""
        if node.op == "call_module":
            return f"{node.target} {type(self.modules[str(node.target)]).__name__}"
        name = getattr(node.target, "__name__", str(node.target))
        found = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
        lines = [(file, line) for file, line in found if Path(torch.__file__).parent not in Path(file).parents]
        return f"{Path(lines[-1][0]).name}:{lines[-1][1]}: {name}" if lines else name

    def operation(self, node: fx.Node) -> Value | _Size:
        if node.op == "call_module":
            return self.module(node, self.modules[str(node.target)])
        if node.op not in ("call_function", "call_method"):
            self.fail(node, f"uses {node.target} outside of a module", f"tensors inside {MODULES}")
        target = node.target
        if target in ("size", "dim") or (target is getattr and node.args[1] == "shape"):
            return _Size()
        if target is operator.getitem and isinstance(self.values.get(node.args[0]), _Size):  # type: ignore[arg-type]
            return _Size()
        if target in (operator.add, torch.add, "add"):
            return self.addition(node)
        if target in (operator.iadd, "add_"):
            self.require_unused_later(node)
            return self.addition(node)
        if target in (torch.flatten, "flatten"):
            return self.flatten(node, self.argument(node, 1, "start_dim", 0), self.argument(node, 2, "end_dim", -1))
        if target in ("view", "reshape", torch.reshape):
            shape = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], list | tuple) else node.args[1:]
            if len(shape) != 2 or shape[1] != -1:
                self.fail(node, f"to {tuple(map(str, shape))}", "view(batch size, -1)")
            return self.flatten(node, 1, -1)
        if target in (F.avg_pool2d, torch._C._nn.avg_pool2d):
            kernel = self.argument(node, 1, "kernel_size")
            plain = (
                self.argument(node, 3, "padding", 0) in (0, (0, 0))
                and not self.argument(node, 4, "ceil_mode", False)
                and self.argument(node, 6, "divisor_override") is None
            )
            return self.pool(node, kernel, self.argument(node, 2, "stride") or kernel, plain=plain)
        if target is F.adaptive_avg_pool2d:
            return self.adaptive_pool(node, self.argument(node, 1, "output_size"))
        if target in (torch.mean, "mean"):
            return self.mean(node)
        if target is F.dropout:
            if self.argument(node, 2, "training", True) is not False:
                self.fail(node, "acts in evaluation mode too", "training=self.training, in evaluation mode")
            return self.input(node)
        self.fail(node, "cannot be exported", f"{FUNCTIONS}, and the modules {MODULES}")

    def argument(self, node: fx.Node, position: int, name: str, default: object = None) -> object:
        return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)

    def input(self, node: fx.Node, position: int = 0) -> Value:
        """The value of an argument."""
        source = node.args[position] if len(node.args) > position else next(iter(node.kwargs.values()), None)
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(value, Value):
            return value
        if isinstance(source, fx.Node) and source.op == "placeholder":
            self.fail(node, "takes the image", "Normalize first")
        self.fail(node, f"takes {source}", "outputs of layers")

    def module(self, node: fx.Node, module: nn.Module) -> Value:
        kind = type(module)
        if isinstance(module, Normalize):
            source = node.args[0] if node.args else None
            if not (isinstance(source, fx.Node) and source.op == "placeholder") or self.normalize is not None:
                self.fail(node, "is not the first operation", "Normalize once, on the image")
            self.normalize = module
            return replace(source_value(IMAGE, self.input_shape, 1.0), name=str(node.target))
        if isinstance(module, Neuron):
            return self.neurons(node, module)
        if isinstance(module, nn.Conv2d):
            return self.convolution(node, module)
        if isinstance(module, nn.Linear):
            return self.linear(node, module)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            return self.batch_norm(node, module)
        if kind is nn.AvgPool2d:
            plain = module.padding in (0, (0, 0)) and not module.ceil_mode and module.divisor_override is None
            return self.pool(node, module.kernel_size, module.stride, plain=plain)
        if kind is nn.AdaptiveAvgPool2d:
            return self.adaptive_pool(node, module.output_size)
        if kind is nn.Flatten:
            return self.flatten(node, module.start_dim, module.end_dim)
        if kind in (nn.Dropout, nn.Dropout2d, nn.Identity):
            return self.input(node)
        self.fail(node, "cannot be exported", MODULES)

    def plain_input(self, node: fx.Node, what: str) -> Value:
        """The argument, which must be spikes (or the image), pooled perhaps."""
        value = self.input(node)
        if not value.is_plain:
            found = f"follows {value.name}, which has weights or a bias already"
            self.fail(node, found, f"{what} behind an activation or pooling")
        return value

    def convolution(self, node: fx.Node, module: nn.Conv2d) -> Value:
        value = self.plain_input(node, "a convolution")
        if len(value.shape) != 3 or value.shape[0] != module.in_channels:
            self.fail(node, f"follows an output of {value.shape}", f"outputs ({module.in_channels}, H, W)")
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            found = f"padding is {module.padding!r}, {module.padding_mode}"
            self.fail(node, found, "padding as a number, filled with zeros")
        pairs = (module.stride, module.padding, module.dilation)
        stride, padding, dilation = ((int(y), int(x)) for y, x in pairs)
        pooled = any(term.window != (1, 1) for term in value.terms)
        if pooled and dilation != (1, 1):
            self.fail(node, f"dilation is {dilation} behind pooling", "(1, 1) behind pooling")
        weight = _array(module.weight)
        bias = np.zeros(len(weight)) if module.bias is None else _array(module.bias)
        result = convolve(value, str(node.target), weight, bias, stride, padding, dilation, module.groups)
        if min(result.shape) < 1:
            self.fail(node, f"kernel {module.kernel_size} on an output of {value.shape}", "kernels that fit")
        return result

    def linear(self, node: fx.Node, module: nn.Linear) -> Value:
        value = self.plain_input(node, "a linear layer")
        if value.shape != (module.in_features,):
            self.fail(node, f"follows an output of {value.shape}", f"({module.in_features},), flattened")
        weight = _array(module.weight)
        bias = np.zeros(len(weight)) if module.bias is None else _array(module.bias)
        return apply_matrix(value, str(node.target), weight, bias)

    def batch_norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Value:
        """z ← γ · (z − μ)/√(σ² + ε) + β."""
        value = self.input(node)
        if module.running_mean is None or module.running_var is None:
            self.fail(node, "has no running statistics", "batch norm with them")
        variance = _array(module.running_var)
        if len(variance) != value.shape[0] or len(variance) != len(value.terms[0].weight):
            self.fail(node, f"follows an output of {value.shape}", f"{len(variance)} channels")
        if not (variance >= 0).all():
            self.fail(node, f"variance is {variance.min()}", "numbers of at least 0")
        gain, shift = 1 / np.sqrt(variance + module.eps), np.zeros(len(variance))
        if module.affine:
            gain, shift = gain * _array(module.weight), _array(module.bias)
        return scale(value, gain, shift - _array(module.running_mean) * gain)

    def neurons(self, node: fx.Node, module: Neuron) -> Value:
        value = self.input(node)
        threshold = float(module.threshold.detach())
        if not (np.isfinite(threshold) and threshold > 0):
            self.fail(node, f"threshold is {threshold}", "positive numbers")
        if any(term.output_shape != value.shape for term in value.terms):
            self.fail(node, f"follows {value.name}, which is flattened", "activations before Flatten")
        initial = _array(module.initial)
        if initial.shape not in ((), value.shape[:1]) or not np.isfinite(initial).all():
            self.fail(node, f"initial is of shape {initial.shape}", f"one number, or {value.shape[0]}, one per channel")
        name = self.unique(str(node.target) if value.is_plain else value.name)
        layer = FoldedLayer(
            name, value.terms, value.bias, threshold, initial if initial.ndim else float(initial), module.reset
        )
        self.layers.append(layer)
        return source_value(name, value.shape, threshold)

    def unique(self, name: str) -> str:
        names = {layer.name for layer in self.layers} | {IMAGE}
        number = 2
        found = name
        while found in names:
            found, number = f"{name}.{number}", number + 1
        return found

    def require_unused_later(self, node: fx.Node) -> None:
        """For an addition in place: nothing but its result may use the tensor that it changes, under whatever name."""
        order = {other: number for number, other in enumerate(node.graph.nodes)}
        changed = self.storage(node.args[0])
        names = [other for other in order if other is not node and self.storage(other) is changed]
        later = any(order[user] > order[node] for name in names for user in name.users if user is not node)
        if later or not node.users:
            self.fail(node, "changes a tensor in place that is used again", "x = x + y")

    def storage(self, node: object) -> object:
        """The operation that made the tensor which ``node`` passes on."""
        while isinstance(node, fx.Node) and node.args:
            module = self.modules.get(str(node.target)) if node.op == "call_module" else None
            passes = isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d | nn.Flatten) or node.target in (
                torch.flatten, "flatten", "view", "reshape", torch.reshape, F.dropout, operator.iadd, "add_"
            )  # fmt: skip
            if not passes:
                break
            node = node.args[0]
        return node

    def addition(self, node: fx.Node) -> Value:
        if len(node.args) != 2 or node.kwargs:
            self.fail(node, "has other arguments", "two values")
        one, two = self.input(node, 0), self.input(node, 1)
        if one.shape != two.shape:
            self.fail(node, f"adds outputs of {one.shape} and {two.shape}", "equal shapes")
        # The side with weights names the layer, whichever side of the + it stands on.
        return add(two, one) if one.is_plain and not two.is_plain else add(one, two)

    def flatten(self, node: fx.Node, start: object, end: object) -> Value:
        value = self.input(node)
        if start != 1 or end not in (-1, 3):
            self.fail(node, f"flattens dimensions {start} to {end}", "all but the batch, flatten(1)")
        if len(value.shape) == 3 and not value.is_plain:
            self.fail(node, f"follows {value.name}", "flatten behind an activation or pooling")
        size = int(np.prod(value.shape))
        return replace(value, shape=(size,), bias=value.bias if len(value.shape) == 1 else np.zeros(size))

    def pool(self, node: fx.Node, kernel: object, stride: object, *, plain: bool) -> Value:
        value = self.input(node)
        window = _pair(kernel)
        if window is None or _pair(stride) != window or not plain or len(value.shape) != 3:
            self.fail(
                node,
                f"kernel {kernel}, stride {stride}",
                "windows as large as the stride, without padding, ceil_mode and divisor_override",
            )
        return self.averaged(node, value, window)

    def adaptive_pool(self, node: fx.Node, size: object) -> Value:
        value = self.input(node)
        target = _pair(size)
        if target is None or min(target) < 1 or len(value.shape) != 3:
            self.fail(node, f"to {size} from {value.shape}", "sizes of at least 1, of outputs (C, H, W)")
        if any(n % m for n, m in zip(value.shape[1:], target, strict=True)):
            self.fail(node, f"to {size} from {value.shape}", "sizes that divide the height and the width")
        return self.averaged(node, value, (value.shape[1] // target[0], value.shape[2] // target[1]))

    def mean(self, node: fx.Node) -> Value:
        value = self.input(node)
        dims = self.argument(node, 1, "dim", node.kwargs.get("axis"))
        if not isinstance(dims, list | tuple) or sorted(d % 4 for d in dims) != [2, 3] or len(value.shape) != 3:
            self.fail(node, f"over {dims}", "mean over height and width, (2, 3)")
        pooled = self.averaged(node, value, value.shape[1:])
        if self.argument(node, 2, "keepdim", False):
            return pooled
        if not pooled.is_plain:
            self.fail(node, f"follows {value.name}", "mean behind an activation")
        return replace(pooled, shape=pooled.shape[:1])

    def averaged(self, node: fx.Node, value: Value, window: Pair) -> Value:
        exact = all(n % p == 0 for n, p in zip(value.shape[1:], window, strict=True))
        if (not exact and any(term.is_identity for term in value.terms)) or min(window) < 1:
            self.fail(node, f"pools an output of {value.shape}", f"sizes that {window} divides")
        if any(p > n for n, p in zip(value.shape[1:], window, strict=True)):
            self.fail(node, f"pools an output of {value.shape}", f"sizes of at least {window}")
        return average(value, window)

    def read_out(self, node: fx.Node) -> None:
        value = self.values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
        if not isinstance(value, Value) or not all(t.is_dense and not t.is_identity for t in value.terms):
            raise ExportError("forward: does not return the output of Linear; allowed: one Linear at the end")
        self.layers.append(FoldedLayer(self.unique(value.name), value.terms, value.bias))


def _pair(value: object) -> Pair | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return value[0], value[1]
    return None


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().cpu().double().numpy()


def _check_finite(layer: FoldedLayer) -> None:
    arrays: list[tuple[str, Floats]] = [("weight", c.weight) for c in layer.connections]
    for key, value in (*arrays, ("bias", layer.bias)):
        if not np.isfinite(value).all():
            raise ExportError(f"{layer.name}: {key} is not finite; allowed: finite numbers")
