"""From a trained module to layers of neurons, by tracing: steps 1 to 3 of docs/semantics.md."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from export.fold import operations
from export.fold.activations import Activation, recognised, recognised_function
from export.fold.folded import Call, ExportError, FoldedLayer, FoldedNetwork, Indices, Pool
from export.fold.layers import divided, layer
from export.fold.refusals import advice
from export.fold.term import Unsupported, source_term
from export.fold.trace import (
    BATCH,
    WHOLE,
    attribute,
    is_in_place,
    module_path,
    operation_name,
    place,
    require_plain,
    traced,
    unwrapped,
)
from export.fold.value import (
    Value,
    as_base,
    as_map,
    as_vector,
    constant_value,
    entries,
    index_of,
    joined,
    scale,
    source_value,
)
from nqlava.network import IMAGE, INPUT_MAX
from train.model.activation import Neuron
from train.model.models import Normalize


def lower(model: nn.Module, input_shape: tuple[int, int, int]) -> FoldedNetwork:
    """Fold everything between two activations of a network into the connections between layers of neurons.

    The forward of ``model`` is traced with torch.fx. Between two activations, whatever is an affine map is multiplied
    out: convolutions, batch norm, average pooling, sums, concatenation, slices, shuffles, padding, constant factors.
    One image goes in, and class scores come out.

    Args:
        model: in evaluation mode; it takes uint8 images (N, C, H, W), through Normalize or by its own arithmetic.
        input_shape: (C, H, W) of an image.

    Raises:
        ExportError: a part that cannot be exported; it names the place, the reason, and what works instead.
    """
    return Lowering(model, input_shape).run()


class Lowering:
    """Goes through the operations of one traced module once.

    Args:
        model, input_shape: as of ``lower``.
        refused: told of each refusal, after which the lowering goes on; without it the first one is raised.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, int, int],
        refused: Callable[[ExportError], None] | None = None,
    ) -> None:
        self.model = unwrapped(model)
        require_plain(self.model)
        self.modules = dict(self.model.named_modules())
        self.found = {m: a for m in self.modules.values() if (a := recognised(m)) is not None}
        self.input_shape = input_shape
        self.refused = refused
        self.values: dict[fx.Node, Any] = {}
        self.order: dict[fx.Node, int] = {}
        self.layers: list[FoldedLayer] = []
        self.calls: list[Call] = []
        self.normalize: Normalize | None = None
        self.softmax = ""
        self.is_prepared = True
        self.uncalibrated: list[str] = []
        self.broken = False

    def run(self) -> FoldedNetwork:
        whole = (Neuron, Normalize, *WHOLE)
        graph = traced(self.model, self.input_shape, lambda m: isinstance(m, whole) or m in self.found)
        inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
        if len(inputs) != 1:
            raise ExportError(f"forward: takes {len(inputs)} inputs that it uses; allowed: one, the image")
        mean, std = self._normalisation(inputs[0])
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        last = {used: node for node in graph.nodes for used in node.all_input_nodes}
        for node in graph.nodes:
            try:
                value = self._node(node, mean, std)
                self.values[node] = self._source_instead(node) if self.broken and isinstance(value, Value) else value
            except Unsupported as error:
                self._refuse(node, ExportError(f"{place(node)}: {error.found}; allowed: {error.allowed}"))
            except ExportError as error:
                self._refuse(node, error)
            for used in node.all_input_nodes:
                if last[used] is node:
                    self.values.pop(used, None)
        for made in self.layers:
            _check_finite(made)
        return FoldedNetwork(
            self.input_shape,
            tuple(self.layers),
            mean,
            std,
            tuple(self.calls),
            self.softmax,
            self.is_prepared,
            tuple(self.uncalibrated),
            tuple(self._unused(graph)),
        )

    def _unused(self, graph: fx.Graph) -> Iterator[str]:
        used = {id(attribute(self.model, str(n.target))) for n in graph.nodes if n.op in ("call_module", "get_attr")}
        for path, module in self.modules.items():
            parts = [module, *module.parameters(recurse=False)]
            counts = len(parts) > 1 or isinstance(module, Neuron) or module in self.found
            if counts and used.isdisjoint(map(id, parts)):
                yield path

    def _refuse(self, node: fx.Node, error: ExportError) -> None:
        """Raise the error, or tell of it and go on with new sources in place of what the operation gives."""
        if self.refused is None:
            raise error from None
        self.refused(error)
        self.broken = True
        self.values[node] = self._source_instead(node)

    def _source_instead(self, node: fx.Node) -> Any:
        """New sources in place of what the operation gives."""
        return fx.node.map_aggregate(
            node.meta.get("value"),
            lambda t: source_value(f"?{node.name}", tuple(t.shape[1:]), 1.0) if isinstance(t, Tensor) else t,
        )

    def _normalisation(self, image: fx.Node) -> tuple[Any, Any]:
        """Mean and deviation of the Normalize that takes the image; 0 and 1 without one."""
        for node in image.users:
            module = self.modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(module, Normalize) and self.normalize is None:
                self.normalize = module
        channels = self.input_shape[0]
        if self.normalize is None:
            return np.zeros(channels), np.ones(channels)
        mean, std = (operations.array(t).ravel() for t in (self.normalize.mean, self.normalize.std))
        for key, values, valid in (("mean", mean, np.isfinite(mean)), ("std", std, (std > 0) & (std < np.inf))):
            if not valid.all():
                raise ExportError(f"Normalize: {key} is {values[~valid][0]}; allowed: finite numbers, std above 0")
        if len(mean) != channels:
            raise ExportError(f"Normalize: is for {len(mean)} channels; allowed: {channels} as the image")
        return mean, std

    def _node(self, node: fx.Node, mean: Any, std: Any) -> Any:
        if node.op == "placeholder":
            # x = 255 (d · x̂ + m) of the normalised image x̂, which is the source.
            return scale(source_value(IMAGE, self.input_shape, 1.0), INPUT_MAX * std, INPUT_MAX * mean)
        if node.op == "get_attr":
            return attribute(self.model, str(node.target))
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.values.__getitem__)
        if node.op == "output":
            return self._read_out(args[0])
        if node.op == "call_module":
            return self._module(node, self.modules[str(node.target)], args)
        if not _values((args, kwargs)):
            return _function(node, type(args[0]) if args else Tensor)(*args, **kwargs)
        result = self._operation(node, args, kwargs)
        if is_in_place(node) and operation_name(node) not in operations.NOTHING:
            self._changed(node, args[0], result)
        return result

    def _module(self, node: fx.Node, module: nn.Module, args: Sequence[Any]) -> Any:
        value = args[0] if args else None
        if not isinstance(value, Value):
            raise Unsupported("takes no output of a layer", "one tensor of the network")
        name = str(node.target)
        if isinstance(module, Normalize):
            image = next(iter(node.all_input_nodes))
            if module is self.normalize and image.op == "placeholder":
                return replace(source_value(IMAGE, self.input_shape, 1.0), name=name)
            shift, width = (operations.array(t).ravel() for t in (module.mean, module.std))
            return scale(value, 1 / (INPUT_MAX * width), -shift / width)
        if isinstance(module, Neuron):
            return self._neurons(value, name, module)
        if module in self.found:
            return self._activation(value, name, self.found[module])
        raise Unsupported(*advice(type(module).__name__))

    def _operation(self, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        name = operation_name(node)
        plain = name if name.endswith("__") else name.rstrip("_")
        path = module_path(node)[0] or plain
        given = {k: v for k, v in kwargs.items() if k not in ("inplace", "input")}
        if "input" in kwargs:
            args = (kwargs["input"], *args)
        for value in _values((args, given)):
            if value.softmax and plain not in operations.NOTHING:
                raise Unsupported(f"follows {value.softmax}", f"{value.softmax} at the end, or nowhere")
        for other in node.all_input_nodes:
            fake = other.meta.get("value")
            if isinstance(fake, Tensor) and not fake.is_floating_point() and plain in _ON_FLOATS:
                raise Unsupported("takes the 8-bit image", "Normalize first, or x.float() / 255")
        if plain in operations.NOTHING:
            return args[0]
        if plain in operations.DROPOUT:
            return self._dropout(node, args, given)
        if plain in ("softmax", "log_softmax"):
            return replace(args[0], softmax=plain)
        if plain == "getattr" and args[1] in ("data", "real"):
            return args[0]
        activation = recognised_function(plain, named_arguments(node.target, plain, args, given))
        if activation is not None:
            return self._activation(args[0], path, activation)
        if (pool := self._pool(node, plain, args, given)) is not None:
            return self._maximum(node, args[0], path, pool)
        monotone = plain in ("batch_norm", "mul", "add", "sub", "truediv", "div", "iadd", "imul", "sum")
        for value in _values((args, given)):
            if value.pools and not monotone:
                raise Unsupported("takes a maximum of currents", operations._SPIKES)
        if plain in operations.LINEAR:
            return operations.LINEAR[plain](path, *args, **given)
        if plain in operations.SHAPED:
            return operations.SHAPED[plain](path, *args, **given, shape=self._shape(node))
        if plain in operations.MOVES:
            return self._moved(node, args, given)
        raise Unsupported(*advice(plain))

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of the result, without the batch."""
        shape = node.meta["value"].shape
        if not len(shape) or shape[0] != BATCH:
            raise Unsupported(f"gives {tuple(shape)} for {BATCH} images", "the batch as the first dimension")
        return tuple(shape[1:])

    def _dropout(self, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        named = named_arguments(node.target, operation_name(node).rstrip("_"), args, kwargs)
        if named.get("training", named.get("train", True)) is not False:
            raise Unsupported("acts in evaluation mode too", "training=self.training, in evaluation mode")
        return args[0]

    def _moved(self, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What only moves entries is done to their numbers."""
        several = _values((args, kwargs))
        if operation_name(node) in ("cat", "concat", "concatenate", "stack"):
            constants = fx.node.map_aggregate(args[0], _as_value)
            args = (constants, *args[1:])
            several = _values(args)
        if len(several) == 1:
            whole, indices = several[0], [index_of(several[0])]
        else:
            whole, indices = joined(several)
        count = 1 + int(np.prod(whole.extent))
        numbers = iter(indices)
        turn: dict[int, Tensor] = {}

        def numbered(value: Any) -> Any:
            if not isinstance(value, Value):
                return value
            if id(value) not in turn:
                one = torch.from_numpy(next(numbers) + 1).double()
                batch = torch.arange(BATCH, dtype=torch.float64).reshape(-1, *[1] * one.dim()) * count
                turn[id(value)] = one + batch * (one > 0)
            return turn[id(value)]

        arguments, named = fx.node.map_aggregate((args, kwargs), numbered)
        result = _function(node, Tensor)(*arguments, **named)

        def back(found: Tensor) -> Value:
            if not found.dim() or len(found) != BATCH:
                raise Unsupported(f"gives {tuple(found.shape)} for {BATCH} images", "the batch as the first dimension")
            first = found[0]
            for number in range(BATCH):
                if not torch.equal(found[number], torch.where(first > 0, first + number * count, 0.0)):
                    raise Unsupported("mixes images", "the batch as the first dimension, (N, ...)")
            return entries(whole, first.long().numpy() - 1)

        return fx.node.map_aggregate(result, back)

    def _changed(self, node: fx.Node, old: Any, new: Any) -> None:
        """Behind an operation in place, the same tensor under its other names has the new value."""
        for other, value in list(self.values.items()):
            later = any(self.order[user] > self.order[node] for user in other.users)
            if isinstance(value, Value) and value.storage is old.storage and later:
                if value is not old:
                    raise Unsupported("changes in place a tensor of which another view is used again", "x = x + y")
                self.values[other] = new

    # --- activations and maxima -------------------------------------------------------------------------------------

    def _activation(self, value: Value, name: str, activation: Activation) -> Value:
        made = self._neurons(value, name, activation.neuron())
        self.is_prepared = False
        if activation.levels is None:
            self.uncalibrated += [layer for layer, _ in self.calls[-1].layers]
        return made

    def _neurons(self, value: Value, name: str, module: Neuron) -> Value:
        threshold = float(module.threshold.detach())
        if not (np.isfinite(threshold) and threshold > 0):
            raise Unsupported(f"threshold is {threshold}", "positive numbers")
        initial = operations.array(module.initial)
        shape, pools = value.shape, value.pools
        if value.softmax:
            raise Unsupported(f"follows {value.softmax}", f"{value.softmax} at the end, or nowhere")
        if initial.shape not in ((), shape[:1]) or not np.isfinite(initial).all():
            raise Unsupported(f"initial is of shape {initial.shape}", f"one number, or {shape[0]}, one per channel")
        value = replace(value, pools=(), shape=value.base) if pools else value
        if not (value.index is None and value.resample is None):
            value = as_map(value)
        if not value.terms:
            raise Unsupported("takes a constant", "outputs of layers")
        name = self._unique(name if value.is_plain else value.name)
        per_channel = len(initial.shape) == 1 and len(initial) == value.base[0]
        if initial.ndim and not per_channel:
            value = as_vector(value)
            initial = initial.repeat(value.base[0] // len(initial))
        dense = value.is_vector and (
            len(shape) == 1 or value.base != as_base(value.shape) or any(len(t.source_shape) == 1 for t in value.terms)
        )
        fixed = {"threshold": threshold, "reset": module.reset}
        parts, terms = self._add(value, name, dense, lambda part: {
            **fixed, "initial": initial[part] if initial.ndim else float(initial)
        })  # fmt: skip
        spikes = Value(name, value.base, terms, np.zeros(value.base[0]), shape)
        spikes = scale(replace(spikes, shape=value.base), np.full(value.base[0], threshold), np.zeros(value.base[0]))
        spikes = replace(spikes, shape=shape)
        layers = outputs = tuple(self._places(part, value) for part in parts)
        if pools:
            spikes = replace(spikes, shape=value.base)
            for pool in pools:
                spikes, outputs = self._or(spikes, f"{name}.max", pool, _pooled(spikes.shape, pool))
            spikes = replace(spikes, shape=shape)
        self.calls.append(Call(layers, value.base, pools, outputs))
        return spikes

    def _places(self, part: tuple[str, Indices], value: Value) -> tuple[str, Indices]:
        """A layer, and where its neurons are in the flattened base."""
        name, channels = part
        plane = value.base[1] * value.base[2]
        return name, (channels[:, None] * plane + np.arange(plane)).ravel()

    def _add(
        self, value: Value, name: str, dense: bool, neurons: Callable[[Indices], dict[str, Any]]
    ) -> tuple[list[tuple[str, Indices]], tuple[Any, ...]]:
        """New layers for the base of a value: their names and channels, and terms of their spikes."""
        channels = value.base[0]
        parts = list(divided(value.terms, channels, dense=dense))
        found, terms = [], []
        for part in parts:
            own = self._unique(name if len(parts) == 1 else f"{name}:{part[0]}-{part[-1]}")
            self.layers.append(replace(layer(value, own, part, dense=dense), **neurons(part)))
            shape = (len(part),) if dense else (len(part), *value.base[1:])
            terms.append(source_term(own, shape, 1.0, part))
            found.append((own, part))
        return found, tuple(terms)

    def _unique(self, name: str) -> str:
        names = {made.name for made in self.layers} | {IMAGE}
        if len(name) > _LONGEST:  # what the file can hold, and room for a number
            name = f"..{name[2 - _LONGEST :]}"
        number = 2
        found = name
        while found in names:
            found, number = f"{name}.{number}", number + 1
        return found

    def _pool(self, node: fx.Node, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Pool | None:
        if name in ("max_pool1d", "max_pool2d"):
            return operations.pool_of(*args[1:], **kwargs, line=name == "max_pool1d")
        if name in ("adaptive_max_pool1d", "adaptive_max_pool2d"):
            return operations.pool_to(args[0], self._shape(node))
        if name == "amax":
            over = operations.dimensions(args[0], kwargs.get("dim", args[1] if len(args) > 1 else None))
            if len(args[0].shape) != 3 or 0 in over:
                raise Unsupported("takes the maximum over channels", "maxima over height and width")
            _, *sizes = args[0].shape
            window = tuple(n if axis + 1 in over else 1 for axis, n in enumerate(sizes))
            return Pool((window[0], window[1]), (window[0], window[1]))
        return None

    def _maximum(self, node: fx.Node, value: Value, name: str, pool: Pool) -> Value:
        """Of spikes, a layer of neurons that fire where a spike arrives; of currents, left to the activation behind."""
        shape = self._shape(node)
        size = as_base(shape)[1:]
        if _pooled(as_base(value.shape), pool) != size:  # (C, H) is seen as (C, 1, H)
            raise Unsupported("takes the maximum over the width and drops it", "keepdim=True")
        currents = any(not term.is_identity or term.source == IMAGE for term in value.terms)
        if value.pools or currents:
            mapped = value if value.pools else as_map(value)
            if mapped.base != as_base(mapped.shape) and not value.pools:
                raise Unsupported("takes the maximum of sums", operations._SPIKES)
            return replace(mapped, pools=(*value.pools, pool), shape=shape, storage=object())
        spikes, _ = self._or(value, name, pool, size)
        return replace(spikes, shape=shape)

    def _or(
        self, value: Value, name: str, pool: Pool, size: tuple[int, int]
    ) -> tuple[Value, tuple[tuple[str, Indices], ...]]:
        """The maximum of spikes, step by step, as layers; and where their neurons are in its output."""
        sums, factor, offset = operations.maximum(value, name, pool, size)
        fixed: dict[str, Any] = {"threshold": 1.0, "initial": 0.0, "reset": "hard", "is_maximum": True}
        parts, terms = self._add(sums, self._unique(name), False, lambda _: fixed)
        spikes = Value(name, sums.base, terms, np.zeros(sums.base[0]), sums.base)
        return scale(spikes, factor, offset), tuple(self._places(part, sums) for part in parts)

    def _read_out(self, value: Any) -> None:
        if not isinstance(value, Value):
            raise ExportError("forward: does not return one tensor; allowed: the scores of the classes")
        if value.pools:
            raise ExportError("forward: ends with a maximum of currents; allowed: average pooling at the end")
        if len(value.shape) != 1:
            raise ExportError(
                f"forward: returns {('N', *value.shape)}; allowed: the scores of the classes (N, K)".replace("'", "")
            )
        self.softmax = value.softmax
        vector = as_vector(as_map(value))
        if not vector.terms:
            raise ExportError("forward: returns a constant; allowed: the scores of the classes")
        vector = replace(vector, terms=tuple(replace(term, is_identity=False) for term in vector.terms))
        every = np.arange(vector.base[0])
        self.layers.append(layer(vector, self._unique(value.name), every, dense=True))


_LONGEST = 60
_ON_FLOATS = ("conv1d", "conv2d", "linear", "batch_norm", "avg_pool2d")


def _function(node: fx.Node, kind: type) -> Callable[..., Any]:
    """The function, or the method of a class, that an operation calls."""
    return node.target if callable(node.target) else getattr(kind, node.target)


def _pooled(shape: Sequence[int], pool: Pool) -> tuple[int, int]:
    """(H, W) of the maxima of a map."""
    found = torch.nn.functional.max_pool2d(
        torch.empty(1, 1, *shape[1:]), pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
    )
    return found.shape[2], found.shape[3]


def _values(content: Any) -> list[Value]:
    """The values among arguments, in order."""
    found: list[Value] = []
    fx.node.map_aggregate(content, lambda v: found.append(v) if isinstance(v, Value) else None)
    return found


def named_arguments(target: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments behind the first, by name."""
    names = {
        "clamp": ("min", "max"), "clip": ("min", "max"), "clamp_min": ("min",), "hardtanh": ("min_val", "max_val"),
        "stochastic_depth": ("p", "mode", "training"),
    }.get(name)  # fmt: skip
    if names is None:
        try:
            names = tuple(inspect.signature(target).parameters)[1:]
        except (TypeError, ValueError):
            names = ("p", "train")
    return {**dict(zip(names, args[1:], strict=False)), **kwargs}


def _check_finite(made: FoldedLayer) -> None:
    arrays = [("weight", connection.weight) for connection in made.connections]
    for key, value in (*arrays, ("bias", made.bias)):
        if not np.isfinite(value).all():
            raise ExportError(f"{made.name}: {key} is not finite; allowed: finite numbers")


def _as_value(item: Any) -> Any:
    """A constant tensor among the parts of a concatenation as a value."""
    if not isinstance(item, Tensor):
        return item
    full = operations.array(item)
    return constant_value(np.ascontiguousarray(np.broadcast_to(full[0], full.shape[1:])))
