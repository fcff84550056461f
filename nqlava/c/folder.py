"""The folder with a network's C program: sources, a self test, a Makefile and a page about it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nqlava import reference
from nqlava.c.plan import Plan, safe
from nqlava.c.source import MARK, core, filled, heading
from nqlava.command.files import check_output, open_regular, reading, replacing
from nqlava.errors import InputError
from nqlava.network import IMAGE

MOST_IMAGES = 255


def write(plan: Plan, folder: Path, images: NDArray[np.uint8], steps: int) -> None:
    """Writes the program: equal arguments give equal bytes.

    Args:
        plan: the network.
        folder: is made where it is not there; files of the same names are replaced if this function wrote them.
        images: uint8 (N, C, H, W) for the self test, 1 to 255.
        steps: T of the self test.

    Raises:
        InputError: too many images, or a file in the folder that was not written by this function.
        FileError: the folder cannot be written.
    """
    if not 1 <= len(images) <= MOST_IMAGES:
        raise InputError(f"{len(images)} images for the self test; allowed: 1..{MOST_IMAGES}")
    files = core(plan) | _surroundings(plan, images, steps)
    check(folder, list(files))
    for name, text in files.items():
        with replacing(folder / name) as file:
            file.write(text.encode("ascii"))


FILES = ("snn.h", "snn.c", "network.h", "network.c", "self_test.c", "board.c", "board.ld", "Makefile", "README.md")


def check(folder: Path, names: Sequence[str] = FILES) -> None:
    """InputError where the folder is a file or cannot be written, or holds files of these names that are not ours."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; name a new one")
    check_output(folder / names[0])
    for path in (folder / name for name in names):
        if not os.path.lexists(path):
            continue
        with reading(path), open_regular(path) as file:
            if MARK.encode() not in file.read(200):
                raise InputError(f"{path}: was not written by export.to_c; name another folder, or remove the file")


def _surroundings(plan: Plan, images: NDArray[np.uint8], steps: int) -> dict[str, str]:
    network = plan.network
    sizes = [int(np.prod(shape)) for shape in network.shapes[:-1]]
    runs = [reference.run(network, image, steps) for image in images]
    digest = network.digest()
    expected = sum(reference.digest(digest, number, run) for number, run in enumerate(runs)) % 2**256
    values = heading(plan) | {
        "IMAGES": len(images),
        "STEPS": steps,
        "SPIKE_BYTES": sum(-(-size // 8) for size in sizes),
        "TABLES": _tables(digest, expected, images),
        "MEMORY": "\n".join(f"| {count:,} | {what} |" for what, count in memory(plan).items()),
        "LAYERS": "\n".join(_rows(plan)),
        "DIGEST": digest,
        "EARLY": "\n`snn_classify` stops early once no further step can change the class." if plan.early else "",
    }
    return {name: filled(name, values) for name in ("self_test.c", "board.c", "board.ld", "Makefile", "README.md")}


def memory(plan: Plan) -> dict[str, int]:
    """What takes how many bytes on a 32-bit processor."""
    found = plan.memory
    return {
        "flash: weights, biases, thresholds, initial potentials and the description of the layers": found.tables,
        "RAM: all static variables": found.ram,
        "of these: membrane potentials": found.potentials,
        "of these: the image and the spikes, as bits": found.spikes,
        "of these: current of the image": found.current,
        "of these: sums and lists of a row": found.buffers,
    }


def _tables(digest: str, expected: int, images: NDArray[np.uint8]) -> str:
    pixels = images.transpose(0, 2, 3, 1).reshape(len(images), -1)
    rows = ",\n    ".join("{" + _wrapped(row) + "}" for row in pixels.tolist())
    return (
        f"static const uint8_t network[32] = {{\n    {_wrapped(bytes.fromhex(digest))}}};\n"
        f"static const uint8_t expected[32] = {{\n    {_wrapped(expected.to_bytes(32, 'big'))}}};\n"
        f"static const uint8_t images[IMAGES][SNN_PIXELS] = {{\n    {rows}}};\n"
    )


def _wrapped(values: Sequence[int]) -> str:
    lines = [", ".join(map(str, values[i : i + 24])) for i in range(0, len(values), 24)]
    return ",\n    ".join(lines)


def _rows(plan: Plan) -> list[str]:
    rows = []
    for layer in plan.layers:
        sources = dict.fromkeys("the image" if s == IMAGE else safe(s) for s in layer.layer.sources)
        reset = "none" if layer.layer.is_readout else layer.layer.reset
        weights = sum(one.table.nbytes for one in layer.synapses)
        shape = " x ".join(map(str, layer.shape))
        rows.append(
            f"| {safe(layer.layer.name)} | {shape} | {reset} | {', '.join(sources)} | {weights:,} | "
            f"{4 * layer.count:,} |"
        )
    return rows
