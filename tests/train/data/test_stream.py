"""Streamed images depend on the seed alone, errors are one line, and no worker process outlives its batches."""

import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import tests.processes as processes
import train.data.images
import train.data.stream
from train.data.images import DataError, ImageSet
from train.data.stream import StreamedSet, open_tree

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

SIZES = ((40, 30), (31, 64), (20, 20), (90, 33))


def picture(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).convert(mode)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes, one with a space and one beyond ASCII, of four images in train and two in val."""
    for split, count in (("train", 4), ("val", 2)):
        for number, name in enumerate(("a cat", "dog", "ñandú")):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                file = folder / f"{'ü' if index else 'photo '}{index}.png"
                picture(SIZES[index], seed=10 * number + index).save(file)
    return tmp_path / "tree"


def training(data: StreamedSet, seed: int = 0, batch: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator)
    return list(data.training_batches(order, batch, generator, unused))


def unused(_images: Tensor, _generator: torch.Generator) -> Tensor:
    raise AssertionError("the crop of streamed images takes the place of the augmentation")


def assert_same(found: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    for (images, labels), (other_images, other_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


def test_a_tree_is_listed_by_class_and_name(tree: Path) -> None:
    data = open_tree(tree, "train", 16, workers=0)
    assert len(data) == 12 and data.shape == (3, 16, 16)
    assert data.classes == ("a cat", "dog", "ñandú")
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    names = [os.fsdecode(name) for name in data.paths[:4].tolist()]
    assert names == ["a cat/photo 0.png", "a cat/ü1.png", "a cat/ü2.png", "a cat/ü3.png"]
    assert len(open_tree(str(tree), "test", 16, workers=0)) == 6


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_whatever_the_workers(tree: Path, workers: int) -> None:
    data = open_tree(tree, "train", 16, workers=workers)
    images, labels = zip(*data.batches(5), strict=True)
    assert [len(part) for part in labels] == [5, 5, 2]
    assert torch.equal(torch.cat(labels), data.labels)
    for index, view in enumerate(torch.cat(images)):
        path = tree / "train" / os.fsdecode(data.paths[index])
        assert np.array_equal(view.permute(1, 2, 0).numpy(), train.data.stream._view(path, 16, None))
    for part in images:
        assert part.dtype == torch.uint8 and part.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(2, 48))
@example(width=36, height=36, size=47)  # 13 of 6,627 values differ by 2
def test_the_evaluation_view_is_resize_and_centre_crop(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, size: int
) -> None:
    """Pixel by pixel what Pillow makes of the two steps in turn, with torchvision's rounding of sizes and places."""
    image = picture((width, height))
    file = tmp_path_factory.mktemp("view") / "1.png"
    image.save(file)
    shorter = round(size * 256 / 224)
    wide, high = (int(shorter * side / min(width, height)) for side in (width, height))
    left, top = round((wide - size) / 2), round((high - size) / 2)
    resized = image.resize((wide, high), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.int64)
    found = train.data.stream._view(file, size, None).astype(np.int64)
    difference = np.abs(found - expected)  # Pillow rounds after its horizontal and after its vertical pass, either way
    assert difference.max() <= 2 and (difference == 2).sum() <= max(5, difference.size // 100)
    assert difference.mean() < 0.5


def test_a_large_jpeg_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an eighth here: 100 pixels are more than the 73 that the shorter side is resized to; the view is alike."""
    y, x = np.mgrid[:800, :1000]
    waves = (128 + 100 * np.sin(x / 150) * np.cos(y / 100)).astype(np.uint8)
    Image.fromarray(np.stack([waves, 255 - waves, waves[::-1]], 2)).save(tmp_path / "1.jpg", quality=95)
    small = train.data.stream._view(tmp_path / "1.jpg", 64, None)
    decoded = []
    load = Image.Image.convert

    def convert(image: Image.Image, mode: str) -> Image.Image:
        decoded.append(image.size)
        return load(image, mode)

    monkeypatch.setattr(Image.Image, "convert", convert)
    train.data.stream._view(tmp_path / "1.jpg", 64, None)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    whole = train.data.stream._view(tmp_path / "1.jpg", 64, None)
    assert decoded == [(125, 100), (1000, 800)]
    assert np.abs(small.astype(int) - whole).max() <= 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB", "P", "RGBA"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """Whatever the name says: ImageNet has a PNG called .JPEG."""
    colour = (200, 200, 200) if mode == "L" else (204, 102, 0)
    image = Image.new("RGB", (40, 30), colour).convert(mode)
    image.save(tmp_path / "1.JPEG", "JPEG" if mode in ("L", "CMYK", "RGB") else "PNG")
    view = train.data.stream._view(tmp_path / "1.JPEG", 16, None)
    assert view.shape == (16, 16, 3) and np.abs(view.astype(int) - colour).max() <= 3


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


def test_crops_show_a_part_of_the_image_and_its_mirror_image(tmp_path: Path) -> None:
    """In an image whose red is x and whose green is y, a crop is a linear ramp: where it is can be read off."""
    y, x = np.mgrid[:200, :240]
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(tmp_path / "1.png")
    mirrored, areas = 0, []
    for seed in range(60):
        view = train.data.stream._view(tmp_path / "1.png", 32, np.random.default_rng(seed)).astype(int)
        wide, high = (view[16, 31, 0] - view[16, 0, 0]) * 32 / 31, (view[31, 16, 1] - view[0, 16, 1]) * 32 / 31
        mirrored += wide < 0
        areas.append(abs(wide) * high / (240 * 200))
        assert high > 0 and 0.7 < abs(wide) / high < 1.42
    assert 15 < mirrored < 45
    assert 0.05 < min(areas) < 0.25 and 0.75 < max(areas) < 1.05


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**32))
def test_crops_lie_in_the_image(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = train.data.stream._crop(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assume(min(width, height) > 100)
    ratio = (right - left) / (bottom - top)
    assert 0.72 < ratio < 1.4
    assert (right - left) * (bottom - top) > 0.078 * width * height or max(width / height, height / width) > 4 / 3


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
    file.with_name("ü9.png").write_bytes(b"x")
    assert len({first, renamed, digest()}) == 3


def no_class_folders(tree: Path) -> None:
    for file in sorted((tree / "val").rglob("*")):
        if file.is_file():
            file.rename(tree / "val" / f"{file.parent.name}-{file.name}")
    for folder in [entry for entry in (tree / "val").iterdir() if entry.is_dir()]:
        folder.rmdir()


def empty_class(tree: Path) -> None:
    for split in ("train", "val"):
        (tree / split / "eel").mkdir()
    (tree / "val" / "eel" / "readme.txt").write_text("no image")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "flat": (no_class_folders, "data: {f} holds no test/<class>/ or val/<class>/ or validation/<class>/"),
    "empty class": (empty_class, "data: {f}/val/eel holds no images; allowed: .bmp, .jpeg, .jpg, .png, .webp"),
    "class of val only": (
        lambda f: (f / "val" / "eel").mkdir(),
        "data: {f}: test has classes a cat, dog, eel, ñandú; allowed: a cat, dog, ñandú as in train (eel is in one",
    ),
    "broken link": (lambda f: (f / "val" / "dog" / "1.png").symlink_to("nowhere"), "data: {f} is not readable ("),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_trees(tree: Path, case: str) -> None:
    change, message = BAD[case]
    change(tree)
    with pytest.raises(DataError) as caught:
        open_tree(tree, "test", workers=0)
    assert str(caught.value).startswith(message.format(f=tree)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"size is 0; allowed: 1\.\.4096"),
        ({"workers": -1}, r"workers is -1; allowed: 0\.\.256"),
        ({"workers": 257}, r"workers is 257; allowed: 0\.\.256"),
        ({"path": "nowhere"}, "data: nowhere holds no train/<class>/"),
    ],
)
def test_bad_arguments(tree: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_tree(**{"path": tree, "split": "train"} | options)


def test_unlabelled_test_images_are_passed_over(tree: Path) -> None:
    (tree / "test").mkdir()
    picture((20, 20)).save(tree / "test" / "1.png")
    assert open_tree(tree, "test", workers=0).folder == tree / "val"


def test_too_many_pixels(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.data.stream, "MAX_PIXELS", 1983)
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

    monkeypatch.setattr(train.data.stream, "_view", slow)
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

    monkeypatch.setattr(train.data.stream, "_view", die)
    with pytest.raises(DataError, match=r"^data: DataLoader worker .*; allowed: fewer workers, or 0$"):
        list(open_tree(tree, "train", 16, workers=1).batches(2))
    assert children() == []


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
        "import sys, time\nfrom train.data.stream import open_tree\n"
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
