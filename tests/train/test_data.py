"""Images come out alike from folders, archives and the cache, and bad data is refused in one line that says where."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import train.data
from tests.tiny import image_set, write_folder, write_zip
from train.data import DataError, ImageSet, load

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

    monkeypatch.setattr(train.data, "_decode", refuse)


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


def flagged(offset: int, value: int) -> Callable[[Path], Path]:
    """An archive with one field of its member's two headers changed: general flags (6), compression method (8)."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr("train/cat/1.png", b"x" * 50)
        data = bytearray((folder / "x.zip").read_bytes())
        data[offset] = value
        data[data.index(b"PK\x01\x02") + offset + 2] = value
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


def large(side: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "train" / "cat").mkdir(parents=True)
        header = b"P5 %d %d 255\n" % (side, side)
        (folder / "train" / "cat" / "1.bmp").write_bytes(header)
        return folder

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda f: f / "nowhere", "data: {f}/nowhere does not exist; allowed: 'sample', 'cifar10', a folder or"),
    "empty": (lambda f: f, "data: {f} holds neither train/ or test/ folders nor zip archives"),
    "no images": (no_images, "data: no train/<class>/<image> in {f}"),
    "broken archive": (broken_archive, "data: {f}/x.zip is not readable ("),
    "damaged stream": (damaged_stream, "data: {f}/x.zip is not readable ("),
    "encrypted": (flagged(6, 1), "data: {f}/x.zip is not readable ("),
    "compression": (flagged(8, 99), "data: {f}/x.zip is not readable ("),
    "checksum": (flagged(14, 1), "data: {f}/x.zip is not readable ("),
    "broken image": (broken_image, "data: train/cat/2.png is not a readable image (cannot identify"),
    "half an image": (half_image, "data: train/cat/1.png is not a readable image ("),
    "wide": (large(4097), "data: train/cat/1.bmp is (4097, 4097); allowed: sides up to 4096"),
    "bomb": (large(50_000), "data: train/cat/1.bmp is "),
    "two sizes": (two_sizes, "data: train/dog/2.png is (9, 6); allowed: (8, 6) as the others"),
    "outside": (in_archive(lambda z: z.writestr("../train/cat/1.png", b"x")), "data: no train/<class>/<image> in"),
    "absolute": (in_archive(lambda z: z.writestr("/train/cat/1.png", b"x")), "data: no train/<class>/<image> in"),
    "too deep": (in_archive(lambda z: z.writestr("train/cat/x/1.png", b"x")), "data: no train/<class>/<image> in"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        load([str(make(folder))], "train")
    assert str(caught.value).startswith(message.format(f=folder)) and "\n" not in str(caught.value)


def test_a_large_member_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.data, "MAX_FILE_BYTES", 10)
    path = in_archive(lambda z: z.writestr("train/cat/1.png", b"x" * 11))(tmp_path)
    with pytest.raises(DataError, match=r"x.zip: train/cat/1.png is larger than 10 bytes"):
        load([str(path)], "train")


def test_members_outside_the_class_folders_are_neither_unpacked_nor_used(folder: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", folder)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../train/x/y.png", "/train/x/y.png", "train/x/../y.png", "train/y.png", "train/x/y.txt"):
            archive.writestr(name, b"x")
    before = sorted(tmp_path.rglob("*"))
    assert_same(load([str(path)], "train"), by_class(image_set(11, classes=3)))
    assert sorted(p for p in tmp_path.rglob("*") if p.parts[len(tmp_path.parts)] != "cache") == before


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_images_decode_or_are_refused(data: st.DataObject) -> None:
    """No byte flipped in an image or left out of it raises anything but DataError."""
    kind = data.draw(st.sampled_from(["png", "bmp", "jpeg", "webp"]))
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        name, file, pixels = train.data._image((f"train/cat/1.{kind}", bytes(content)))
    except DataError as error:
        assert str(error).startswith(f"data: train/cat/1.{kind} is ") and "\n" not in str(error)
    else:
        assert (name, file, pixels.dtype, pixels.shape[2]) == ("cat", f"1.{kind}", np.uint8, 3)


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
