"""Pickles of plain values and byte arrays, read without unpickling: nothing in the file can run.

A pickle is a program for a stack machine, which may name any function for Python to call. ``pickletools.genops`` only
splits it into its instructions. Those that build numbers, text, lists, tuples, dictionaries and NumPy's arrays of bytes
are followed here, on a stack of our own. A name of a function is a text: it is compared with the few of NumPy's arrays,
and never looked up. Every other instruction and every other name is refused.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Name:
    """Of a function or class: its module and its name in it."""

    text: str


@dataclass(frozen=True)
class _Type:
    """Of the numbers in an array, such as u1."""

    text: str


@dataclass
class _Array:
    """An array whose content may come later."""

    values: NDArray[np.uint8] | None = None


_MARK = object()
_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_VALUES |= {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_VALUES |= {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
_FROM_BUFFER = {f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core")}


def parsed(content: bytes) -> Any:
    """The value in a pickle; arrays as uint8, texts of Python 2 as text in Latin-1.

    Raises:
        ValueError: it is damaged, or has an instruction or a name that plain values and byte arrays do not need.
    """
    stack: list[Any] = []
    try:
        memo: dict[int, Any] = {}
        for code, argument, _ in pickletools.genops(content):
            if code.name == "STOP":
                break
            _follow(code.name, argument, stack, memo)
        (result,) = stack
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"damaged: {type(error).__name__}") from None
    return result


def _follow(code: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if code in _VALUES:
        stack.append(argument)
    elif code in _CONSTANTS:
        stack.append(_CONSTANTS[code])
    elif code in _EMPTY:
        stack.append(_EMPTY[code]())
    elif code in _TUPLES:
        stack[-_TUPLES[code] :] = [tuple(_top(stack, _TUPLES[code]))]
    elif code == "MARK":
        stack.append(_MARK)
    elif code in ("TUPLE", "LIST", "DICT"):
        values = _marked(stack)
        stack.append(tuple(values) if code == "TUPLE" else values if code == "LIST" else _pairs(values))
    elif code in ("APPEND", "APPENDS"):
        values = _marked(stack) if code == "APPENDS" else [stack.pop()]
        list.extend(stack[-1], values)
    elif code in ("SETITEM", "SETITEMS"):
        values = _marked(stack) if code == "SETITEMS" else [stack.pop(-2), stack.pop()]
        dict.update(stack[-1], _pairs(values))
    elif code in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if code == "MEMOIZE" else argument] = stack[-1]
    elif code in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif code in ("GLOBAL", "STACK_GLOBAL"):
        stack.append(_Name(argument if code == "GLOBAL" else " ".join([stack.pop(-2), stack.pop()])))
    elif code == "REDUCE":
        stack[-2:] = [_made(*_top(stack, 2))]
    elif code == "BUILD":
        _fill(stack[-2], stack.pop())
    elif code not in ("PROTO", "FRAME"):
        raise ValueError(f"it has the instruction {code}, which builds no plain value")


def _top(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError
    return stack[-count:]


def _marked(stack: list[Any]) -> list[Any]:
    """What lies above the last mark, which goes with it."""
    place = next(index for index in range(len(stack) - 1, -2, -1) if index < 0 or stack[index] is _MARK)
    values = stack[place + 1 :]
    del stack[place if place >= 0 else len(stack) + 1 :]
    if place < 0:
        raise IndexError
    return values


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    if not all(isinstance(key, str | bytes | int) for key in keys):  # to hash tuples of tuples can take for ever
        raise TypeError
    return dict(zip(keys, values[1::2], strict=True))


def _made(function: object, arguments: tuple[Any, ...]) -> Any:
    """What a call that is known stands for."""
    name = function.text if isinstance(function, _Name) else ""
    if name in _RECONSTRUCT:
        return _Array()
    if name == "numpy dtype":
        return _Type("".join(arguments[:1]))
    if name in _FROM_BUFFER:
        content, kind, shape, order = arguments
        return _Array(_bytes(content, kind, shape, order == "F"))
    if name == "_codecs encode" and arguments[1] in ("latin1", "latin-1"):  # bytes, in the protocols of Python 2
        return str.encode(arguments[0], "latin-1")
    raise ValueError(f"it calls {name or type(function).__name__}, which builds no plain value")


def _fill(target: object, state: tuple[Any, ...]) -> None:
    """The state of an array or a type that was made before."""
    if isinstance(target, _Array):
        _, shape, kind, fortran, content = state
        target.values = _bytes(content, kind, shape, fortran)
    elif not isinstance(target, _Type):
        raise ValueError(f"it sets the state of {type(target).__name__}, which is no array")


def _bytes(content: Any, kind: object, shape: tuple[int, ...], fortran: bool) -> NDArray[np.uint8]:
    data = content.encode("latin-1") if isinstance(content, str) else content
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"it has an array of {type(data).__name__}")
    if kind != _Type("u1") or fortran or math.prod(shape) != len(data) or min(shape, default=0) < 0:
        raise ValueError(f"it has an array of type {getattr(kind, 'text', '')}, shape {shape} and {len(data)} bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
