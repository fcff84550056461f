"""Tables and structures as C: constants, which a compiler can place in flash memory."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS_A_LINE = 8
_NUMBERS_A_LINE = 12
_COLUMNS = 116
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def words(name: str, values: NDArray[np.uint32], comment: str) -> str:
    """A table (rows, words) in hexadecimal: no line holds parts of short rows."""
    flat = values.reshape(-1).astype(">u4")
    row = values.shape[1]
    width = _WORDS_A_LINE // row * row if row <= _WORDS_A_LINE else _WORDS_A_LINE
    nibbles = np.unpackbits(flat.view(np.uint8)).reshape(-1, 4) @ np.array([8, 4, 2, 1], np.uint8)
    text = np.empty((len(flat), 13), np.uint8)
    text[:] = np.frombuffer(b"0x00000000U, ", np.uint8)
    text[:, 2:10] = _DIGITS[nibbles.reshape(-1, 8)]
    text[width - 1 :: width, -1] = ord("\n")
    return _table("uint32_t", name, len(flat), text.tobytes().decode().rstrip(", \n"), comment)


def numbers(kind: str, name: str, values: NDArray[np.signedinteger[Any]], comment: str, width: int = 0) -> str:
    """A table of decimal numbers, ``width`` of them in a line."""
    flat, width = values.reshape(-1).tolist(), width or _NUMBERS_A_LINE
    lines = [", ".join(map(str, flat[i : i + width])) for i in range(0, len(flat), width)]
    return _table(kind, name, len(flat), ",\n".join(lines), comment)


def _table(kind: str, name: str, size: int, body: str, comment: str) -> str:
    if "\n" in body:
        body = "\n    " + body.replace("\n", "\n    ")
    return f"/* {comment} */\nstatic const {kind} {name}[{size}] = {{{body}}};\n"


def fields(values: Mapping[str, object]) -> str:
    """Fields of a structure by name, those that are 0 left away."""
    named = " ".join(f".{name}\0=\0{value}," for name, value in values.items() if value != 0)
    lines = textwrap.wrap(named, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n     ".join(lines).replace("\0", " ").removesuffix(",")


def structure(kind: str, name: str, values: Mapping[str, object], *, static: bool = True) -> str:
    """One constant structure."""
    return f"{'static ' if static else ''}const {kind} {name} = {{\n    {fields(values)}}};\n"


def structures(
    kind: str, name: str, entries: Sequence[Mapping[str, object]], size: str = "", *, static: bool = True
) -> str:
    """A constant array of structures."""
    body = ",\n    ".join(f"{{{fields(entry)}}}" for entry in entries)
    return f"{'static ' if static else ''}const {kind} {name}[{size or len(entries)}] = {{\n    {body}}};\n"
