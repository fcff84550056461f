"""Images come out alike from folders, archives and the cache, and bad data is refused in one line that says where."""

import hashlib
import io
import os
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR100

import train.data.images
import train.data.layout
import train.data.sources
from tests.tiny import image_set, write_folder, write_zip
from tests.train.data.cifar import write_cifar
from train.data.augment import augment
from train.data.image_set import DataError, ImageSet
from train.data.images import load
from train.data.pixels import pixels

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def assert_same(found: ImageSet, expected: ImageSet) -> None:
    assert found.classes == expected.classes
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)


def by_class(data: ImageSet) -> ImageSet:
    """In the order of loading: by class, then by file name."""
    return data.subset(torch.argsort(data.labels, stable=True))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("decoded although cached")

    monkeypatch.setattr(train.data.images, "pixels", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", train=image_set(11, classes=3), test=image_set(4, classes=3, seed=1))


def test_sample_holds_a_thousand_images_per_split_in_cifar10_order() -> None:
    for split in ("train", "test"):
        data = load(["sample"], split)
        assert data.images.shape == (1000, 32, 32, 3) and data.images.dtype == torch.uint8
        assert data.classes == CIFAR10
        assert data.labels.dtype == torch.int64 and torch.bincount(data.labels).tolist() == [100] * 10


def test_folder_and_archive_give_the_same_arrays(folder: Path, tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    write_zip(archives / "all.zip", folder)
    for split, data in (("train", image_set(11, classes=3)), ("test", image_set(4, classes=3, seed=1))):
        for source in (folder, archives / "all.zip", archives):
            assert_same(load([str(source)], split), by_class(data))


def test_several_archives_unite(tmp_path: Path) -> None:
    """However the images are spread over archives and folders, the result is the same."""
    whole, parts = image_set(12, classes=3), tmp_path / "parts"
    parts.mkdir()
    for index, number in enumerate(range(0, 12, 4)):
        part = whole.subset(torch.arange(number, number + 4))
        tree = write_folder(tmp_path / f"tree{index}", train=part)
        for file in sorted(tree.rglob("*.png")):
            file.rename(file.with_name(f"{index}-{file.name}"))
        write_zip(parts / f"{index}.zip", tree)
    expected = by_class(whole)
    assert_same(load([str(parts)], "train"), expected)
    assert_same(load([str(parts / "2.zip"), str(tmp_path / "tree0"), str(parts / "1.zip")], "train"), expected)


def test_the_second_load_comes_from_the_cache(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load([str(folder)], "train")
    assert [p.suffix for p in cache.iterdir()] == [".npz"]
    forbid_decoding(monkeypatch)
    assert_same(load([str(folder)], "train"), first)


def test_a_changed_image_is_decoded_again(folder: Path) -> None:
    before = load([str(folder)], "train")
    first = sorted((folder / "train").rglob("*.png"))[0]
    Image.new("RGB", (6, 8), (1, 2, 3)).save(first)
    after = load([str(folder)], "train")
    assert after.images[0].unique().tolist() == [1, 2, 3] and torch.equal(after.images[1:], before.images[1:])


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04nonsense", None], ids=str)
def test_a_damaged_cache_is_rebuilt(
    folder: Path, cache: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load([str(folder)], "train")
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    assert_same(load([str(folder)], "train"), first)
    forbid_decoding(monkeypatch)
    assert_same(load([str(folder)], "train"), first)


def test_a_cache_that_cannot_be_written_is_only_slower(folder: Path, cache: Path) -> None:
    cache.write_text("a file in the way")
    assert_same(load([str(folder)], "train"), by_class(image_set(11, classes=3)))


def png(size: tuple[int, int], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def in_archive(change: Callable[[zipfile.ZipFile], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            change(archive)
        return folder / "x.zip"

    return make


def damaged_stream(folder: Path) -> Path:
    """A deflated member whose compressed bytes are overwritten."""
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/1.png", np.random.default_rng(0).bytes(2000))
    data = bytearray((folder / "x.zip").read_bytes())
    data[45:60] = b"\xff" * 15  # behind the header of 30 bytes and the name
    (folder / "x.zip").write_bytes(data)
    return folder / "x.zip"


def flagged(value: int, *offsets: int, name: bytes = b"t") -> Callable[[Path], Path]:
    """An archive with bytes of its member's two headers changed, and the first of its name in the header before it.

    At 6 are general flags, at 8 the compression method, at 14 the checksum, at 18 and 22 the sizes.
    """

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr("train/cat/1.png", b"x" * 50)
        data = bytearray((folder / "x.zip").read_bytes())
        data[30:31] = name
        for offset in offsets:
            data[offset] = data[data.index(b"PK\x01\x02") + offset + 2] = value
        (folder / "x.zip").write_bytes(data)
        return folder / "x.zip"

    return make


def broken_archive(folder: Path) -> Path:
    (folder / "x.zip").write_bytes(b"PK\x03\x04 and no more")
    return folder / "x.zip"


def no_images(folder: Path) -> Path:
    (folder / "train" / "cat").mkdir(parents=True)
    (folder / "train" / "cat" / "readme.txt").write_text("no image")
    return folder


def two_sizes(folder: Path) -> Path:
    png((6, 8), folder / "train" / "cat" / "1.png")
    png((6, 9), folder / "train" / "dog" / "2.png")
    return folder


def broken_image(folder: Path) -> Path:
    png((6, 8), folder / "train" / "cat" / "1.png")
    (folder / "train" / "cat" / "2.png").write_bytes(b"no image")
    return folder


def half_image(folder: Path) -> Path:
    png((60, 80), folder / "train" / "cat" / "1.png")
    (folder / "train" / "cat" / "1.png").write_bytes((folder / "train" / "cat" / "1.png").read_bytes()[:-40])
    return folder


def other_classes(folder: Path) -> Path:
    for place in ("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/cow/1.png"):
        png((6, 8), folder / place)
    return folder


def large(side: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "train" / "cat").mkdir(parents=True)
        header = b"BM" + struct.pack("<IIIIiiHH", 2**30, 0, 54, 40, side, side, 1, 24) + bytes(24)
        (folder / "train" / "cat" / "1.bmp").write_bytes(header)
        return folder

    return make


def pipe(folder: Path) -> Path:
    (folder / "train" / "cat").mkdir(parents=True)
    os.mkfifo(folder / "train" / "cat" / "1.png")
    return folder


def device(folder: Path) -> Path:
    (folder / "train" / "cat").mkdir(parents=True)
    (folder / "train" / "cat" / "1.png").symlink_to("/dev/zero")
    return folder


def postscript(folder: Path) -> Path:
    """Pillow would run Ghostscript on it."""
    (folder / "train" / "cat").mkdir(parents=True)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n%%EndComments\n(x) run\n%%EOF\n"
    (folder / "train" / "cat" / "1.png").write_bytes(content)
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (
        lambda f: f / "nowhere",
        "data: {f}/nowhere does not exist; allowed: a folder or zip archive with train/<class>/<image> and test/",
    ),
    "empty": (lambda f: f, "data: {f} holds nothing; allowed: a folder or zip archive with train/<class>/<image>"),
    "no images": (no_images, "data: {f}: train: class cat has no images (1 .txt left out); allowed: .bmp, "),
    "broken archive": (broken_archive, "data: {f}/x.zip is no zip archive, or a damaged one; "),
    "damaged stream": (damaged_stream, "data: {f}/x.zip is not readable ("),
    "encrypted": (flagged(1, 6), "data: {f}/x.zip is not readable ("),
    "compression": (flagged(99, 8), "data: {f}/x.zip is not readable ("),
    "checksum": (flagged(1, 14), "data: {f}/x.zip is not readable ("),
    "sizes": (flagged(255, 18, 22), "data: {f}/x.zip is not readable (EOFError)"),
    "name": (flagged(8, 7, name=b"\x9d"), "data: {f}/x.zip is not readable ('utf-8' codec"),
    "broken image": (broken_image, "data: {f}/train/cat/2.png is not a readable image; allowed: WEBP, PNG"),
    "a pipe": (pipe, "data: {f}/train/cat/1.png is not readable (not a regular file)"),
    "a device": (device, "data: {f}/train/cat/1.png is not readable (not a regular file)"),
    "half an image": (half_image, "data: {f}/train/cat/1.png is not a readable image ("),
    "wide": (large(4097), "data: {f}/train/cat/1.bmp is (4097, 4097); allowed: sides up to 4096"),
    "bomb": (large(50_000), "data: {f}/train/cat/1.bmp is "),
    "another format": (postscript, "data: {f}/train/cat/1.png is not a readable image; allowed: WEBP, PNG"),
    "two sizes": (two_sizes, "data: {f}/train/dog/2.png is (9, 6); allowed: (8, 6) as the others"),
    "other classes": (
        other_classes,
        "data: {f}: test has classes cat, cow; allowed: cat, dog as in train (cow is in one of",
    ),
    "outside": (
        in_archive(lambda z: z.writestr("../train/cat/1.png", b"x")),
        "data: no images of train in {f}/x",
    ),
    "absolute": (in_archive(lambda z: z.writestr("/train/cat/1.png", b"x")), "data: no images of train in {f}/x"),
    "too deep": (
        in_archive(lambda z: z.writestr("train/cat/x/1.png", b"x")),
        "data: {f}/x.zip: train: class cat has",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        load([str(make(folder))], "train")
    assert str(caught.value).startswith(message.format(f=folder)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "found"), [((7, 7), "one value, 7"), ((2, 13), "from 2 to 13; scale them to 0")])
def test_images_without_contrast_and_files_left_out_are_named(
    tmp_path: Path, values: tuple[int, int], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the images come from the cache."""
    for index in range(4):
        png((6, 8), tmp_path / "tree" / "train" / "cat" / f"{index}.png")
        Image.new("RGB", (6, 8), (values[index % 2],) * 3).save(tmp_path / "tree" / "train" / "cat" / f"{index}.png")
    for name in ("1.xyz", "2.xyz", "._1.png"):
        (tmp_path / "tree" / "train" / "cat" / name).write_text("")
    for _ in range(2):
        load([str(tmp_path / "tree")], "train")
        left, same = capsys.readouterr().err.splitlines()
        assert left == f"data: {tmp_path}/tree: train: 4 images are read; left out: 2 .xyz, 1 hidden"
        assert same.startswith(f"data: {tmp_path}/tree: train: all pixels of the 4 images are {found}")


def test_differing_classes_are_named_in_a_short_message() -> None:
    names = [f"class{number:04}" for number in range(1000)]
    with pytest.raises(DataError) as caught:
        train.data.layout.check_classes(names, [name for name in names if name != "class0500"], "data")
    assert "class0009, … (999); allowed: class0000" in str(caught.value) and "(class0500 is in one" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_all_images_together_have_a_largest_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.data.images, "MAX_BYTES", 11 * 8 * 6 * 3)
    assert len(load([str(folder)], "train")) == 11
    png((6, 8), folder / "train" / "class0" / "more.png")
    with pytest.raises(DataError, match=r": 1728 bytes of images; allowed: 1584 in all"):
        load([str(folder)], "train")


@pytest.mark.slow
def test_members_of_an_archive_are_unpacked_as_they_are_needed(folder: Path, tmp_path: Path) -> None:
    """A small archive of zeros holds many times the memory of a computer."""
    archive = write_zip(tmp_path / "x.zip", folder)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        for number in range(40):
            file.writestr(f"train/class0/zeros{number}.png", bytes(2**24))
    load([str(folder)], "train")  # what it imports does not count
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"train/class0/zeros\d+.png is not a readable image"):
            load([str(archive)], "train")
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "Jpg", "BMP", "webp"])
def test_suffixes_in_any_case(tmp_path: Path, suffix: str) -> None:
    png((6, 8), tmp_path / "tree" / "train" / "cat" / "1.png")
    kind = {"JPG": "JPEG"}.get(suffix.upper(), suffix.upper())
    Image.new("RGB", (6, 8)).save(tmp_path / "tree" / "train" / "cat" / f"2.{suffix}", kind)
    assert len(load([str(tmp_path / "tree")], "train")) == 2
    (tmp_path / "archives").mkdir()
    write_zip(tmp_path / "archives" / "X.ZIP", tmp_path / "tree")
    assert len(load([str(tmp_path / "archives")], "train")) == 2


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_the_test_split_is_called_test_val_or_validation(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "test").rename(folder / name)
    for source in (folder, write_zip(tmp_path / "x.zip", folder)):
        assert_same(load([str(source)], "test"), by_class(image_set(4, classes=3, seed=1)))


@pytest.mark.parametrize(("unlabelled", "expected"), [(False, [0, 0]), (True, [9, 9])])
def test_of_test_and_val_the_first_with_class_folders_counts(
    tmp_path: Path, unlabelled: bool, expected: list[int]
) -> None:
    """As in ImageNet, whose test images have no labels."""
    for split, value in (("train", 5), ("test", 0), ("val", 9)):
        for name in ("cat", "dog"):
            file = tmp_path / "tree" / split / ("" if unlabelled and split == "test" else name) / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 8), (value,) * 3).save(file)
    for source in (tmp_path / "tree", write_zip(tmp_path / "x.zip", tmp_path / "tree")):
        assert load([str(source)], "test").images[:, 0, 0, 0].tolist() == expected


def write_tiny_imagenet(root: Path) -> Path:
    """Two classes, two training and two validation images each, the last of them grey; test images without labels."""
    lines = []
    for number, name in enumerate(["n02", "n01", "n01", "n02"]):
        (root / "train" / name / "images").mkdir(parents=True, exist_ok=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("0\t0\t5\t7\n")
        for part, file in (
            (root / "train" / name / "images", f"{name}_{number}.JPEG"),
            (root / "val" / "images", f"val_{number}.JPEG"),
            (root / "test" / "images", f"test_{number}.JPEG"),
        ):
            part.mkdir(parents=True, exist_ok=True)
            Image.new("L" if number == 3 else "RGB", (6, 8), 50 * number if number == 3 else (50 * number,) * 3).save(
                part / file, "JPEG"
            )
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t5\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n02\nn01\n")
    return root


def test_tiny_imagenet_as_distributed(tmp_path: Path) -> None:
    """Its classes have a folder images/ inside, its val images a list of labels, and its test images no labels."""
    root = write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    with_top = write_zip(tmp_path / "top.zip", tmp_path / "tiny-imagenet-200")
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    for source in (root, with_top, tmp_path / "tiny-imagenet-200.zip"):
        for split in ("train", "test"):
            data = load([str(source)], split)
            assert data.classes == ("n01", "n02") and data.labels.tolist() == [0, 0, 1, 1]
            assert data.shape == (3, 8, 6)
            assert data.images.flatten(1).float().mean(1).round().tolist() == [50, 100, 0, 150]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.replace("val_2.JPEG", "val_7.JPEG"),
            "data: {root}/val/images/val_2.JPEG is in one of val/val_annotations.txt",
        ),
        (
            lambda t: t + "../../../x.JPEG\tn01\n",
            "data: {root}/val/images/../../../x.JPEG is in one of val/val_annotations.txt and",
        ),
        (
            lambda t: t + "nonsense\n",
            "data: {root}/val/val_annotations.txt: line 5 is 'nonsense'; allowed: file, class, box, by tabs",
        ),
        (lambda t: t.replace("n01", "n03"), "data: {root}: test has classes n02, n03; allowed: n01, n02 as in train"),
    ],
    ids=["missing", "outside", "no label", "other class"],
)
def test_tiny_imagenet_with_other_annotations_is_refused(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    root = write_tiny_imagenet(tmp_path / "tiny")
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text(change(annotations.read_text()))
    with pytest.raises(DataError) as caught:
        load([str(root)], "test")
    assert str(caught.value).startswith(message.format(root=root)) and "\n" not in str(caught.value)


@pytest.fixture
def archive(cache: Path) -> Path:
    """CIFAR-100's archive where a download would put it."""
    return write_cifar(cache, 100, images=3)


def test_cifar_is_downloaded_once(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    """Where the cache folder has the archive, with its checksum, nothing is fetched."""
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    kept = archive.rename(archive.with_name("elsewhere"))
    fetched = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        fetched.append((url, md5))
        shutil.copy(kept, Path(root, filename))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    first = load(["cifar100"], "train")
    assert first.images.shape == (3, 32, 32, 3) and first.labels.tolist() == [0, 1, 2] and len(first.classes) == 100
    assert_same(load(["cifar100"], "train"), first)
    assert fetched == [(CIFAR100.url, CIFAR100.tgz_md5)]


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("File not found or corrupted.")], ids=repr)
def test_a_failed_download_names_the_place_of_the_archive(
    monkeypatch: pytest.MonkeyPatch, error: Exception, cache: Path
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    message = rf"data: CIFAR100 could not be downloaded \(.*\); allowed .* as {cache}/cifar-100-python.tar.gz, or"
    with pytest.raises(DataError, match=message):
        load(["cifar100"], "train")


def test_a_large_member_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.data.sources, "MAX_FILE_BYTES", 10)
    path = in_archive(lambda z: z.writestr("train/cat/1.png", b"x" * 11))(tmp_path)
    with pytest.raises(DataError, match=r"x.zip: train/cat/1.png is larger than 10 bytes"):
        load([str(path)], "train")


def test_members_outside_the_class_folders_are_neither_unpacked_nor_used(folder: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", folder)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../train/x/y.png", "/train/x/y.png", "train/x/../y.png", "train/y.png", "train/class0/y.txt"):
            archive.writestr(name, b"x")
    before = sorted(tmp_path.rglob("*"))
    assert_same(load([str(path)], "train"), by_class(image_set(11, classes=3)))
    assert sorted(p for p in tmp_path.rglob("*") if p.parts[len(tmp_path.parts)] != "cache") == before


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_images_decode_or_are_refused(data: st.DataObject) -> None:
    """No byte flipped in an image or left out of it raises anything but DataError."""
    kind = data.draw(st.sampled_from(["png", "bmp", "jpeg", "webp", "tiff", "gif", "ppm"]))
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = pixels(io.BytesIO(bytes(content)), f"my-images/1.{kind}")
    except DataError as error:
        assert str(error).startswith(f"data: my-images/1.{kind} ") and "\n" not in str(error)
    else:
        assert found.dtype == np.uint8 and found.shape[2:] == (3,)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_set(1).images[0].numpy()).save(file, kind)
    return file.getvalue()


def test_split_is_disjoint_complete_and_decided_by_the_seed() -> None:
    data = ImageSet(torch.arange(50, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(50), ("a",) * 50)
    rest, held_out = data.split(12, 3)
    assert (len(rest), len(held_out)) == (38, 12)
    assert sorted([*rest.labels.tolist(), *held_out.labels.tolist()]) == list(range(50))
    assert torch.equal(rest.images.flatten().long(), rest.labels)
    assert_same(data.split(12, 3)[1], held_out)
    assert rest.shape == (1, 1, 1) and rest.device == torch.device("cpu")
    assert data.split(12, 4)[1].labels.tolist() != held_out.labels.tolist()
    for count in (0, 50):
        with pytest.raises(DataError, match=rf"validation: {count} images held out; allowed: 1\.\.49"):
            data.split(count, 0)


def test_sample_draws_without_replacement() -> None:
    data = ImageSet(torch.zeros(9, 1, 1, 1, dtype=torch.uint8), torch.arange(9), ("a",))
    assert sorted(data.sample(9, 1).labels.tolist()) == list(range(9))
    assert data.sample(4, 1).labels.tolist() == data.sample(4, 1).labels.tolist()
    for count in (0, 10):
        with pytest.raises(DataError, match=rf"samples is {count}; allowed: 1\.\.9"):
            data.sample(count, 0)
    for seed in (-1, 2**40 + 1):
        with pytest.raises(DataError, match=rf"seed is {seed}; allowed: 0\.\.{2**40}"):
            data.sample(3, seed)


def test_batches_cover_everything_in_order() -> None:
    data = image_set(7)
    images, labels = zip(*data.batches(3), strict=True)
    assert [len(part) for part in labels] == [3, 3, 1]
    assert torch.equal(torch.cat(images), data.images.permute(0, 3, 1, 2))
    assert torch.equal(torch.cat(labels), data.labels)


def test_training_batches_are_augmented_one_by_one_as_they_are_asked_for() -> None:
    """The caller's own draws go between those of two batches, and an incomplete batch is left out."""
    data, order = image_set(8), torch.tensor([5, 1, 7, 0, 2])
    generator, same = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    seen: list[Tensor] = []

    def change(images: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(indices)
        return augment(images, generator)

    count = 0
    for index, (images, labels) in enumerate(data.training_batches(order, 2, generator, change)):
        chosen = order[2 * index : 2 * index + 2]
        assert torch.equal(seen[index], chosen)
        assert torch.equal(images, augment(data.images[chosen], same)) and torch.equal(labels, data.labels[chosen])
        assert torch.equal(torch.rand(2, generator=generator), torch.rand(2, generator=same))
        count += 1
    assert count == 2
