"""Recording what a module's forward does to one image size: shapes are numbers, tensors are symbols."""

import operator
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.lazy import LazyModuleMixin
from torch.optim.swa_utils import AveragedModel

from export.fold.folded import ExportError
from nqlava.errors import shown
from train.model.activation import Neuron
from train.model.models import Normalize

BATCH = 3
"""Images that the forward is traced with."""
WHOLE = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer,
         nn.TransformerDecoderLayer)  # fmt: skip
"""Modules that are refused as a whole."""
_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "setitem")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside nn.DataParallel, torch.compile and an average of weights. ExportError where it is no module."""
    if not isinstance(model, nn.Module):
        raise ExportError(f"model is of type {type(model).__name__}; pass a torch.nn.Module with its parameters")
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


def require_plain(model: nn.Module) -> None:
    """ExportError where modules do something else than their forward says: it would be lost."""
    for path, module in model.named_modules():
        place = f"{path} {type(module).__name__}".strip()
        if isinstance(module, torch.jit.ScriptModule):
            raise ExportError(f"{place}: TorchScript has no Python forward; convert the module that it was made of")
        if "_orig_mod" in module._modules:
            raise ExportError(f"{place}: torch.compile wraps the module; convert its _orig_mod")
        if isinstance(module, LazyModuleMixin):
            raise ExportError(f"{place}: has parameters without a size; allowed: a module that has had an image")
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if value.dtype in (torch.float16, torch.bfloat16):
                found = str(value.dtype).removeprefix("torch.")
                raise ExportError(f"{place}: {name} is {found}; allowed: float32, as by model.float()")
        if module.training:
            raise ExportError(f"{place}: is in training mode; allowed: evaluation mode, model.eval()")
        if module._forward_hooks or module._forward_pre_hooks:
            raise ExportError(
                f"{place}: has forward hooks, as weight_norm, spectral_norm and prune add them; allowed: none "
                "(remove them, or use torch.nn.utils.parametrizations)"
            )
        if "forward" in vars(module) and not isinstance(module, fx.GraphModule):
            raise ExportError(f"{place}: forward was replaced on the object; allowed: forward as its class defines it")
        for known in (Neuron, Normalize):
            if isinstance(module, known) and type(module).forward is not known.forward:
                raise ExportError(f"{place}: has a forward of its own; allowed: that of {known.__name__}")


class Symbol(fx.Proxy):
    """A tensor of the traced forward, whose shape is known."""

    @property
    def fake(self) -> Any:
        """A tensor without memory, of the shape and type that this one has; or a tuple of such."""
        return self.node.meta["value"]

    @property
    def shape(self) -> torch.Size:
        return self.fake.shape

    @property
    def ndim(self) -> int:
        return self.fake.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.fake.dtype

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return self.fake.numel()

    def is_floating_point(self) -> bool:
        return self.fake.is_floating_point()

    def __len__(self) -> int:
        return len(self.fake)

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(self, i) for i in range(len(self))])

    def _value(self, *_: object) -> NoReturn:
        raise ExportError(
            f"{place(self.node)}: its values decide what forward does; allowed: the same operations for every image"
        )

    __bool__ = __int__ = __float__ = __index__ = item = tolist = _value


class Tracer(fx.Tracer):
    """Records operations, what they give, and where in the source they stand.

    Args:
        shape: (C, H, W) of an image.
        is_whole: which modules are one operation; of the others the forward is followed.
        dtype: of the image.
    """

    record_stack_traces = True

    def __init__(self, shape: tuple[int, int, int], is_whole: Callable[[nn.Module], bool], dtype: torch.dtype) -> None:
        super().__init__()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._shape, self._is_whole, self._dtype = shape, is_whole, dtype
        self._fake = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_whole(m)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._fake else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Symbol(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        self._fake = True
        try:
            with self._mode, torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made.node.meta["value"] = self._result(made.node)
        except Exception as error:
            raise ExportError(
                f"{place(made.node)}: fails for images of {self._shape} ({shown(error, 200)}); "
                "allowed: images of the size that the network is for"
            ) from None
        finally:
            self._fake = False
        return made

    def _result(self, node: fx.Node) -> Any:
        """What the operation gives for ``BATCH`` images, without memory."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._known)
        if node.op == "placeholder":
            return torch.empty(BATCH, *self._shape, dtype=self._dtype)
        if node.op == "get_attr":
            return self._mode.from_tensor(attribute(self.root, str(node.target)))
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            if isinstance(module, WHOLE) or any(module.children()):
                return args[0] if args else None
            return type(module).forward(module, *args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _known(self, node: fx.Node) -> Any:
        """The result of an operation before; buffers are recorded where they are used."""
        if "value" not in node.meta:
            node.meta["value"] = self._result(node)
        return node.meta["value"]


def attribute(root: nn.Module, path: str) -> Any:
    """The attribute of a module at a path with dots."""
    found: Any = root
    for name in path.split("."):
        found = getattr(found, name)
    return found


def traced(
    model: nn.Module,
    shape: tuple[int, int, int],
    is_whole: Callable[[nn.Module], bool],
    dtype: torch.dtype = torch.uint8,
) -> fx.Graph:
    """The operations of ``model`` on images of the shape (C, H, W). ExportError where they depend on values."""
    tracer = Tracer(shape, is_whole, dtype)
    try:
        graph = tracer.trace(model)
    except ExportError:
        raise
    except Exception as error:  # the module's own code runs here, on symbols instead of tensors
        raise ExportError(
            f"{type(model).__name__}: forward cannot be traced ({shown(error, 200)}); "
            "allowed: a fixed sequence of operations that does not depend on values"
        ) from None
    for node in reversed(graph.nodes):
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        changes = is_in_place(node) or getattr(module, "inplace", False)
        if not node.users and node.op not in ("placeholder", "output") and not changes:
            graph.erase_node(node)
    return graph


def is_in_place(node: fx.Node) -> bool:
    """Whether the operation changes the tensor that it is given."""
    name = operation_name(node)
    in_place = (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE
    return node.op != "call_module" and (in_place or node.kwargs.get("inplace") is True)


def module_path(node: fx.Node) -> tuple[str, str]:
    """Path and class of the module in whose forward an operation stands; empty for the network's own."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1]
    return path, kind.__name__ if isinstance(kind, type) else str(kind).rsplit(".", 1)[-1]


def place(node: fx.Node) -> str:
    """Module path, file and line of an operation, for messages."""
    name = operation_name(node)
    path, kind = module_path(node)
    found = re.findall(r'File "(.+)", line (\d+)', node.stack_trace or "")
    begin = next((i for i, (file, _) in enumerate(found) if Path(file) == Path(__file__)), -1)
    others = {Path(torch.__file__).parent, Path(__file__).parent}
    lines = [f"{Path(f).name}:{n}" for f, n in found[begin + 1 :] if f[0] != "<" and not others & {*Path(f).parents}]
    where = f"{path} {kind}".strip()
    if node.op == "call_module" or not lines:
        return where if node.op == "call_module" and where else f"{where}: {name}" if where else name
    return f"{where} ({lines[-1]}): {name}" if where else f"{lines[-1]}: {name}"


def operation_name(node: fx.Node) -> str:
    """The name of a function, method, attribute or module, such as ``conv2d``."""
    if isinstance(node.target, str):
        return node.target if node.op != "call_module" else node.target.rsplit(".", 1)[-1]
    return getattr(node.target, "__name__", str(node.target))
