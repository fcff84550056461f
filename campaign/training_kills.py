"""A training that is killed again and again, and continued each time, ends with the weights of one that was not."""

import random
import re
import signal
import time
import zipfile
from collections import Counter
from pathlib import Path

import torch

from campaign.plan import Figure, Outcome, Plan
from campaign.sandbox import Ending, Sandbox
from train.data.images import SAMPLE
from train.loop import checkpoint
from train.loop.trainer import checkpoint_path

KILLS, _WITH_DECODERS = 30, 3
_OPTIONS = ["--model", "vgg_tiny", "--epochs", "24", "--batch", "50", "--validation", "20", "--learning-rate", "0.02"]
_IMAGES = {"train": 8, "test": 2}  # of every class of the sample


def run(plan: Plan) -> Outcome:
    """30 SIGKILLs of one training at random moments, each followed by --resume."""
    rng = random.Random(plan.seed)
    with Sandbox(plan.folder / "sandbox") as sandbox:
        whole, out = sandbox.outputs / "whole.pt", sandbox.outputs / "killed.pt"
        train = ["train.cifar", "--data", str(some_images(sandbox.folder / "data")), *_OPTIONS]
        began = time.monotonic()
        failures = sandbox.start([*train, "--out", str(whole)]).end(limit=float("inf")).check([0])
        seconds = time.monotonic() - began
        if failures:
            return Outcome({}, failures)
        kills = continued = done = 0
        longest = 0.0
        saved = checkpoint_path(out)
        while kills < plan.count(KILLS) and not plan.over:
            resume = ["--resume"] if saved.exists() else []
            watched = sandbox.start([*train, "--out", str(out), *resume])
            if watched.sleep(rng.uniform(0, seconds / 2)):
                watched.signal(signal.SIGKILL, group=False)
            ending = watched.end()
            if ending.status == 0:  # it came to its end; the next one starts anew
                failures += ending.check([0])
                failures += differences(whole, out)
                out.unlink()
                saved.unlink()
                done = 0
                continue
            told = re.findall(r"^epoch +(\d+)/", watched.output, re.MULTILINE)  # after each was saved
            kills += 1
            longest = max(longest, ending.seconds)
            try:
                after = _epochs(saved)
            except checkpoint.CheckpointError as error:
                failures.append(f"kill {kills}: {error}")
                break
            finished = int(told[-1]) if told else done
            if not finished <= after <= finished + 1:
                failures.append(f"kill {kills}: {after} epochs are left of {finished}")
            continued += after > done
            done = after
            failures += [f"kill {kills}: {line}" for line in ending.check([-signal.SIGKILL])]
            names = {path.name for path in sandbox.outputs.iterdir()}
            others = names - {whole.name, checkpoint_path(whole).name, out.name, saved.name}
            failures += [f"kill {kills}: left {name}" for name in sorted(others)]
        if saved.exists():
            failures += sandbox.start([*train, "--out", str(out), "--resume"]).end(limit=float("inf")).check([0])
            failures += differences(whole, out)
        decoding = 0
        images = sandbox.folder / "data"
        for _ in range(plan.count(_WITH_DECODERS)):
            if not plan.over:
                ending = _kill_with_decoders(sandbox, images, rng)
                failures += [f"processes that decode: {line}" for line in ending.check([-signal.SIGKILL])]
                longest = max(longest, ending.seconds)
                decoding += 1
    figures: dict[str, Figure] = {
        "kills survived": kills,
        "planned": plan.count(KILLS),
        "kills after which more epochs were saved than before": continued,
        "longest time until all was gone (s)": round(longest, 2),
        "kills while other processes decode images": decoding,
        "duration uninterrupted (s)": round(seconds, 1),
    }
    return Outcome(figures, failures)


def _kill_with_decoders(sandbox: Sandbox, images: Path, rng: random.Random) -> Ending:
    """Kills a training whose images two processes decode."""
    options = ["--batch", "2", "--validation", "4", "--epochs", "1", "--workers", "2"]
    out = str(sandbox.outputs / "decoded.pt")
    watched = sandbox.start(["train.imagenet", "--data", str(images), *options, "--out", out])
    while watched.process.poll() is None and len(watched.family) < 3:
        time.sleep(0.1)
    watched.sleep(time.monotonic() - watched.began + rng.uniform(0, 2))
    watched.signal(signal.SIGKILL, group=False)
    return watched.end()


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


def _epochs(path: Path) -> int:
    """Epochs that a checkpoint holds."""
    return len(checkpoint.load(path)["history"]) if path.exists() else 0


def differences(expected: Path, path: Path) -> list[str]:
    """What differs between two model files."""
    one, other = checkpoint.load(expected), checkpoint.load(path)
    names = [name for name, value in one["state"].items() if not torch.equal(value, other["state"][name])]
    found = [f"{path.name}: {name} differs from that of the uninterrupted training" for name in names]
    if one["info"] != other["info"]:
        found.append(f"{path.name}: info differs from that of the uninterrupted training")
    return found
