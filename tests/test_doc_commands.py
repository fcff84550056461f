"""Every command and every Python block of README.md and docs/ runs, in order, each page in a folder of its own.

Commands run in this process, through the main function of their module. What would take hours or another data set runs
with the options of ``REDUCED``; what cannot run here is in ``NOT_RUN``, with the reason. A command that is in neither
and that this file does not know how to run fails its page.
"""

import importlib
import re
import shutil
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deploy import demo
from export.to_netx import main as export_to_netx
from nqlava.command.names import COMMANDS
from tests.lava_dl.networks import write as write_lava_dl
from tests.lava_dl.test_run_lava_dl import NETWORK
from tests.nqlava.c.networks import has_compiler
from tests.tiny import write_folder
from tools import notebook
from tools.docs import PAGES, ROOT, Code, code
from train.cifar import main as train_cifar
from train.data.images import load

# By module: options that take the place of those on the page, or are added; "" is a flag's value.
REDUCED: dict[str, dict[str, str]] = {
    "train.cifar": {
        "--data": "few",
        "--model": "vgg_tiny",
        "--epochs": "1",
        "--batch": "20",
        "--validation": "20",
        "--device": "cpu",
        "--precision": "float32",
    },
    "train.imagenet": {"--batch": "2", "--validation": "2", "--workers": "0", "--device": "cpu", "--dry-run": ""},
    "train.potentials": {"--data": "few", "--calibration": "20", "--rounds": "1"},
    "train.evaluate": {"--data": "few", "--samples": "5"},
    "train.figures": {"--data": "few", "--samples": "5", "--only": "training"},
    "export.to_netx": {"--data": "few", "--calibration": "20"},
    "export.to_c": {"--data": "few", "--samples": "2"},
    "deploy.run_lava": {"--data": "few", "--samples": "4"},
    "deploy.fit": {"--data": "few", "--samples": "2"},
    "deploy.report": {"--data": "few", "--samples": "8"},
}

# Pages that name the three commands again, or options that other tests run for real: with --dry-run, which checks
# options, files and data; without --model, since nothing was exported before.
DRY = {
    "cluster.md": ("deploy.run_lava",),
    "troubleshooting.md": ("export.to_netx",),
    "results.md": ("train.cifar", "export.to_netx", "deploy.run_lava"),
}

# Words that a command line starts with: why it is not run, and what is done instead.
BENCHMARK = "takes minutes, and seconds to import; that it has such options is checked, and tests/benchmarks runs it"
NOT_RUN = {
    "make test": "runs this test",
    "pip install": "installs packages; tools/install.sh does so in every clean clone",
    ". .venv/bin/activate": "changes the shell alone",
    "tensorboard --logdir": "serves pages until stopped; tests/train/loop/test_tensorboard.py reads the same folder",
    "dask scheduler": "runs until it is stopped; tests/compare/test_cluster.py starts a cluster",
    "dask worker": "runs until it is stopped; tests/compare/test_cluster.py starts a cluster",
    "python tools/make_sample.py": "needs the complete CIFAR-10 archives",
    "nqlava from-torch": "takes a network of the reader's; tests/export/test_from_torch.py runs it",
    "make -C net-c": "takes minutes where the machine is busy; tests/nqlava/c/test_folder.py runs both targets",
    "make test-newer": "installs another Python's packages; .ci/run runs it",
    "make PYTHON=": "installs another Python's packages; .ci/run does so by make test-newer",
    "python -m stress": "takes an hour; tests/stress runs parts of it",
    "python -m benchmarks.": BENCHMARK,
}

# Files that a page takes for granted: what somebody has who looks something up. Other pages make theirs themselves.
LOOKED_UP = {
    "c.md",
    "cluster.md",
    "backends.md",
    "troubleshooting.md",
    "fit.md",
    "training.md",
    "results.md",
    "data.md",
}
LOOKED_UP |= {"install.md", "lava_dl.md", "nir.md", "report.md"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real images as folders, and small trained networks under the names that pages use."""
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.data.cache.user_cache_path", lambda _name: folder / "cache")
        splits = {split: load(["sample"], split) for split in ("train", "test")}
        few = {
            "train": splits["train"].subset(torch.arange(0, 1000, 20)),
            "test": splits["test"].subset(torch.arange(0, 1000, 50)),
        }
        data = write_folder(folder / "few", **few)
        options = "--model vgg_tiny --epochs 1 --batch 20 --validation 20 --device cpu --precision float32"
        for name, more in (("model.pt", []), ("relu.pt", ["--activation", "relu"])):
            assert train_cifar(["--data", str(data), "--out", str(folder / name), *options.split(), *more]) == 0
        arguments = [str(folder / "model.pt"), str(folder / "net.h5"), "--data", str(data), "--calibration", "20"]
        assert export_to_netx(arguments) == 0
    for name in (
        "nq.pt",
        "qcfs.pt",
        "vgg_small.pt",
        "resnet20.pt",
        "resnet20-longer.pt",
        "resnet20_snn4.pt",
        "resnet20_spikes.pt",
        "vgg16.pt",
    ):
        shutil.copy(folder / "model.pt", folder / name)
    for path in folder.glob("*.checkpoint"):
        path.unlink()
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            for index in range(3):
                file = folder / "imagenet" / split / name / f"{index}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (240, 230), (index, 7, 9)).save(file)
    write_lava_dl(NETWORK, folder / "network.net")
    spikes = np.random.default_rng(0).integers(0, 2, (4, *NETWORK.input_shape, 5))
    np.save(folder / "spikes.npy", spikes)
    np.save(folder / "images.npy", spikes[..., 0])
    for name in ("my-images", "tiny-imagenet-200"):
        (folder / name).symlink_to("few")
    return folder


@pytest.fixture
def desk(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a page: the shipped networks at their place, and the few images."""
    for folder in ("train", "deploy"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pretrained").symlink_to(ROOT / folder / "pretrained")
    (tmp_path / "few").symlink_to(shelf / "few")
    Image.new("RGB", (40, 30), (9, 99, 199)).save(tmp_path / "picture.png")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.data.cache.user_cache_path", lambda _name: shelf / "cache")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def reduced(module: str, options: Sequence[str]) -> list[str]:
    """The options with those of ``REDUCED`` in their place."""
    rest = list(options)
    changes = dict(REDUCED.get(module, {}))
    if "--init" in rest or "--pretrained" in rest:
        changes.pop("--model", None)
    for name, value in changes.items():
        rest = without(rest, name) + ([name, value] if value else [name])
    return rest


def without(words: list[str], option: str) -> list[str]:
    """The words without an option and its values."""
    if option not in words:
        return words
    start = words.index(option)
    stop = next((i for i in range(start + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:start] + words[stop:]


def run(page: str, line: str, patch: pytest.MonkeyPatch) -> None:
    """Runs a command line of a page, reduced; AssertionError with the line if it fails or cannot be run."""
    if line == "make demo":
        with patch.context() as inner:
            inner.setattr(demo, "_run_command", lambda words: run_module(page, words[0], words[1:]).returncode)
            assert demo.main(["--samples", "4"]) == 0, line
        return
    reason = next((reason for start, reason in NOT_RUN.items() if line.startswith(start)), None)
    words = Code("sh", line).words
    if reason is None or reason == BENCHMARK:
        assert "-m" in words or words[0] == "nqlava", f"{page}: {line}: neither run nor listed in NOT_RUN"
        if words[0] == "nqlava":
            module, options = COMMANDS[words[1]][0], words[2:]
        else:
            module, *options = words[words.index("-m") + 1 :]
        if reason == BENCHMARK:
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
            if "deploy.images" in source:  # and its options
                source += (ROOT / "deploy" / "images.py").read_text(encoding="utf-8") + '"--data"'
            if "benchmarks.options" in source:
                source += (ROOT / "benchmarks" / "options.py").read_text(encoding="utf-8")
            assert all(f'"{word}"' in source for word in options if word.startswith("--")), f"{page}: {line}"
        else:
            assert run_module(page, module, options).returncode == 0, f"{page}: {line}"


def run_module(page: str, module: str, options: Sequence[str]) -> types.SimpleNamespace:
    """A command in this process, with reduced options; its exit status as ``subprocess.run`` gives it."""
    words = reduced(module, options)
    if module in DRY.get(page, ()):
        words = without(words, "--model") + ["--dry-run"] * ("--dry-run" not in words)
    found = importlib.import_module(f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module)
    return types.SimpleNamespace(returncode=found.main(words))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_program_of_a_page_runs(
    page: Path, desk: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if page.name == "c.md" and not has_compiler():
        pytest.skip("no C compiler is installed")
    if page.name in LOOKED_UP:
        for path in shelf.iterdir():
            if not (desk / path.name).exists():
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, desk / path.name)
    for index, block in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)):
        assert not index, "one recipe for a page"
        (desk / "recipe.toml").write_text(block, encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    seen = set()
    # The tutorial runs as its notebook, which has the same code (tests/test_notebook.py).
    for part in notebook.code() if page == notebook.PAGE else code(page):
        if part.language == "python":
            exec(compile(part.text, page.name, "exec"), namespace)
        elif part.text not in seen:
            seen.add(part.text)
            run(page.name, part.text.replace("$s", "0"), monkeypatch)  # the seed of a loop
            capsys.readouterr()


def test_what_is_not_run_is_on_some_page() -> None:
    """An entry of NOT_RUN that nothing uses hides the next command that starts so."""
    lines = [part.text for page in PAGES for part in code(page) if part.language == "sh"]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("python -m train.cifar --epochz 3", "SystemExit"),
        ("python -m deploy.run_lava gone.h5", "AssertionError"),
        ("python -m deploy.nothing", "ModuleNotFoundError"),
        ("rm -rf runs", "AssertionError"),
        ("python -m benchmarks.speed --out x --nonsense", "AssertionError"),
    ],
)
def test_wrong_commands_are_found(line: str, problem: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseException) as caught:
        run("README.md", line, monkeypatch)
    assert caught.type.__name__ == problem


def test_code_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n```sh\npython -m a --x 'b c' \\\n    --y   # comment\n# nothing\nmake d\n```\n```text\nmake no\n```\n"
        "    python -m e f.pt\n    not a command\n```python\nimport g\n\n```\n"
    )
    assert [(part.language, part.text) for part in code(page)] == [
        ("sh", "python -m a --x 'b c' --y"),
        ("sh", "make d"),
        ("sh", "python -m e f.pt"),
        ("python", "import g\n\n"),
    ]
