"""SIGINT, SIGTERM and SIGKILL at random moments of real commands: trainings, an export and deployments.

All must end within seconds, and leave no process, no file beside the output, and nothing in /dev/shm; the output is
complete or as it was. A training that was interrupted is continued with --resume until it equals an uninterrupted one.
"""

import json
import random
import re
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from stress.sandbox import END_SECONDS, Ending, Sandbox
from train.data.images import SAMPLE
from train.loop import checkpoint
from train.loop.trainer import checkpoint_path
from train.shipped import pretrained

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_PART = 0.95  # of the duration, within which signals come: later ones mostly miss the command
_OLD = b"what was there before"
_IMAGES = {"train": 8, "test": 2}  # of every class of the sample


class Job:
    """A command that writes one file, which ``complete`` judges.

    Attributes:
        command: the command line of the next run.
        seconds: that a run takes where nothing happens.
    """

    def __init__(self, name: str, command: Sequence[str], output: Path, complete: Callable[[bytes], bool]) -> None:
        self.name, self.seconds = name, 0.0
        self.command, self.output, self._complete = list(command), output, complete
        self.allowed = {output.name}

    def begin(self) -> None:
        """Before a run that is interrupted."""
        self.output.write_bytes(_OLD)

    def problems(self, ending: Ending) -> list[str]:
        """What is wrong with the files after a run."""
        content = self.output.read_bytes()
        right = self._complete(content) or (content == _OLD and ending.status != 0)
        return [] if right else [f"{self.output.name} is damaged"]


class Training(Job):
    """A training, continued after an interruption; ``whole`` is the file of one that was not interrupted."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        super().__init__(name, [*command, "--out", str(folder / "whole.pt")], folder / "whole.pt", bool)
        self._options, self._whole, self._out = command, folder / "whole.pt", folder / "killed.pt"
        self._saved = checkpoint_path(self._out)
        self._done = 0
        self.allowed = {name for path in (self._whole, self._out) for name in (path.name, checkpoint_path(path).name)}

    def begin(self) -> None:
        resume = ["--resume"] if self._saved.exists() else []
        self.command = [*self._options, "--out", str(self._out), *resume]

    def problems(self, ending: Ending) -> list[str]:
        if self.command[-1] == str(self._whole):
            return []
        if ending.status == 0:  # the next one starts anew
            found = differences(self._whole, self._out)
            self._out.unlink()
            self._saved.unlink()
            self._done = 0
            return found
        told = re.findall(r"^epoch +(\d+)/", ending.output, re.MULTILINE)  # after each was saved
        finished = int(told[-1]) if told else self._done
        try:
            self._done = len(checkpoint.load(self._saved)["history"]) if self._saved.exists() else 0
        except checkpoint.CheckpointError as error:
            return [str(error)]
        kept = finished <= self._done <= finished + 1
        return [] if kept else [f"{self._done} epochs are left of {finished}"]


def run(seconds: float, seed: int, folder: Path) -> tuple[dict[str, object], list[str]]:
    """Sends random signals to random jobs until the time is up; figures and failures."""
    rng = random.Random(seed)
    survived: Counter[str] = Counter()
    endings: list[float] = []
    failures: list[str] = []
    with Sandbox(folder / "sandbox") as sandbox:
        jobs = _jobs(sandbox)
        for job in jobs:
            began = time.monotonic()
            ending = sandbox.start(job.command).end()
            job.seconds = time.monotonic() - began
            failures += [f"{job.name}: {line}" for line in ending.check() or job.problems(ending)]
        until = time.monotonic() + seconds  # after runs that nothing interrupts
        while time.monotonic() < until and not (failures and not endings):
            job, number = rng.choice(jobs), rng.choice(_SIGNALS)
            group = number != signal.SIGKILL and rng.random() < 0.5
            moment = rng.uniform(0, _PART * job.seconds)
            job.begin()
            watched = sandbox.start(job.command)
            met = watched.signal(number, group=group, after=moment)
            ending = watched.end(END_SECONDS)
            case = f"{job.name}, {number.name} to the {'process group' if group else 'process'}"
            problems = (_judged(ending, number) if met else ending.check()) + job.problems(ending)
            left = {path.name for path in job.output.parent.iterdir()} - job.allowed
            problems += [f"left {name} beside the output" for name in sorted(left)]
            failures += [f"{case} after {moment:.2f} s: {'; '.join(problems)}"] * bool(problems)
            survived[case if met else "ended before the signal"] += not problems
            endings += [ending.seconds] * met
    figures: dict[str, object] = dict(sorted(survived.items()))
    if endings:
        figures |= {"median s until all was gone": round(median(endings), 2), "most": round(max(endings), 2)}
    figures["/dev/shm"] = "not compared, as others write there" if sandbox.memory is None else "of its own"
    return figures, failures


def _judged(ending: Ending, number: signal.Signals) -> list[str]:
    """What is wrong with the end of a command that got the signal."""
    own = [-number, 128 + number]
    if ending.in_start and ending.status:  # a signal ends the interpreter in its own way until it runs the command
        python = number == signal.SIGINT and "Traceback" in ending.errors
        return ending.check([*own, 1] if python else own, traceback=python)
    if number == signal.SIGINT:
        return ending.check([0, 128 + number], said="interrupted" if ending.status else "")
    return ending.check([0, *own])


def _jobs(sandbox: Sandbox) -> list[Job]:
    images = ["--data", str(some_images(sandbox.folder / "data"))]
    folders = {name: sandbox.outputs / name for name in ("training", "decoding", "export", "deployment")}
    for folder in folders.values():
        folder.mkdir()
    train = ["train.cifar", *images, "--model", "vgg_tiny", "--epochs", "12", "--batch", "50", "--validation", "20"]
    decode = ["train.imagenet", *images, "--model", "vgg_tiny", "--batch", "20", "--validation", "20", "--epochs", "1"]
    decode += ["--workers", "2"]
    net, result = folders["export"] / "net.h5", folders["deployment"] / "result.json"
    export = ["export.to_netx", str(pretrained("vgg_small")), str(net), "--T", "2", "--calibration", "16"]
    given = sandbox.folder / "net.h5"
    problems = sandbox.start([*export[:2], str(given), *export[3:]]).end().check()
    if problems:
        raise RuntimeError("; ".join(problems))
    deploy = ["deploy.run_lava", str(given), "--samples", "24", "--batch", "4", "--tolerance", "100"]
    deploy += ["--json", str(result)]
    return [
        Training("training", [*train, "--learning-rate", "0.02"], folders["training"]),
        Training("training, images decoded by processes", decode, folders["decoding"]),
        Job("export", export, net, given.read_bytes().__eq__),
        Job("deployment", deploy, result, _is_result),
        Job("deployment with 2 workers", [*deploy, "--workers", "2"], result, _is_result),
    ]


def _is_result(content: bytes) -> bool:
    try:
        return bool(json.loads(content)["exact"])
    except (ValueError, KeyError):
        return False


def some_images(folder: Path) -> Path:
    """A folder with some of the sample's images: epochs that end soon."""
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(SAMPLE) as sample:
        for name in sorted(sample.namelist()):
            place = str(Path(name).parent)
            if taken[place] < _IMAGES[name.partition("/")[0]]:
                taken[place] += 1
                sample.extract(name, folder)
    return folder


def differences(expected: Path, path: Path) -> list[str]:
    """What differs between two model files."""
    one, other = checkpoint.load(expected), checkpoint.load(path)
    found = [name for name, value in one["state"].items() if not torch.equal(value, other["state"][name])]
    found += [] if one["info"] == other["info"] else ["info"]
    return [f"{path.name}: {name} differs from that of the uninterrupted training" for name in found]
