"""The wheel, installed away from the checkout, holds what the three commands need, and nothing of the tests."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
DATA = {
    "deploy/report/page.html",
    *(f"nqlava/c/template/{path.name}" for path in (ROOT / "nqlava" / "c" / "template").iterdir()),
    "nqlava/py.typed",
    "train/pretrained/resnet20.pt",
    "train/pretrained/resnet20_spikes.pt",
    "train/pretrained/vgg_small.pt",
    "train/sample/cifar10-sample.zip",
}
COMMANDS = (
    "train.cifar --model vgg_tiny --epochs 1 --data few.zip --batch 20 --out model.pt",
    "export.to_netx model.pt net.h5 --calibration 20",
    "deploy.run_lava net.h5 --samples 4",
)

pytest.importorskip("setuptools", minversion="77")  # which builds it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, since setuptools writes beside them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".h5"):  # 34 MB, which are to stay out
                (source / name).touch()
            else:
                shutil.copy(ROOT / name, source / name)
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(command, cwd=source, env=environment(), check=True)
    (found,) = out.iterdir()
    return found


def environment(**more: str) -> dict[str, str]:
    """Of a program that does not find the checkout."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more


@pytest.mark.slow
def test_holds_the_packages_and_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name for name in names if not name.endswith(".py")} == DATA
    assert {name.partition("/")[0] for name in names} == {"nqlava", "train", "export", "deploy"}


def write_few(sample: Path, to: Path) -> None:
    """Three images of every class and split of the sample: a training on all of them takes 15 seconds longer."""
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(sample) as source, zipfile.ZipFile(to, "w") as few:
        for name in source.namelist():
            folder = name.rpartition("/")[0]
            counts[folder] += 1
            if counts[folder] <= 3:
                few.writestr(name, source.read(name))


@pytest.mark.slow
def test_its_commands_train_export_and_run(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel)], check=True)
    given = environment(PYTHONPATH=str(site), OMP_NUM_THREADS="1", XDG_CACHE_HOME=str(tmp_path / "cache"))

    def python(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(python("-c", "import nqlava; print(nqlava.__file__)").strip()).is_relative_to(site)
    write_few(site / "train" / "sample" / "cifar10-sample.zip", tmp_path / "few.zip")
    for command in COMMANDS:
        printed = python("-m", *command.split())
    assert printed.splitlines()[-1].startswith("EXACT: ")
