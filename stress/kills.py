"""Signals at random moments of an export and of a deployment: all ends within seconds, and nothing is left."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from campaign.plan import Figure, Outcome, Plan
from campaign.sandbox import END_SECONDS, Sandbox

from train.shipped import pretrained

FULL, FEW = 50, 6
_WITH_WORKERS = 10  # of the deployments
_PART = 0.95  # of the duration, within which signals come: later ones mostly miss the command
_OLD = b"what was there before"


@dataclass(frozen=True)
class Command:
    """What is interrupted.

    Attributes:
        name: in the figures. options: the command line. output: the file that it writes.
        complete: whether the output holds what it must.
    """

    name: str
    options: Sequence[str]
    output: Path
    complete: Callable[[bytes], bool]


@dataclass(frozen=True)
class Case:
    """A signal for a command: how often at full share, and whether its process group gets it, as from a terminal."""

    command: Command
    number: signal.Signals
    group: bool
    count: int

    def __str__(self) -> str:
        return f"{self.command.name}, {self.number.name} to {'the process group' if self.group else 'the process'}"


@dataclass
class _Found:
    """What happened so far."""

    survived: Counter[str] = field(default_factory=Counter)
    seconds: list[tuple[float, str]] = field(default_factory=list)
    early: int = 0
    late: int = 0
    failures: list[str] = field(default_factory=list)


def run(plan: Plan) -> Outcome:
    """SIGINT and SIGTERM 50 times on export and on deployment, some of these with two workers; others a few times."""
    rng = random.Random(plan.seed)
    found = _Found()
    with Sandbox(plan.folder / "sandbox") as sandbox:
        net = sandbox.folder / "net.h5"
        failed = sandbox.start(_export(net)).end(limit=float("inf")).check([0])
        if failed:
            return Outcome({}, [f"export: {line}" for line in failed])
        turns = [case for case in _cases(sandbox.outputs, net) for _ in range(plan.count(case.count))]
        rng.shuffle(turns)
        seconds: dict[str, float] = {}
        for case in turns:
            if plan.over:
                break
            if case.command.name not in seconds:
                seconds[case.command.name] = _uninterrupted(sandbox, case.command, found)
            _interrupt(sandbox, case, _PART * seconds[case.command.name], rng, found)
    figures: dict[str, Figure] = dict(sorted(found.survived.items()))
    figures["all"] = found.survived.total()
    figures["planned"] = len(turns)
    figures["of these ended by the system, before the command took over"] = found.early
    figures["not counted, as the command ended before"] = found.late
    if found.seconds:
        longest, case_name = max(found.seconds)
        figures["longest time until all was gone (s)"] = round(longest, 2)
        figures["that was"] = case_name
        figures["median time (s)"] = round(median(value for value, _ in found.seconds), 2)
        figures[f"above {END_SECONDS:g} s"] = sum(value > END_SECONDS for value, _ in found.seconds)
    figures["/dev/shm"] = "of its own" if sandbox.private else "not compared, as others write there"
    for name, value in seconds.items():
        figures[f"duration of {name} (s)"] = round(value, 1)
    return Outcome(figures, found.failures)


def _export(net: Path) -> list[str]:
    return ["export.to_netx", str(pretrained("vgg_small")), str(net), "--T", "2", "--calibration", "16"]


def _cases(folder: Path, net: Path) -> list[Case]:
    expected = net.read_bytes()
    result = folder / "result.json"
    deploy = ["deploy.run_lava", str(net), "--samples", "24", "--batch", "4", "--tolerance", "100"]
    deploy += ["--json", str(result)]
    commands = (
        (Command("export", _export(folder / "net.h5"), folder / "net.h5", expected.__eq__), FULL),
        (Command("deployment", deploy, result, _is_result), FULL - _WITH_WORKERS),
        (Command("deployment with 2 workers", [*deploy, "--workers", "2"], result, _is_result), _WITH_WORKERS),
    )
    cases = []
    for command, count in commands:
        for number in (signal.SIGINT, signal.SIGTERM):
            cases.append(Case(command, number, True, count - count // 2))
            cases.append(Case(command, number, False, count // 2))
        for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL):
            cases.append(Case(command, number, number != signal.SIGKILL, FEW))
    return cases


def _is_result(content: bytes) -> bool:
    try:
        return bool(json.loads(content)["exact"])
    except (ValueError, KeyError):
        return False


def _uninterrupted(sandbox: Sandbox, command: Command, found: _Found) -> float:
    """Seconds that the command takes where nothing happens."""
    began = time.monotonic()
    problems = sandbox.start(command.options).end(limit=float("inf")).check([0])
    if not command.complete(command.output.read_bytes()):
        problems.append(f"{command.output.name} is not what it must be")
    found.failures += [f"{command.name}: {line}" for line in problems]
    return time.monotonic() - began


def _interrupt(sandbox: Sandbox, case: Case, longest: float, rng: random.Random, found: _Found) -> None:
    """Tries until the signal meets the running command."""
    command, number = case.command, case.number
    while True:
        command.output.write_bytes(_OLD)
        moment = rng.uniform(0, longest)
        watched = sandbox.start(command.options)
        if watched.sleep(moment):
            break
        found.late += 1
        watched.end(limit=float("inf"))
    watched.signal(number, group=case.group)
    ending = watched.end()
    own = [-number, 128 + number]
    if ending.in_start and ending.status:  # a signal ends the interpreter in its own way until it runs the command
        found.early += number != signal.SIGKILL
        site = number == signal.SIGINT and "Traceback" in ending.errors
        problems = ending.check([*own, 1] if site else own, traceback=site)
    else:
        said = "interrupted" if number == signal.SIGINT and ending.status else ""
        problems = ending.check([0, 128 + number] if number == signal.SIGINT else [0, *own], said=said)
    content = command.output.read_bytes()
    if not command.complete(content) and (content != _OLD or not ending.status):
        problems.append(f"{command.output.name} is damaged")
    for path in sandbox.outputs.iterdir():
        if path.name != command.output.name:
            problems.append(f"left {path.name} beside the output")
        path.unlink()
    found.seconds.append((ending.seconds, f"{case} after {moment:.2f} s"))
    if problems:
        found.failures.append(f"{case} after {moment:.2f} s: {'; '.join(problems)}")
    else:
        found.survived[str(case)] += 1
