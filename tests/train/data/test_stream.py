"""Streamed images depend on the seed alone, errors are one line, and no worker process outlives its batches."""

import importlib
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tests.processes as processes
import train.data.stream
import train.data.views
from train.data.image_set import DataError, ImageSet
from train.data.stream import StreamedSet
from train.data.tree import open_tree

ROOT = Path(__file__).resolve().parents[3]
_OTHERS: list[multiprocessing.process.BaseProcess] = []


@pytest.fixture(autouse=True)
def others() -> None:
    """Processes of tests before, such as pools that are kept for reuse."""
    _OTHERS[:] = multiprocessing.active_children()


def children() -> list[multiprocessing.process.BaseProcess]:
    return [process for process in multiprocessing.active_children() if process not in _OTHERS]


# PyTorch advises no more workers than cores, and newer Pythons against forking a process with threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
# PyTorch 2.3 imports it, with its compiler, at the first tensor that a process sends; done here, all workers have it.
with suppress(ImportError):
    importlib.import_module("torch.nested._internal.nested_tensor")


def training(data: StreamedSet, seed: int = 0, batch: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator)
    return list(data.training_batches(order, batch, generator, unused))


def unused(_images: Tensor, _generator: torch.Generator) -> Tensor:
    raise AssertionError("the crop of streamed images takes the place of the augmentation")


def assert_same(found: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    for (images, labels), (other_images, other_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_whatever_the_workers(tree: Path, workers: int) -> None:
    data = open_tree(tree, "train", 16, workers=workers)
    images, labels = zip(*data.batches(5), strict=True)
    assert [len(part) for part in labels] == [5, 5, 2]
    assert torch.equal(torch.cat(labels), data.labels)
    for index, view in enumerate(torch.cat(images)):
        path = tree / "train" / os.fsdecode(data.paths[index])
        assert np.array_equal(view.permute(1, 2, 0).numpy(), train.data.views.view(path, 16, None))
    for part in images:
        assert part.dtype == torch.uint8 and part.is_contiguous(memory_format=torch.channels_last)


def test_training_batches_depend_on_the_seed_and_not_on_the_workers(tree: Path) -> None:
    expected = training(open_tree(tree, "train", 16, workers=0))
    for workers in (1, 2):
        assert_same(training(open_tree(tree, "train", 16, workers=workers)), expected)
    other = training(open_tree(tree, "train", 16, workers=0), seed=1)
    assert not torch.equal(torch.cat([images for images, _ in other]), torch.cat([images for images, _ in expected]))


def test_training_batches_are_complete_and_in_the_given_order(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=0)
    order = torch.tensor([9, 0, 5, 1, 11, 2, 3])
    found = list(data.training_batches(order, 3, torch.Generator(), unused))
    assert [labels.tolist() for _, labels in found] == [[2, 0, 1], [0, 2, 0]]
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in found)
    assert list(data.training_batches(order, 8, torch.Generator(), unused)) == []


def test_an_image_is_cropped_alike_in_whatever_batch_it_comes(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=0)
    one = list(data.training_batches(torch.arange(12), 4, torch.Generator().manual_seed(5), unused))
    other = list(data.training_batches(torch.arange(12).flip(0), 3, torch.Generator().manual_seed(5), unused))
    assert torch.equal(torch.cat([i for i, _ in one]), torch.cat([i for i, _ in other]).flip(0))


def test_random_numbers_of_the_caller_are_left_alone(tree: Path) -> None:
    """One draw from the given generator, none from PyTorch's own: dropout does not depend on how images are read."""
    data = open_tree(tree, "train", 16, workers=1)
    generator, same = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    before = torch.get_rng_state()
    list(data.training_batches(torch.arange(12), 4, generator, unused))
    list(data.batches(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.randint(2**62, (), generator=same)
    assert torch.equal(generator.get_state(), same.get_state())


def test_split_is_that_of_an_image_set(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=0)
    rest, held_out = data.split(4, 3)
    parts = ImageSet(torch.zeros(12, 1, 1, 1), torch.arange(12), data.classes).split(4, 3)
    for part, same in zip((rest, held_out), parts, strict=True):
        assert part.paths.tolist() == data.paths[same.labels.numpy()].tolist()
        assert torch.equal(part.labels, data.labels[same.labels])
    assert sorted([*rest.paths.tolist(), *held_out.paths.tolist()]) == data.paths.tolist()
    for count in (0, 12):
        with pytest.raises(DataError, match=rf"validation: {count} images held out; allowed: 1\.\.11"):
            data.split(count, 0)


def test_the_digest_tells_files_apart_and_not_where_they_are(tree: Path) -> None:
    def digest() -> str:
        return open_tree(tree, "train", 16, workers=0).digest()

    first = digest()
    assert digest() == first != open_tree(tree, "train", 16, workers=0).split(4, 0)[0].digest()
    assert open_tree(tree.rename(tree.with_name("moved")), "train", 16, workers=0).digest() == first
    tree.with_name("moved").rename(tree)
    file = tree / "train" / "dog" / "ü1.png"
    file.rename(file.with_name("ü9.png"))
    renamed = digest()
    file.with_name("ü9.png").write_bytes(b"x" * 300)
    assert len({first, renamed, digest()}) == 3


def test_too_many_pixels(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.data.views, "MAX_PIXELS", 1983)
    with pytest.raises(DataError, match=r"data: .*/val/a cat/ü1.png is \(31, 64\); allowed: up to 1983 pixels"):
        list(open_tree(tree, "test", 16, workers=0).batches(2))


# What follows is about worker processes: none may be left, however the batches end.


def damaged(tree: Path) -> Path:
    file = tree / "train" / "ñandú" / "ü2.png"
    file.write_bytes(file.read_bytes()[:-60])
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_in_one_line(tree: Path, workers: int) -> None:
    file = damaged(tree)
    for batches in (lambda d: d.batches(2), lambda d: iter(training(d))):
        with pytest.raises(DataError) as caught:
            list(batches(open_tree(tree, "train", 16, workers=workers)))
        assert str(caught.value).startswith(f"data: {file} is not a readable image (")
        assert "\n" not in str(caught.value)
        assert children() == []


def test_an_exception_in_the_loop_leaves_no_process(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=2)
    with pytest.raises(ZeroDivisionError), closing(data.batches(2)) as batches:
        for _ in batches:
            assert len(children()) == 2
            _ = 1 / 0
    assert children() == []


def test_without_closing_the_processes_end_with_the_exception(tree: Path) -> None:
    try:
        for _ in open_tree(tree, "train", 16, workers=2).batches(2):
            _ = 1 / 0
    except ZeroDivisionError:
        pass
    assert children() == []


@pytest.mark.slow
def test_ctrl_c_while_waiting_leaves_no_process(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent to all processes, as a terminal does."""

    def slow(_file: Path, size: int, _random: object) -> np.ndarray:
        time.sleep(0.5)
        return np.zeros((size, size, 3), dtype=np.uint8)

    def interrupt() -> None:
        for child in children():
            os.kill(child.pid or 0, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train.data.stream, "view", slow)
    timer = threading.Timer(0.4, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        list(open_tree(tree, "train", 16, workers=2).batches(2))
    assert caught.traceback
    assert children() == []
    timer.join()


def test_a_killed_worker_is_reported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(train.data.stream, "view", die)
    with pytest.raises(
        DataError, match=r"^data: DataLoader worker .*; allowed: fewer workers, or 0 if /dev/shm is full$"
    ):
        list(open_tree(tree, "train", 16, workers=1).batches(2))
    assert children() == []


def test_a_full_shared_memory_is_named_before_a_worker_dies_of_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**6, 10**6, 5000))  # type: ignore[attr-defined]
    data = open_tree(tree, "train", 16, workers=2)
    message = "/dev/shm, through which 2 workers pass batches, has 5,000 bytes left; allowed: 6,144, so fewer workers"
    with pytest.raises(DataError, match=re.escape(message)):
        next(data.batches(2))
    assert next(data.batches(1))[0].shape == (1, 3, 16, 16)
    assert next(open_tree(tree, "train", 16, workers=0).batches(12))[0].shape == (12, 3, 16, 16)


def test_batches_that_are_not_asked_for_cost_no_process(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=2)
    batches = data.batches(2)
    assert children() == []
    assert len(list(itertools.islice(batches, 2))) == 2
    batches.close()  # type: ignore[attr-defined]
    assert children() == []


@pytest.mark.slow
def test_the_processes_end_with_a_killed_training(tree: Path, tmp_path: Path) -> None:
    """PyTorch's own check takes five seconds and more; and they leave nothing in the folder for temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "import sys, time\nfrom train.data.tree import open_tree\n"
        f"batches = open_tree({str(tree)!r}, 'train', 16, workers=2).batches(2)\n"
        "next(batches)\nprint('running', flush=True)\ntime.sleep(60)\n"
    )
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    workers = processes.children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    processes.wait_until(lambda: not any(map(processes.alive, workers)), "a process is left", 3)
    assert not list(temporary.iterdir())
