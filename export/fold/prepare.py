"""A user's trained network with activations that become neurons, in place of its ReLUs."""

import copy
import re
from collections.abc import Callable
from itertools import count
from keyword import iskeyword
from typing import Any, Literal

import torch
from torch import fx, nn

from export.fold.activations import Activation, recognised, recognised_function
from export.fold.folded import ExportError, Pool
from export.fold.lower import named_arguments
from export.fold.maximum import MaximumOfRates, end_of
from export.fold.operations import pool_of
from export.fold.trace import (
    BATCH,
    WHOLE,
    is_in_place,
    module_path,
    operation_name,
    require_plain,
    traced,
    unwrapped,
)
from train.model.activation import Neuron
from train.model.models import Normalize
from train.model.snn import neurons

Maximum = Literal["rates", "steps"]
_TOLERANCE = 1e-3  # of the largest score
_PLAIN = re.compile("[A-Za-z0-9_]+")  # parts of paths that torch.fx can write as they are


def prepare(model: nn.Module, input_shape: tuple[int, int, int], *, maximum: Maximum = "rates") -> fx.GraphModule:
    """A copy of the network in which every call of an activation is a module of its own: RateReLU, CappedReLU or NQ.

    ReLU, ReLU6, Hardtanh(0, c) and clamp(0, c) are found as modules and as functions, and the user's own modules by
    what they compute (export.fold.activations). A module that is used in several places becomes several. The copy is a
    torch.fx.GraphModule with the modules of the network; its forward computes what the network's does, for any number
    of images in any layout of the memory.

    Args:
        model: in evaluation mode; it takes uint8 images (N, C, H, W).
        input_shape: (C, H, W) of an image.
        maximum: what becomes of max pooling: MaximumOfRates, or with "steps" the maximum of spikes, step by step, which
            takes fewer neurons and loses more.

    Raises:
        ExportError: the forward cannot be traced, or the copy computes something else than the network.
    """
    model = unwrapped(model)
    require_plain(model)
    copied = copy.deepcopy(model)
    found = {m: a for m in copied.modules() if (a := recognised(m)) is not None}

    def is_whole(module: nn.Module) -> bool:
        own = type(module).__module__.startswith("torch.nn") and not any(module.children())
        return own or isinstance(module, (Neuron, Normalize, *WHOLE)) or module in found

    graph = traced(copied, input_shape, is_whole)
    modules = dict(copied.named_modules())
    used: set[str] = set()

    def is_activation(node: fx.Node) -> bool:
        is_neuron = node.op == "call_module" and isinstance(copied.get_submodule(str(node.target)), Neuron)
        return is_neuron or _activation(node, modules, found) is not None

    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        activation = _activation(node, modules, found)
        pool = _pool(node, module) if maximum == "rates" else None
        if pool is not None and _is_exact(pool, node, modules, is_activation):
            has_sum = _needs_sum(pool, node, modules, is_activation)
            _insert(copied, node, MaximumOfRates(pool, has_sum=has_sum).eval(), used, "maximum")
            modules.setdefault(str(node.target), copied.get_submodule(str(node.target)))
        elif isinstance(module, Neuron):
            _insert(copied, node, copy.deepcopy(module), used)
        elif activation is not None:
            in_place = is_in_place(node) or getattr(module, "inplace", False)
            _insert(copied, node, activation.neuron().eval(), used, in_place=in_place)
        elif node.op in ("call_method", "call_function") and operation_name(node) in ("view", "reshape"):
            _free(node)
    _call_by_plain_names(copied, graph)
    graph.lint()
    made = fx.GraphModule(copied, graph)
    made.eval()
    _compare(model, made, input_shape)
    return made


def _activation(node: fx.Node, modules: dict[str, nn.Module], found: dict[nn.Module, Activation]) -> Activation | None:
    if node.op == "call_module":
        module = modules[str(node.target)]
        if module in found:
            return found[module]
        name = type(module).__name__.lower()
        return recognised_function(name, vars(module)) if isinstance(module, nn.ReLU | nn.ReLU6 | nn.Hardtanh) else None
    if node.op not in ("call_function", "call_method"):
        return None
    name = operation_name(node).rstrip("_")
    return recognised_function(name, named_arguments(node.target, name, node.args, node.kwargs))


def _insert(
    model: nn.Module, node: fx.Node, made: nn.Module, used: set[str], name: str = "relu", *, in_place: bool = False
) -> None:
    """Put a module into the place of an operation; what is changed in place is the result from then on."""
    path = str(node.target) if node.op == "call_module" else ".".join(filter(None, (module_path(node)[0], name)))
    existing = {found for found, _ in model.named_modules()}
    target, number = path, 2
    while target in used or (target in existing and node.op != "call_module"):
        target, number = f"{path}_{number}", number + 1
    used.add(target)
    parent, _, last = target.rpartition(".")
    model.get_submodule(parent).add_module(last, made)
    value: Any = node.args[0] if node.args else node.kwargs["input"]
    if in_place:
        order = {other: place for place, other in enumerate(node.graph.nodes)}
        value.replace_all_uses_with(node, lambda user: order[user] > order[node])
    node.op, node.target, node.args, node.kwargs = "call_module", target, (value,), {}


def _call_by_plain_names(model: nn.Module, graph: fx.Graph) -> None:
    """Give what a graph names a second name where its path cannot stand in the program that torch.fx writes of it."""
    existing = {name for name, _ in model.named_children()}
    for number, node in enumerate(graph.nodes):
        atoms = str(node.target).split(".")
        if node.op not in ("call_module", "get_attr") or all(_PLAIN.fullmatch(a) and not iskeyword(a) for a in atoms):
            continue
        found: Any = model
        for atom in atoms:
            found = getattr(found, atom)
        node.target = next(name for n in count(number) if (name := f"plain_{n}") not in existing)
        existing.add(node.target)
        setattr(model, node.target, found)


def _free(node: fx.Node) -> None:
    """Let a view that was traced with ``BATCH`` images take any number of them, in any layout of the memory."""
    shape = node.meta["value"].shape
    if len(shape) and shape[0] == BATCH:
        value = node.args[0] if node.args else node.kwargs["input"]
        node.op, node.target, node.kwargs = "call_function", torch.reshape, {}
        node.args = (value, (-1, *shape[1:]))


@torch.no_grad()
def _compare(model: nn.Module, made: nn.Module, shape: tuple[int, int, int]) -> None:
    """ExportError unless both give the same scores for random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, *shape), generator=generator, dtype=torch.uint8)
    expected: Any = model(images)
    found: Any = made(images)
    expected, found = (value[0] if isinstance(value, tuple | list) else value for value in (expected, found))
    largest = float(expected.abs().max())
    if not float((found - expected).abs().max()) <= _TOLERANCE * max(largest, 1e-6):
        raise ExportError(
            f"{type(model).__name__}: computes something else than what was traced; allowed: a forward that does the "
            "same for every image"
        )


def activations(model: nn.Module) -> list[Neuron]:
    """Those of a prepared network, in the order in which forward uses them."""
    if not isinstance(model, fx.GraphModule):
        return neurons(model)
    called = [model.get_submodule(str(node.target)) for node in model.graph.nodes if node.op == "call_module"]
    return [neuron for module in called for neuron in neurons(module)]


def _pool(node: fx.Node, module: nn.Module | None) -> Pool | None:
    """The windows of two-dimensional max pooling; None for other operations."""
    if type(module) is nn.MaxPool2d and not module.return_indices:
        return pool_of(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    if operation_name(node) == "max_pool2d" and node.op == "call_function":
        given: Any = (node.args[1:], {key: value for key, value in node.kwargs.items() if key != "input"})
        return pool_of(*given[0], **given[1])
    if (type(module) is nn.AdaptiveMaxPool2d or operation_name(node) == "adaptive_max_pool2d") and node.args:
        sizes, counts = _image(node.args[0]), _image(node)
        if not any(n % m for n, m in zip(sizes, counts, strict=True)):
            window = (sizes[0] // counts[0], sizes[1] // counts[1])
            return Pool(window, window)
    return None


def _image(node: Any) -> tuple[int, int]:
    """(H, W) of what an operation gives."""
    shape = node.meta["value"].shape
    return int(shape[-2]), int(shape[-1])


def _is_exact(pool: Pool, node: fx.Node, modules: dict[str, nn.Module], is_activation: Callable[[Any], bool]) -> bool:
    """Whether zeros around the map change nothing: there are none, or the map has no value below 0."""
    value = node.args[0] if node.args else node.kwargs["input"]
    ends = [end_of(pool, axis, size)[0] for axis, size in enumerate(_image(value))]

    def is_positive(node: fx.Node) -> bool:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        keeps = isinstance(module, _KEEPING) or (node.op == "call_function" and operation_name(node) in _KEEP)
        return is_activation(node) or (keeps and all(map(is_positive, node.all_input_nodes)))

    return (pool.padding == (0, 0) and not any(ends)) or is_positive(value)  # type: ignore[arg-type]


_KEEPING = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity, MaximumOfRates,
)  # fmt: skip
_KEEP = ("cat", "concat", "concatenate", "add", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout")
"""Modules and functions whose output is at least 0 where their inputs are."""


def _needs_sum(pool: Pool, node: fx.Node, modules: dict[str, nn.Module], is_activation: Callable[[Any], bool]) -> bool:
    """Whether the maxima must be a layer, since what stands between them and the next activation asks for one map.

    A linear layer of the flattened maxima would be a matrix for each of their connections. Zeros around the maxima (a
    padded convolution) are no zeros of the sums where windows overlap or leave a rest: the places beyond the last
    window would show the map.
    """
    value = node.args[0] if node.args else node.kwargs["input"]
    sizes = zip(_image(value), _image(node), pool.kernel, pool.stride, pool.padding, pool.dilation, strict=True)
    shows = any((k - 1) * d - s - p >= 0 or count * s - p < size for size, count, k, s, p, d in sizes)
    seen: set[fx.Node] = set()
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user in seen or user.op == "output" or is_activation(user):
            continue
        seen.add(user)
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        name = operation_name(user)
        if isinstance(module, nn.Linear) or name in ("linear", "matmul"):
            return True
        if shows and (getattr(module, "padding", 0) not in (0, (0, 0), "valid") or name in _MAY_PAD):
            return True
        if len(user.meta["value"].shape) < 4 or _image(user) != (1, 1):  # behind a global average, matrices are small
            waiting += user.users
    return False


_MAY_PAD = ("conv2d", "avg_pool2d", "max_pool2d", "pad")  # functions, whose padding is not looked at
