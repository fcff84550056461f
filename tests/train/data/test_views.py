"""Views of images: the middle is what torchvision cuts out, and crops lie in the image."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import train.data.views
from tests.train.data.pictures import picture


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
    found = train.data.views.view(file, size, None).astype(np.int64)
    difference = np.abs(found - expected)  # Pillow rounds after its horizontal and after its vertical pass, either way
    assert difference.max() <= 2 and (difference == 2).sum() <= max(5, difference.size // 100)
    assert difference.mean() < 0.5


def test_a_large_jpeg_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an eighth here: 100 pixels are more than the 73 that the shorter side is resized to; the view is alike."""
    y, x = np.mgrid[:800, :1000]
    waves = (128 + 100 * np.sin(x / 150) * np.cos(y / 100)).astype(np.uint8)
    Image.fromarray(np.stack([waves, 255 - waves, waves[::-1]], 2)).save(tmp_path / "1.jpg", quality=95)
    small = train.data.views.view(tmp_path / "1.jpg", 64, None)
    decoded = []
    load = Image.Image.convert

    def convert(image: Image.Image, mode: str) -> Image.Image:
        decoded.append(image.size)
        return load(image, mode)

    monkeypatch.setattr(Image.Image, "convert", convert)
    train.data.views.view(tmp_path / "1.jpg", 64, None)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    whole = train.data.views.view(tmp_path / "1.jpg", 64, None)
    assert decoded == [(125, 100), (1000, 800)]
    assert np.abs(small.astype(int) - whole).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg"])
def test_views_are_of_the_image_as_turned(tmp_path: Path, kind: str, orientation: int) -> None:
    """The middle, and a crop, are chosen in the image that viewers show; a JPEG is decoded small before that."""
    exif = Image.Exif()
    exif[0x112] = orientation
    picture((300, 170)).resize((600, 340)).save(tmp_path / f"stored.{kind}", exif=exif)
    with Image.open(tmp_path / f"stored.{kind}") as stored:
        ImageOps.exif_transpose(stored).convert("RGB").save(tmp_path / "turned.png")
    for seed in (None, 3):
        found, expected = (
            train.data.views.view(tmp_path / name, 60, None if seed is None else np.random.default_rng(seed))
            for name in (f"stored.{kind}", "turned.png")
        )
        assert np.abs(found.astype(int) - expected).mean() < (8 if kind == "jpeg" else 0.01)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB", "P", "RGBA"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """Whatever the name says: ImageNet has a PNG called .JPEG."""
    colour = (200, 200, 200) if mode == "L" else (204, 102, 0)
    image = Image.new("RGB", (40, 30), colour).convert(mode)
    image.save(tmp_path / "1.JPEG", "JPEG" if mode in ("L", "CMYK", "RGB") else "PNG")
    view = train.data.views.view(tmp_path / "1.JPEG", 16, None)
    assert view.shape == (16, 16, 3) and np.abs(view.astype(int) - colour).max() <= 3


def test_crops_show_a_part_of_the_image_and_its_mirror_image(tmp_path: Path) -> None:
    """In an image whose red is x and whose green is y, a crop is a linear ramp: where it is can be read off."""
    y, x = np.mgrid[:200, :240]
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(tmp_path / "1.png")
    mirrored, areas = 0, []
    for seed in range(60):
        view = train.data.views.view(tmp_path / "1.png", 32, np.random.default_rng(seed)).astype(int)
        wide, high = (view[16, 31, 0] - view[16, 0, 0]) * 32 / 31, (view[31, 16, 1] - view[0, 16, 1]) * 32 / 31
        mirrored += wide < 0
        areas.append(abs(wide) * high / (240 * 200))
        assert high > 0 and 0.7 < abs(wide) / high < 1.42
    assert 15 < mirrored < 45
    assert 0.05 < min(areas) < 0.25 and 0.75 < max(areas) < 1.05


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**32))
def test_crops_lie_in_the_image(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = train.data.views._crop(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assume(min(width, height) > 100)
    ratio = (right - left) / (bottom - top)
    assert 0.72 < ratio < 1.4
    assert (right - left) * (bottom - top) > 0.078 * width * height or max(width / height, height / width) > 4 / 3
