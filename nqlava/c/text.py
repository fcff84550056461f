"""Tables as C: constants that a compiler places in flash memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS_A_LINE = 8
_NUMBERS_A_LINE = 12
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def words(name: str, values: NDArray[np.uint32], comment: str) -> str:
    """A table of 32-bit words in hexadecimal."""
    flat = values.reshape(-1).astype(">u4")
    nibbles = np.unpackbits(flat.view(np.uint8)).reshape(-1, 4) @ np.array([8, 4, 2, 1], np.uint8)
    text = np.empty((len(flat), 13), np.uint8)
    text[:] = np.frombuffer(b"0x00000000U, ", np.uint8)
    text[:, 2:10] = _DIGITS[nibbles.reshape(-1, 8)]
    text[_WORDS_A_LINE - 1 :: _WORDS_A_LINE, -1] = ord("\n")
    body = text.tobytes().decode().rstrip(", \n").replace("\n", "\n    ")
    return f"/* {comment} */\nstatic const uint32_t {name}[{len(flat)}] = {{\n    {body}}};\n"


def numbers(kind: str, name: str, values: NDArray[np.signedinteger[Any]], comment: str) -> str:
    """A table of decimal numbers."""
    flat = values.reshape(-1).tolist()
    lines = [", ".join(map(str, flat[i : i + _NUMBERS_A_LINE])) for i in range(0, len(flat), _NUMBERS_A_LINE)]
    body = ",\n    ".join(lines)
    return f"/* {comment} */\nstatic const {kind} {name}[{len(flat)}] = {{\n    {body}}};\n"


def structure(kind: str, name: str, fields: str, *, static: bool = True) -> str:
    """One constant structure."""
    return f"{'static ' if static else ''}const {kind} {name} = {{{fields}}};\n"


def structures(kind: str, name: str, entries: list[str], size: str = "", *, static: bool = True) -> str:
    """A constant array of structures."""
    body = ",\n    ".join(f"{{{entry}}}" for entry in entries)
    return f"{'static ' if static else ''}const {kind} {name}[{size or len(entries)}] = {{\n    {body}}};\n"
