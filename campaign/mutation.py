"""Mutation test: small changes to export/ and to the engine's core, each of which some test must notice.

mutmut (https://mutmut.readthedocs.io) makes the changes and runs, in forked processes, the tests that reach the changed
function. It skips decorated functions, so properties, context managers and compiled kernels are rewritten before, in
the copy that it gets, from ``@d def f`` to ``def f … f = d(f)``; the kernels run uncompiled. What an error message says
is not changed: tests hold parts of it only.
"""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from campaign.plan import Figure, Outcome, Plan

ROOT = Path(__file__).resolve().parents[1]


class Group(NamedTuple):
    """Modules that are changed, and the tests that must notice it.

    Attributes:
        modules: paths.
        tests: what pytest takes.
        compiled: whether kernels are compiled.
        isolation: of mutmut; a process whose threads computed already, with "fork", must not be forked.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    compiled: bool = True
    isolation: str = "fork"


GROUPS = {
    "kernels": Group(("nqlava/engine/cpu/kernels.py",), ("tests/nqlava/engine/cpu/test_kernels.py",), compiled=False),
    "engine": Group(
        (
            "nqlava/engine/integer.py",
            "nqlava/engine/layer.py",
            "nqlava/geometry.py",
            "nqlava/engine/cpu/layer.py",
            "nqlava/engine/cpu/network.py",
            "nqlava/engine/cpu/synapses.py",
        ),
        (
            "tests/nqlava/engine/test_integer.py",
            "tests/nqlava/engine/cpu/test_layer.py",
            "tests/nqlava/engine/cpu/test_synapses.py",
            "tests/nqlava/test_bounds.py",
        ),
        isolation="forkserver",
    ),
    "export": Group(
        (
            "export/round/quantize.py",
            "export/fold/folded.py",
            "nqlava/bounds.py",
            "export/round/rounding.py",
            "export/round/least_error.py",
            "export/round/calibration.py",
            "export/fold/lower.py",
        ),
        (
            "tests/export/round/test_quantize.py",
            "tests/nqlava/test_bounds.py",
            "tests/export/round/test_rounding.py",
            "tests/export/round/test_calibration.py",
            "tests/export/fold/test_lower.py",
        ),
    ),
    "files": Group(
        (
            "nqlava/network.py",
            "nqlava/netx.py",
            "nqlava/netx_layout.py",
            "nqlava/netx_reader.py",
            "nqlava/hdf5.py",
        ),
        ("tests/nqlava/test_network.py", "tests/nqlava/test_netx_file.py", "tests/nqlava/test_netx_graph.py"),
    ),
    "comparison": Group(
        ("nqlava/trace.py", "deploy/compare/tally.py", "deploy/compare/verify.py", "deploy/lava_dl/engine.py"),
        (
            "tests/nqlava/test_trace.py",
            "tests/compare/test_tally.py",
            "tests/compare/test_verify.py",
            "tests/lava_dl/test_engine.py",
        ),
    ),
    "lava": Group(
        ("deploy/lava/models.py", "deploy/lava/convolution.py", "deploy/lava/schedule.py"),
        ("tests/lava/test_models.py",),
    ),
    "command": Group(
        ("export/fold/check.py", "export/convert.py", "export/to_netx.py"),
        ("tests/export/fold/test_check.py", "tests/export/test_to_netx.py", "tests/test_cli_page.py"),
    ),
}

_SLOW = (  # and not needed: other tests run the same code
    "tests/nqlava/test_netx_graph.py::test_damaged_bytes",
    "tests/nqlava/test_netx_graph.py::test_what_could_not_be_read_is_not_written",
    "tests/nqlava/engine/cpu/test_synapses.py::test_any_convolution_with_other_instructions",
    "tests/compare/test_verify.py::test_lava_can_be_imported_where_a_start_method_was_chosen_before",
)
_NEEDED = ("train", "benchmarks", "campaign", "docs", "tools")
_WRAPPED = ("property", "cached_property", "contextmanager", "torch.no_grad()", "_compiled")
_MESSAGES = [r"^\s*raise \w*Error\(", r"^\s*(return |)(self\.|)_?fail\("]
_SURVIVED, _TIMEOUTS = (0, 5, 33), (-24, -9, 24, 36, 152, 255)
_CONFTEST = """import multiprocessing

from hypothesis import Phase, settings

# Lava chooses a start method as it is imported, and mutmut chose one before.
multiprocessing.set_start_method(None, force=True)
# A failing example is as good as a small one.

phases = (Phase.explicit, Phase.generate)
settings.register_profile("mutation", phases=phases, database=None, deadline=None, derandomize=True)
settings.load_profile("mutation")
"""
_GENERATE = """# Makes a share of the mutants of some modules, where mutmut would make all; prints how many there are.
import random, sys
from pathlib import Path
from libcst import FunctionDef
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation

share, seed, *modules = sys.argv[1:]
everything = file_mutation.create_mutations

def some(*args):
    module, mutations, classes, functions = everything(*args)
    mutations = [m for m in mutations if isinstance(m.contained_by_top_level_function, FunctionDef)]
    print(len(mutations), file=sys.stderr)
    count = min(len(mutations), max(1, round(float(share) * len(mutations))))
    chosen = sorted(random.Random(seed).sample(range(len(mutations)), count))
    return module, [mutations[i] for i in chosen], classes, functions

file_mutation.create_mutations = some
mutmut.copy_src_dir()
for module in modules:
    if error := mutmut.create_file_mutants(Path(module)).error:
        raise error
"""


def run(plan: Plan) -> Outcome:
    """A random share of the mutants of every module; those that no test noticed are in OUT/mutation/<group>.diff."""
    figures: dict[str, Figure] = {}
    total: Counter[str] = Counter()
    for name, group in GROUPS.items():
        for module, found in examine(name, group, plan).items():
            total += found
            figures[module] = _text(found)
    return Outcome({"all": _text(total), **figures}, [] if total["run"] else ["no mutant was run"])


def examine(name: str, group: Group, plan: Plan) -> dict[str, Counter[str]]:
    """Runs a share of the mutants of a group: by module how many there are, were made, run, killed and survived."""
    work = plan.folder / name
    _prepare(work, group)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    if not group.compiled:
        environment["NUMBA_DISABLE_JIT"] = "1"
    made = subprocess.run(
        [sys.executable, "-c", _GENERATE, str(plan.share), str(plan.seed), *group.modules],
        cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    counts = [int(line) for line in made.stderr.split() if line.isdigit()]
    mutmut = Path(sys.executable).with_name("mutmut")
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            [mutmut, "run", "--max-children", "1"],
            cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(max(1.0, plan.seconds - (time.monotonic() - plan.began)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = {}
    with (plan.folder / f"{name}.diff").open("wb") as diffs:
        for module, count in zip(group.modules, counts, strict=True):
            meta = json.loads((work / "mutants" / f"{module}.meta").read_text(encoding="utf-8"))
            codes = {key: code for key, code in meta["exit_code_by_key"].items() if code is not None}
            survived = [key for key, code in codes.items() if code in _SURVIVED]
            for key in survived:
                subprocess.run([mutmut, "show", key], cwd=work, env=environment, stdout=diffs, check=True)
            found[module] = Counter(
                mutants=count,
                run=len(codes),
                survived=len(survived),
                timed_out=sum(code in _TIMEOUTS for code in codes.values()),
            )
    return found


def undecorated(source: str) -> str:
    """The same module with ``f = d(f)`` instead of ``@d`` for the decorators that mutmut would leave out."""
    lines = source.splitlines()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or len(function.decorator_list) != 1:
            continue
        decorator = ast.unparse(function.decorator_list[0])
        if decorator in _WRAPPED:
            assert function.end_lineno is not None
            number = function.decorator_list[0].lineno - 1
            indent = lines[number][: -len(lines[number].lstrip())]
            lines[number] = ""
            lines[function.end_lineno - 1] += f"\n{indent}{function.name} = {decorator}({function.name})"
    return "\n".join(lines) + "\n"


def _prepare(work: Path, group: Group) -> None:
    """A copy of the checkout with the settings of mutmut for one group."""
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("export", "deploy", "tests", *_NEEDED):
        shutil.copytree(ROOT / folder, work / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for module in group.modules:
        path = work / module
        path.write_text(undecorated(path.read_text(encoding="utf-8")), encoding="utf-8")
    (work / "tests" / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    settings = {
        "source_paths": ["export", "deploy"],
        "only_mutate": list(group.modules),
        "also_copy": list(_NEEDED),
        "do_not_mutate_patterns": _MESSAGES,
        "pytest_add_cli_args": [
            *("-p", "no:cacheprovider", "-W", "ignore:overflow encountered:RuntimeWarning"),
            *(word for test in _SLOW for word in ("--deselect", test)),
        ],
        "pytest_add_cli_args_test_selection": list(group.tests),
        "process_isolation": group.isolation,
        "timeout_multiplier": 6.0,
        "timeout_constant": 3.0,
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text += "\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (work / "pyproject.toml").write_text(text, encoding="utf-8")


def _text(found: Counter[str]) -> str:
    killed = found["run"] - found["survived"] - found["timed_out"]
    return (
        f"{found['run']} of {found['mutants']} mutants run: {killed} killed, {found['timed_out']} timed out, "
        f"{found['survived']} survived"
    )
