"""Damage to files: to their bytes, and to what HDF5, zip and model files hold, which are then put together again."""

import io
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import torch

Random = np.random.Generator

_WORDS = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f",
          b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\x80\0\0\0\0")  # fmt: skip
_PLAIN = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63), 0.5, float("nan"), float("inf"), -float("inf"),
          True, "", "conv", "größe", "x" * 40_000, "a\nb", "line\n\x1b[2J", b"bytes", [1, 2, 3])  # fmt: skip
_IN_HDF5 = (
    *_PLAIN, b"", b"conv", b"dense", b"input", b"IF-soft-reset", b"\xff\xfe", ["a", "bc"], np.void(b"opaque"),
    np.int8(-128), np.uint64(2**64 - 1), np.float16(1), np.complex64(1j), np.longdouble(3), np.zeros((0, 3)),
    np.zeros((2, 2, 2, 2, 2), np.int8), np.full(7, np.nan), np.arange(6, dtype=">i4"), np.array([b"conv"]),
    h5py.Empty("i1"), h5py.Empty("S5"), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), np.array([True, False]),
    np.zeros(3, (np.int32, (2,))), np.array([2**62]),
)  # fmt: skip
_IN_MODELS = (
    *_PLAIN, None, 2**70, [], {}, [1, "a"], {"a": 1}, (1, 2), {1: {2: {3: {}}}}, list(range(1000)), ["cat"] * 100_001,
    "vgg_tiny", "resnet34_imagenet", torch.zeros(3), torch.tensor(5), torch.zeros(0, 2), torch.float16,
)  # fmt: skip
_IN_TOML = ("nan", "-inf", "1e400", "-1", "0x7fffffffffffffff", "9" * 5000, "1.5", "true", '""', '"\\u001b[2J\\u0000"',
            "[]", "[[1], {a = 2}]", "[" * 3000, "{a = {b = 1}}", "1979-05-27T07:32:00Z", "07:32:00", "'x' 'y'",
            '"""a\nb"""', '"' + "x" * 100_000 + '"')  # fmt: skip
_MANY = 10**6  # values of an array that is copied


def pick(rng: Random, items: Sequence[Any]) -> Any:
    """One of them."""
    return items[int(rng.integers(len(items)))]


def damaged(data: bytes, rng: Random) -> bytes:
    """The bytes with one to eight changes: flips, values at the edge of a range, cuts, and pieces moved or repeated."""
    found = bytearray(data)
    for _ in range(int(2 ** rng.integers(0, 4))):
        if not found:
            break
        # Most of what a reader looks at first is near the beginning.
        at = int(rng.integers(len(found) if rng.random() < 0.6 else min(len(found), 4096)))
        length = int(rng.integers(1, 1 + min(len(found) - at, int(2 ** rng.integers(0, 10)))))
        flipped = 1, bytes([found[at] ^ 1 << int(rng.integers(8))])
        word = pick(rng, _WORDS)
        number = int.from_bytes(found[at : at + 4], "little") + int(rng.integers(-300, 300))
        other = int(rng.integers(len(found)))
        replaced = [
            *[flipped] * 4,
            *[(len(word), word)] * 2,
            (length, rng.bytes(length)),
            (4, (number % 2**32).to_bytes(4, "little")),
            (length, bytes(found[other : other + length])),
            (length, b""),
            (0, bytes(found[at : at + length])),
            (len(found) if rng.random() < 0.3 else 0, b""),
        ]
        size, new = pick(rng, replaced)
        found[at : at + size] = new
    return bytes(found)


def changed_hdf5(data: bytes, rng: Random) -> bytes:
    """The HDF5 file with one to three objects, links or attributes deleted, replaced, moved or added."""
    memory = io.BytesIO(data)
    with h5py.File(memory, "r+") as file:
        for _ in range(int(rng.integers(1, 4))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = pick(rng, names)
            try:
                _change(file, name, pick(rng, names), rng)
            except Exception:
                continue  # HDF5 itself forbids some, such as a group inside itself
    return memory.getvalue()


def _change(file: h5py.File, name: str, other: str, rng: Random) -> None:
    kind, item, value = int(rng.integers(16)), file[name], pick(rng, _IN_HDF5)
    array = np.array(item[()]) if isinstance(item, h5py.Dataset) and item.size and item.size < _MANY else None
    if kind <= 3:
        where = pick(rng, [file, item, file[other]])
        key = pick(rng, [*where.attrs, "format", "version", "name", "T", "x"])
        if rng.random() < 0.2 and key in where.attrs:
            del where.attrs[key]
        else:
            where.attrs[key] = value
        return
    if kind == 4:
        file.move(name, pick(rng, [f"{name}x", f"{other}/y", "layer/7", "ä", "a\nb"]))
        return
    if kind == 5:
        file[f"{other}/more" if isinstance(file[other], h5py.Group) else "more"] = value
        return
    del file[name]
    if kind <= 8 and array is not None and array.dtype.kind in "iufb":
        array.reshape(-1)[int(rng.integers(array.size))] = pick(rng, [0, 1, 2, 127, 100])
        changed = array * int(pick(rng, [1, 1, -1, 2, 127, 0]))
        file[name] = changed.astype(array.dtype) if rng.random() < 0.7 else changed
    elif kind == 9 and array is not None and array.ndim:
        shape = np.array(array.shape)
        shape[int(rng.integers(len(shape)))] += int(pick(rng, [-1, 1, 2]))
        file[name] = np.resize(array, tuple(np.maximum(0, shape)))
    elif kind == 10:
        shape = 2 ** rng.integers(0, 40, int(rng.integers(1, 6)))
        dtype = pick(rng, [np.int8, np.int32, np.float64, np.int64])
        file.create_dataset(name, tuple(map(int, shape)), dtype, chunks=(1,) * len(shape))
    elif kind == 11:
        links = [h5py.SoftLink(f"/{target}") for target in (other, "", name)]
        # The last: a hard link, the same object twice, or a group inside itself.
        file[name] = pick(rng, [*links, h5py.ExternalLink("/etc/passwd", "/"), file[other]])
    elif kind == 12:
        layout = h5py.VirtualLayout((4,), np.int8)
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset(name, layout)
    elif kind == 13:
        file.create_dataset(name, (36,), np.int8, external=[("/etc/passwd", 0, 36)])
    elif kind == 14 and rng.random() < 0.5:
        file.create_group(name)
    elif kind != 14:
        file[name] = value


def changed_zip(data: bytes, rng: Random) -> bytes:
    """The archive with members damaged, renamed, repeated, inflated or left out, and right checksums again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(len(members))), int(rng.integers(10))
        name, content = members[at]
        if kind <= 5:
            members[at] = name, damaged(content, rng)
        elif kind == 6:
            own = [f"{name}/", f"x/{name}", name.upper(), name.replace("train", "test")]
            strange = ["../../escaped.png", "/etc/passwd", "train/../x.png", "", "a\0b", "train/ä\n/x.png", "C:\\x.png"]
            members[at] = pick(rng, own + strange), content
        elif kind == 7:
            members.append((pick(rng, [name, f"{name}2.png"]), content))
        elif kind == 8:
            members[at] = name, pick(rng, [b"", bytes(2**22), pick(rng, members)[1]])
        elif len(members) > 1:
            del members[at]
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", pick(rng, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, content, archive.compression)
    found = bytearray(memory.getvalue())
    at = found.rfind(b"PK\1\2")
    if rng.random() < 0.2 and at >= 0:  # flags, method, CRC, sizes or offset
        field, size = pick(rng, [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (42, 4)])
        value = int(pick(rng, [0, 1, 8, 9, 12, 14, 99, 2**16 - 1, 2**31, 2**32 - 1])) % 2 ** (8 * size)
        found[at + field : at + field + size] = value.to_bytes(size, "little")
    return bytes(found)


def changed_model(data: bytes, rng: Random) -> bytes:
    """The model file with one to three entries, at any depth, deleted or replaced by what PyTorch writes too."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    for _ in range(int(rng.integers(1, 4))):
        parent, key = content, pick(rng, list(content))
        while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.8:
            parent = parent[key]
            key = pick(rng, list(parent)) if isinstance(parent, dict) else int(rng.integers(len(parent)))
        if rng.random() < 0.15:
            del parent[key]
        elif isinstance(parent[key], torch.Tensor) and rng.random() < 0.6:
            parent[key] = _other_tensor(parent[key], rng)
        else:
            parent[key] = pick(rng, _IN_MODELS)
        if not content:
            break
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue()


def _other_tensor(value: torch.Tensor, rng: Random) -> torch.Tensor:
    number = pick(rng, [0, -1, 1e30, float("nan"), float("inf"), 2**31, 1e-40]) if value.is_floating_point() else 7
    changed = [
        lambda: torch.full_like(value, number),
        value.double,
        value.half,
        lambda: value[None],
        lambda: value.new_ones(1).expand(value.shape or (1,)),
        value.to_sparse,
        lambda: value.reshape(-1)[:-1],
        lambda: torch.empty(value.shape, device="meta", dtype=value.dtype),
        lambda: value.to(torch.complex64),
        lambda: -value,
    ]
    found: torch.Tensor = pick(rng, changed)()
    return found


def changed_npy(data: bytes, rng: Random) -> bytes:
    """The NumPy file with another header that claims another type, order or shape."""
    if not data.startswith(b"\x93NUMPY"):
        return changed_zip(data, rng)
    length = struct.unpack("<H", data[8:10])[0]
    types = ["|O", "<f8", "|u1", "<M8[s]", "|S3", "<U4", "|V8", ">i4", "i4, f8", "<c16", "nonsense", "<i1000"]
    shape = pick(rng, [(), (0,), (-1,), (2**40,), (2**62, 4), (3, 2, 6, 5), (2, 6, 5), ("x",), 5, (1,) * 40])
    claims = {"descr": pick(rng, types), "fortran_order": bool(rng.random() < 0.5), "shape": shape}
    header = repr(claims).encode() + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + length :]


def changed_toml(data: bytes, rng: Random) -> bytes:
    """The lines with another value, key or order; one of them twice, or under a table."""
    lines = data.decode().splitlines()
    at, kind = int(rng.integers(len(lines))), int(rng.integers(5))
    key, _, value = lines[at].partition(" = ")
    if kind <= 1:
        lines[at] = f"{key} = {pick(rng, _IN_TOML)}"
    elif kind == 2:
        other = pick(rng, lines).partition(" = ")[0]
        lines[at] = f"{pick(rng, [other, f'{key}.x', f'x.{key}', chr(34) * 2, key.upper()])} = {value}"
    elif kind == 3:
        lines.insert(at, pick(rng, [lines[at], f"[{key}]", f"[[{key}]]", "[train]"]))
    else:
        rng.shuffle(lines)
    return "\n".join(lines).encode()
