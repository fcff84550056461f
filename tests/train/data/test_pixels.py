"""Every mode of Pillow arrives as an independent decoder shows it, or is refused in one line."""

import importlib.util
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode

from train.data.image_set import DataError
from train.data.pixels import FORMATS, SUFFIXES, pixels

RANDOM = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(content: bytes) -> NDArray[np.uint8]:
    return pixels(io.BytesIO(content), "x.img")


def refusal(content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        decoded(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """By the definition, in float64: nothing ties, as 255 is odd."""
    colour, opacity = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    return np.rint(colour * opacity + 255 * (1 - opacity)).astype(np.uint8)


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled(kind: str) -> None:
    values = noise(6, 5, dtype=np.uint16)
    by_hand = b"P5 5 6 65535\n" + values.astype(">u2").tobytes()
    content = by_hand if kind == "PPM" else encoded(Image.fromarray(values), kind)
    assert np.array_equal(decoded(content), grey(values >> 8))


def test_eight_bits_stored_as_sixteen_are_the_same_image() -> None:
    values = noise(6, 5)
    assert np.array_equal(decoded(encoded(Image.fromarray(values.astype(np.uint16) * 257), "PNG")), grey(values))


def test_sixteen_bits_that_would_all_become_one_value_are_refused() -> None:
    content = encoded(Image.fromarray(noise(6, 5).astype(np.uint16)), "PNG")
    assert "which are one of 8 bits; allowed: values that differ by 256 and more" in refusal(content)
    assert not decoded(encoded(Image.fromarray(np.full((6, 5), 9, np.uint16)), "PNG")).any()


def test_twelve_bits_of_a_tiff_are_scaled() -> None:
    """Two values in three bytes, of a writer of our own: Pillow writes none."""
    values = np.array([[0x123, 0xFED], [0x000, 0xFFF]])
    packed = b"".join(int((a << 12) | b).to_bytes(3, "big") for a, b in values.tolist())
    entries = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: len(packed)}
    content = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed + len(entries).to_bytes(2, "little")
    for tag, value in entries.items():
        content += tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    assert np.array_equal(decoded(content + bytes(4)), grey(values >> 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: encoded(Image.fromarray(noise(6, 5).astype(np.float32)), "TIFF"),
            "has mode F of Pillow; allowed: 8 or",
        ),
        (lambda: encoded(Image.fromarray(noise(6, 5).astype(np.int32)), "TIFF"), "has 32 or signed values; allowed: 8"),
        (lambda: encoded(Image.new("LAB", (5, 6)), "TIFF"), "has mode LAB of Pillow; allowed: 8 or 16 bits, grey, RGB"),
        (
            lambda: encoded(Image.new("L", (5, 6)), "GIF", save_all=True, append_images=[Image.new("L", (5, 6), 255)]),
            "has 2 frames",
        ),
        (
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "is a pointer of Git LFS, not the file",
        ),
        (lambda: encoded(Image.new("RGB", (5, 6)), "ICO"), "is not a readable image; allowed: WEBP, PNG, JPEG, BMP, T"),
    ],
    ids=["float", "32 bits", "LAB", "frames", "pointer", "format"],
)
def test_what_has_no_one_meaning_is_refused(make: Callable[[], bytes], message: str) -> None:
    assert refusal(make()).startswith(f"data: x.img {message}")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_white(mode: str) -> None:
    """The drawing of an icon is in its alpha channel: black ink on white, as viewers show it."""
    rgba = noise(6, 5, 4)
    rgba[..., 1:3] = rgba[..., :1]
    image = Image.fromarray(rgba).convert(mode)
    assert np.array_equal(decoded(encoded(image, "PNG")), on_white(rgba))
    ink = np.zeros((6, 5, 4), np.uint8)
    ink[2:4, 1:3, 3] = 255
    expected = np.full((6, 5, 3), 255)
    expected[2:4, 1:3] = 0
    assert np.array_equal(decoded(encoded(Image.fromarray(ink), "PNG")), expected)


def test_a_palette_with_transparency_lies_on_white() -> None:
    image = Image.fromarray(noise(6, 5)).convert("P")
    colours = np.array(image.getpalette()).reshape(-1, 3)
    opacity = np.arange(256, dtype=np.uint8)
    found = decoded(encoded(image, "PNG", transparency=opacity.tobytes()))
    index = np.asarray(image)
    assert np.array_equal(
        found, on_white(np.concatenate([colours[index], opacity[index][..., None]], 2).astype(np.uint8))
    )


def png(bits: int, values: NDArray[Any], transparent: int) -> bytes:
    """Grey values (H, W) with one of them transparent, of a writer of our own: Pillow writes 8 bits alone."""
    lines = "".join("0" * 8 + "".join(f"{v:0{bits}b}" for v in line) for line in values.tolist())
    packed = zlib.compress(int(lines, 2).to_bytes(len(lines) // 8, "big"))
    size = values.shape[1].to_bytes(4, "big") + values.shape[0].to_bytes(4, "big")
    content = b"\x89PNG\r\n\x1a\n"
    parts = {b"IHDR": size + bytes([bits, 0, 0, 0, 0]), b"tRNS": transparent.to_bytes(2, "big"), b"IDAT": packed}
    for name, data in (parts | {b"IEND": b""}).items():
        content += len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
    return content


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_one_transparent_grey_value_lies_on_white_or_is_refused(bits: int) -> None:
    values = RANDOM.integers(0, 2**bits, (6, 8))
    content = png(bits, values, int(values.max()))
    if bits in (1, 8):
        expected = np.where(values == values.max(), 255, values * 255 // (2**bits - 1))
        assert np.array_equal(decoded(content), grey(expected))
    else:
        assert refusal(content).startswith(f"data: x.img has {bits} bits and one transparent value, which Pillow takes")


def test_a_white_drawing_on_nothing_is_refused() -> None:
    rgba = np.full((6, 5, 4), 255, np.uint8)
    rgba[2:4, :, 3] = 0
    assert "is white after its transparent pixels were laid on white; allowed: a drawing" in refusal(
        encoded(Image.fromarray(rgba), "PNG")
    )
    assert (decoded(encoded(Image.new("RGBA", (5, 6), (9, 9, 9, 0)), "PNG")) == 255).all()  # nothing was drawn


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_as_their_exif_data_say(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    image = Image.fromarray(noise(8, 16, 3))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    content = encoded(image, kind, exif=exif, **options)
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    found = decoded(content)
    assert found.shape == ((8, 16, 3) if orientation < 5 else (16, 8, 3)) and np.array_equal(found, expected)


def test_damaged_exif_data_do_not_matter() -> None:
    content = encoded(Image.fromarray(noise(8, 16, 3)), "JPEG", exif=b"Exif\0\0nonsense and more of it")
    assert decoded(content).shape == (8, 16, 3)


def test_every_suffix_is_one_that_pillow_reads_in_an_allowed_format() -> None:
    Image.init()
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} == set(FORMATS)


# What an encoder takes; options that change what is stored and not what it means.
KINDS: dict[str, dict[str, list[Any]]] = {
    "PNG": {"optimize": [False, True], "compress_level": [0, 6]},
    "TIFF": {"compression": [None, "tiff_lzw", "tiff_deflate", "packbits"]},
    "BMP": {},
    "PPM": {},
    "WEBP": {"lossless": [True], "exact": [True]},
    "JPEG": {"quality": [95], "subsampling": [0]},
}
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB", "HSV")
REFUSED = ("I", "F", "LAB", "HSV")


def picture(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(random.integers(0, 65536, size).astype(dtype))
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = random.integers(0, 256, (*size, bands), dtype=np.uint8)
    if mode in ("LAB", "HSV", "YCbCr", "CMYK", "LA"):
        return Image.frombytes(mode, (size[1], size[0]), values.tobytes())
    image = Image.fromarray(values if bands > 1 else values[..., 0])
    if mode == "P":
        image.putpalette(random.integers(0, 256, 768, dtype=np.uint8).tobytes())
        return image
    return image if image.mode == mode else image.convert(mode)


def shown(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """RGB of what a decoder gives that keeps 16 bits and alpha: (H, W), or channels red, green, blue and alpha."""
    values = (raw >> 8).astype(np.uint8) if raw.dtype == np.uint16 else raw
    if values.ndim == 2:
        return grey(values)
    if values.shape[2] < 3:
        values = np.concatenate([np.repeat(values[..., :1], 3, axis=2), values[..., 1:]], axis=2)
    return on_white(values) if values.shape[2] == 4 else values


def others(content: bytes, kind: str, mode: str, orientation: int) -> Iterator[NDArray[np.uint8]]:
    """What torchvision's decoders and OpenCV's, which share no code with Pillow's, show of an image they can read."""
    if (kind == "PNG" and mode not in ("I;16", "I")) or (kind == "JPEG" and mode != "CMYK"):
        stored, channels = (
            torch.tensor(list(content), dtype=torch.uint8),
            "RGB_ALPHA" if mode in ("LA", "RGBA") else "RGB",
        )
        raw = torchvision.io.decode_image(stored, ImageReadMode[channels], apply_exif_orientation=True)
        yield shown(raw.permute(1, 2, 0).numpy())
    # OpenCV has another opinion of CMYK, or none, and multiplies colours of a TIFF with alpha or leaves it out.
    if orientation > 1 or mode in ("CMYK", "YCbCr") or (kind == "TIFF" and mode in ("LA", "RGBA")):
        return
    if (cv2 := optional("cv2")) and (
        raw := cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    ) is not None:
        yield shown(raw if raw.ndim == 2 else raw[..., [2, 1, 0, 3][: raw.shape[2]]])


def optional(module: str) -> Any:
    """OpenCV comes with lava-dl, on Python 3.10 alone."""
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


def writes(kind: str, mode: str) -> bool:
    """Whether Pillow's encoder of a format takes a mode."""
    try:
        encoded(picture(mode, (1, 1), 0), kind)
    except (OSError, KeyError, ValueError):
        return False
    return True


WRITTEN = [(kind, mode) for kind in KINDS for mode in MODES if writes(kind, mode)]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(WRITTEN),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 2**16),
    st.integers(1, 8),
    st.data(),
)
def test_what_arrives_is_what_other_decoders_show(
    written: tuple[str, str], size: tuple[int, int], seed: int, orientation: int, data: st.DataObject
) -> None:
    kind, mode = written
    options = {name: data.draw(st.sampled_from(values)) for name, values in KINDS[kind].items()}
    if kind in ("PNG", "JPEG"):
        options["exif"] = Image.Exif()
        options["exif"][0x112] = orientation
    else:
        orientation = 1
    content = encoded(picture(mode, size, seed), kind, **options)
    try:
        found = decoded(content)
    except DataError as error:
        assert "\n" not in str(error)
        assert (
            mode in REFUSED
            or (mode in ("LA", "RGBA", "I;16") and " one of 8 bits" in str(error))
            or "white" in str(error)
        )
        event(f"{mode} {kind}: refused")
        return
    assert found.shape == (*(size if orientation < 5 else size[::-1]), 3)
    expected = list(others(content, kind, mode, orientation))
    event(f"{mode} {kind}: {len(expected)} other decoders")
    for one in expected:
        assert np.abs(found.astype(int) - one).max() <= (2 if kind == "JPEG" else 0)
