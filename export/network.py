"""A user's network: its class, as a command names it, and its weights. Nothing is unpickled."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nqlava.command.files import reading
from nqlava.errors import InputError, shown

_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "ema", "model_ema")
"""Where training scripts put the state dictionary in what they save."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What DataParallel, torch.compile and training frameworks put before every name."""
_SHOWN = 5
_FORMS = "PACKAGE.MODULE:FACTORY, FILE.py:FACTORY, or a name in torchvision.models; (KEY=VALUE, ...) may follow"


def build(name: str) -> nn.Module:
    """The module that a factory makes, in evaluation mode.

    Args:
        name: ``PACKAGE.MODULE:FACTORY``, ``FILE.py:FACTORY``, or a name in torchvision.models. Keyword arguments may
            follow, in brackets: ``resnet18(num_classes=10)``. The named module is imported, which runs its code.

    Raises:
        InputError: no such factory, or it fails.
    """
    called, arguments = _parsed(name)
    place, _, factory = called.rpartition(":")
    make = _attribute(_imported(place, name), factory, name)
    try:
        model = make(**arguments)
    except Exception as error:  # the user's code
        raise InputError(f"--model {name}: fails ({shown(error, 200)}); allowed: {_FORMS}") from None
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {name}: makes {type(model).__name__}; allowed: a torch.nn.Module")
    return model.eval()


def _parsed(name: str) -> tuple[str, dict[str, Any]]:
    """What is called, and its keyword arguments."""
    called, bracket, rest = name.partition("(")
    if not bracket:
        return called, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return called, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise InputError(f"--model {name}: cannot be read; allowed: {_FORMS}") from None


def _imported(place: str, name: str) -> Any:
    """The module of a factory."""
    if not place:
        place = "torchvision.models"
    if not place.endswith(".py"):
        sys.path.insert(0, "")  # as python -c does, so that modules beside the user are found
        try:
            return importlib.import_module(place)
        except Exception as error:
            raise InputError(
                f"--model {name}: {place} cannot be imported ({shown(error, 200)}); allowed: {_FORMS}"
            ) from None
        finally:
            sys.path.remove("")
    path = Path(place)
    with reading(path):
        if not path.is_file():
            raise InputError(f"--model {name}: {path} is no file; allowed: {_FORMS}")
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent.resolve()))  # as python FILE.py does
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"--model {name}: {path} cannot be imported ({shown(error, 200)}); allowed: {_FORMS}"
        ) from None
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _attribute(module: Any, factory: str, name: str) -> Callable[..., Any]:
    make = getattr(module, factory, None)
    if not callable(make):
        raise InputError(f"--model {name}: {module.__name__} has no function or class {factory}; allowed: {_FORMS}")
    return make


def input_channels(model: nn.Module) -> int:
    """Channels of the images that the model takes: those of its first convolution; 3 without one."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dictionary in a file of torch.save or safetensors; InputError for other files."""
    with reading(path):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # on arbitrary bytes the unpickler raises IndexError, TypeError, struct.error, ...
        raise InputError(
            f"{path}: is no file of tensors (it asks to run code, or it is damaged); allowed: "
            "torch.save(model.state_dict(), FILE), or safetensors"
        ) from None
    while isinstance(content, Mapping) and (key := next((k for k in _KEYS if isinstance(content.get(k), Mapping)), "")):
        content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(k, str) for k in content):
        raise InputError(f"{path}: holds no state dictionary; allowed: torch.save(model.state_dict(), FILE)")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{path}: needs the package safetensors; pip install 'nq-lava[safetensors]'") from None
    try:
        found: dict[str, Tensor] = load_file(path)
    except Exception as error:
        raise InputError(f"{path}: is no safetensors file ({shown(error, 200)})") from None
    return found


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give the model the weights, whose names may have prefixes; InputError where they are those of another network."""
    expected = model.state_dict()
    found = dict(weights)
    while found and not expected.keys() & found.keys():
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in found)), None)
        if prefix is None:
            break
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    needed = {key for key in expected if not key.endswith("num_batches_tracked")}
    for what, keys in (("has no", needed - found.keys()), ("has too many", found.keys() - expected.keys())):
        if keys:
            first = ", ".join(sorted(keys)[:_SHOWN])
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            raise InputError(f"{path}: {what} {first}{more}; allowed: the weights of the network that --model makes")
    for key in sorted(needed):
        if found[key].shape != expected[key].shape:
            raise InputError(
                f"{path}: {key} is {tuple(found[key].shape)}; allowed: {tuple(expected[key].shape)} as --model makes it"
            )
        if not torch.isfinite(found[key].float()).all():
            raise InputError(f"{path}: {key} is not finite; allowed: finite numbers")
    model.load_state_dict(found, strict=False)
