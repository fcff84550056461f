"""A disk that is full when a file is written: the old file stays, and a line names it."""

from importlib.metadata import distribution
from math import inf
from pathlib import Path

import numpy as np

from campaign.lava_faults import small_network
from campaign.plan import Figure, Outcome, Plan
from campaign.sandbox import Sandbox
from campaign.training_kills import some_images
from nqlava import netx
from train.shipped import pretrained

_BAD_INPUT = 2
_OLD = b"what was there before"


def run(plan: Plan) -> Outcome:
    """Every kind of file that the commands write."""
    failures: list[str] = []
    kept = tried = 0
    with Sandbox(plan.folder / "sandbox") as sandbox:
        if sandbox.full is None:
            return Outcome({"files": "not tried: no file system can be mounted here"})
        net, inputs = sandbox.folder / "net.h5", sandbox.folder / "inputs.npy"
        netx.write(small_network(plan.seed), net)
        np.save(inputs, np.ones((1, 3, 16, 16), np.int32))
        cases = _cases(net, inputs, some_images(sandbox.folder / "data"), sandbox.disk)
        for name, command in list(cases.items())[: plan.count(len(cases))]:
            if not plan.over:
                problems = _try(sandbox, sandbox.full, name, command)
                failures += [f"{name}: {line}" for line in problems]
                kept += not problems
                tried += 1
    figures: dict[str, Figure] = {
        "planned": len(cases),
        "kinds of files that did not fit": tried,
        "refused, the old file kept": kept,
    }
    return Outcome(figures, failures)


def _cases(net: Path, inputs: Path, images: Path, disk: Path) -> dict[str, list[str]]:
    """A command by the name of the file that it cannot write."""
    model = str(pretrained("vgg_small"))
    train = ["train.cifar", "--data", str(images), "--model", "vgg_tiny", "--epochs", "1", "--batch", "50"]
    lava_dl = distribution("lava-dl").locate_file("tests/lava/lib/dl/netx/tiny.net")
    deploy = [str(net), "--samples", "8", "--T", "2"]
    return {
        "graph.nir": ["export.to_nir", str(net), str(disk / "graph.nir")],
        "net.h5": ["export.to_netx", model, str(disk / "net.h5"), "--calibration", "8"],
        "report.html": ["deploy.report", *deploy, "--integer-only", "--out", str(disk / "report.html")],
        "lava.html": ["deploy.run_lava", *deploy, "--report", str(disk / "lava.html")],
        "result.json": ["deploy.run_lava", *deploy, "--json", str(disk / "result.json")],
        "fit.json": ["deploy.fit", *deploy, "--json", str(disk / "fit.json")],
        "accuracy.json": ["train.evaluate", model, "--samples", "8", "--json", str(disk / "accuracy.json")],
        "arrays.npz": ["deploy.run_lava_dl", str(lava_dl), str(inputs), "--T", "8", "--out", str(disk / "arrays.npz")],
        "calibrated.pt": ["train.potentials", model, str(disk / "calibrated.pt"), "--calibration", "8", "--T", "1"],
        "trained.pt.checkpoint": [*train, "--out", str(disk / "trained.pt")],
        "events": [*train, "--out", str(disk.with_name("out") / "events.pt"), "--tensorboard", str(disk / "events")],
    }


def _try(sandbox: Sandbox, disk: Path, name: str, command: list[str]) -> list[str]:
    """What is not as it must be where ``name`` is written to the full disk."""
    old = disk / name
    if name not in ("trained.pt.checkpoint", "events"):  # a training replaces neither what it cannot read nor a file
        old.write_bytes(_OLD)
    before = sorted(path.name for path in disk.iterdir())
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:  # it is full
            pass
    problems = sandbox.start(command).end(inf).check([_BAD_INPUT], said=f"{name}: cannot be written: No space left")
    filler.unlink()
    if old.is_file() and old.read_bytes() != _OLD:
        problems.append("the old file has changed")
    after = sorted(path.name for path in disk.iterdir() if path.name != "events")
    if after != before:
        problems.append(f"the disk holds {', '.join(after)} instead of {', '.join(before)}")
    return problems
