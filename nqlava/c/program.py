"""Programs that run the written C on this machine: built with the system's compiler, one for several networks."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nqlava.c.errors import CompilerError, ProgramError
from nqlava.c.plan import Plan
from nqlava.c.source import core, filled
from nqlava.network import IntegerNetwork
from nqlava.trace import Trace, concatenate

FLAGS = ("-std=c99", "-O3")
_NAMES = (
    "reset step class classify steps readout saturations layers image image_pools image_pool_count gain reach trace"
)
"""What a network defines for other files: renamed where several are in one program."""
_AT_ONCE = 32
_SPIKES, _POTENTIALS, _CLASSES = range(3)


def compiler() -> list[str]:
    """The command words of the C compiler: $CC, or cc, gcc or clang.

    Raises:
        CompilerError: there is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    for words in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(words[0]):
            return words
    what = f"CC is {named[0]}, which is no program" if named else "no C compiler (cc, gcc or clang) is installed"
    raise CompilerError(f"{what}; install gcc or clang, or name a compiler in CC")


@dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
        path: of the executable file.
        networks: what it runs, by number.
    """

    path: Path
    networks: tuple[IntegerNetwork, ...]

    def traces(
        self, number: int, images: NDArray[np.uint8], steps: int, *, potentials: bool = False, processes: int = 1
    ) -> Trace:
        """What network ``number`` does with images (N, C, H, W) over T = ``steps`` steps.

        Raises:
            ProgramError: the program failed.
        """
        mode = _POTENTIALS if potentials else _SPIKES
        outputs = self._outputs(number, images, steps, mode, processes)
        return concatenate([_trace(self.networks[number], output, steps, potentials) for output in outputs])

    def classes(
        self, number: int, images: NDArray[np.uint8], steps: int, *, processes: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The class of every image, and the steps that it took; errors as of ``traces``."""
        outputs = self._outputs(number, images, steps, _CLASSES, processes)
        found = np.frombuffer(b"".join(outputs), "<u4").reshape(-1, 2).astype(np.int64)
        return found[:, 0], found[:, 1]

    def _outputs(self, number: int, images: NDArray[np.uint8], steps: int, mode: int, processes: int) -> list[bytes]:
        """What the program writes for each part of the images."""
        size = max(1, min(_AT_ONCE, -(-len(images) // processes)))
        parts = [images[i : i + size] for i in range(0, len(images), size)] or [images]
        with ThreadPoolExecutor(min(processes, len(parts))) as pool:
            return list(pool.map(lambda part: self._output(number, part, steps, mode), parts))

    def _output(self, number: int, images: NDArray[np.uint8], steps: int, mode: int) -> bytes:
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).tobytes()
        command = [str(self.path), str(number), str(steps), str(mode)]
        done = subprocess.run(command, input=pixels, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise ProgramError(f"{self.path.name}: ended with status {done.returncode}: {said[-2000:]}")
        return done.stdout


def build(plans: Sequence[Plan], folder: Path, flags: Sequence[str] = FLAGS) -> Program:
    """Compiles a program for networks; ``folder``, which is there, gets sources and program.

    Raises:
        CompilerError: there is no compiler, or it fails.
    """
    units = []
    for number, plan in enumerate(plans):
        here = folder / str(number)
        here.mkdir()
        for name, text in core(plan).items():
            (here / name).write_text(text, encoding="ascii")
        (here / "trace.c").write_text(filled("trace.c", {}), encoding="ascii")
        renamed = "".join(f"#define snn_{name} snn_{name}_{number}\n" for name in _NAMES.split())
        units.append(here / "unit.c")
        units[-1].write_text(renamed + "".join(f'#include "{name}.c"\n' for name in ("network", "snn", "trace")))
    units.append(folder / "main.c")
    units[-1].write_text(_main(len(plans)), encoding="ascii")
    program = folder / "program"
    command = [*compiler(), *flags, *map(str, units), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:1000] or "it printed nothing; name another compiler in CC"
        raise CompilerError(f"{shlex.join(command[: 1 + len(flags)])}: ended with status {done.returncode}: {said}")
    return Program(program, tuple(plan.network for plan in plans))


def _main(networks: int) -> str:
    """The main function: arguments are the number of a network, T and a mode of trace.c."""
    traces = [f"snn_trace_{number}" for number in range(networks)]
    declared = "".join(f"int {name}(uint32_t steps, int mode);\n" for name in traces)
    return (
        "#include <stdint.h>\n#include <stdlib.h>\n\n"
        f"{declared}\nstatic int (*const traces[])(uint32_t, int) = {{{', '.join(traces)}}};\n\n"
        "int main(int argc, char **argv)\n{\n"
        "    if (argc != 4)\n        return 2;\n"
        "    return traces[atoi(argv[1])]((uint32_t)atoi(argv[2]), atoi(argv[3]));\n}\n"
    )


def _trace(network: IntegerNetwork, output: bytes, steps: int, potentials: bool) -> Trace:
    """The trace in what a program wrote."""
    shapes = network.shapes[:-1]
    sizes = [int(np.prod(shape)) for shape in shapes]
    widths = [-(-size // 8) for size in sizes]
    step = sum(widths) + 4 * network.classes
    each = steps * step + 4 * len(network.layers) + (4 * sum(sizes) if potentials else 0)
    if len(output) % each:
        raise ProgramError(f"{len(output)} bytes were written; expected: a multiple of {each}")
    rows = np.frombuffer(output, np.uint8).reshape(-1, each)
    by_step = rows[:, : steps * step].reshape(len(rows), steps, step)
    edges = np.cumsum([0, *widths])
    spikes = tuple(np.ascontiguousarray(by_step[:, :, a:b]) for a, b in pairwise(edges))
    readout = np.ascontiguousarray(by_step[:, :, edges[-1] :]).view("<i4").astype(np.int32)
    rest = np.ascontiguousarray(rows[:, steps * step :]).view("<i4")
    saturations = rest[:, : len(network.layers)].astype(np.int64).T
    membranes = None
    if potentials:
        ends = len(network.layers) + np.cumsum([0, *sizes])
        membranes = tuple(rest[:, a:b].astype(np.int32) for a, b in pairwise(ends))
    return Trace(shapes, spikes, readout, saturations, membranes)
