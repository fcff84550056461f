"""From an image file to RGB uint8 pixels: every mode of Pillow is converted on purpose, or refused in one line."""

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from nqlava.command.files import LFS_POINTER, is_lfs_pointer, open_regular
from train.choices import MAX_SIDE
from train.data.image_set import DataError

# Whatever the suffix says: Pillow runs other programs for some formats.
FORMATS = ("WEBP", "PNG", "JPEG", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = frozenset(
    (".webp", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm")
)
ALLOWED = ", ".join(sorted(SUFFIXES))
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def opened_image(file: IO[bytes] | Path, name: str) -> Iterator[Image.Image]:
    """An image that Pillow recognises; DataError with the given name for any other. ``decoding`` is for its pixels."""
    with ExitStack() as opened:
        with decoding(name):
            stream = opened.enter_context(open_regular(file)) if isinstance(file, Path) else file
            if is_lfs_pointer(stream):
                raise DataError(f"data: {name} is {LFS_POINTER}")
            image = opened.enter_context(Image.open(stream, formats=FORMATS))
            frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        if frames > 1:  # the first image of a JPEG is the picture; what may follow are previews
            raise DataError(f"data: {name} has {frames} frames; allowed: one, so save the one that is meant")
        yield image


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """DataError with the given name for whatever Pillow raises on an image; its warnings are of no use here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"data: {name} is not a readable image; allowed: {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError, struct.error, ... on damaged images
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data: {name} is not a readable image ({reason})") from None


def orientation(image: Image.Image) -> int:
    """That of the EXIF data, 1 … 8; 1 where they are damaged, of which the pixels know nothing."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever Pillow raises
        return 1
    return found if found in range(1, 9) else 1


def swaps_sides(image: Image.Image) -> bool:
    """Whether turning the image as its EXIF data say swaps its sides; a TIFF is turned here."""
    if image.format == "TIFF":
        image.load()  # which turns it
        return False
    return orientation(image) > 4


def upright_size(file: IO[bytes], name: str) -> tuple[int, int]:
    """(H, W) of an image file, turned as its EXIF data say; errors as of ``opened_image``."""
    with opened_image(file, name) as image, decoding(name):
        swapped = swaps_sides(image)
        return image.size if swapped else (image.height, image.width)


def pixels(file: IO[bytes], name: str) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of an image file with sides up to MAX_SIDE; errors as of ``opened_image`` and ``rgb``."""
    with opened_image(file, name) as image:
        if max(image.size) > MAX_SIDE:
            raise DataError(f"data: {name} is {image.size}; allowed: sides up to {MAX_SIDE}")
        return np.asarray(rgb(image, name))


def rgb(image: Image.Image, name: str) -> Image.Image:
    """The image in mode RGB, turned as its EXIF data say.

    A grey value v of b bits, b = 16 or 12, becomes ⌊v / 2ᵇ⁻⁸⌋; Pillow does the same with colours of 16 bits, and rounds
    v / 257 in a PPM. A colour c with opacity α lies on white: ⌊(c·α + 255·(255 − α) + 127) / 255⌋.

    Raises:
        DataError: the image is damaged, its values have no known range, or all became one that were not; with ``name``.
    """
    with decoding(name):
        transparent = image.mode in _ALPHA or "transparency" in image.info
        if transparent and _bits_of_file(image) not in ("", "1", "8") and image.mode not in (*_ALPHA, "P"):
            found = f"{_bits_of_file(image)} bits and one transparent value, which Pillow takes for another"
            raise DataError(f"data: {name} has {found}; allowed: 8 bits, or an alpha channel")
        turn = None if image.format == "TIFF" else _TURNS.get(orientation(image))  # Pillow turns a TIFF itself
        if image.mode in _DEEP:
            made = _shifted(np.asarray(image), _bits(image, name) - 8, name)
        elif image.mode not in (*_PLAIN, *_ALPHA):
            raise DataError(f"data: {name} has mode {image.mode} of Pillow; allowed: 8 or 16 bits, grey, RGB or CMYK")
        elif transparent:
            made = _on_white(np.asarray(image.convert("RGBA")), name)
        else:
            made = image.convert("RGB")
        return made if turn is None else made.transpose(turn)


def _bits_of_file(image: Image.Image) -> str:
    """Of a value, where Pillow says so in the name of the stored mode: L;4 and I;16B have 4 and 16."""
    found = [re.search(r";(\d+)", str(tile[3])) for tile in getattr(image, "tile", ())]
    return next((number[1] for number in found if number), "")


def _bits(image: Image.Image, name: str) -> int:
    """Of a grey value in an image of more than eight."""
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        if image.mode == "I" or tags.get(_PHOTOMETRIC) == 0:
            kind = "32 or signed values" if image.mode == "I" else "16 bits of which 0 is white"
            raise DataError(f"data: {name} has {kind}; allowed: 8 or 16 bits, unsigned, 0 is black")
        return int(tags[_BITS_PER_SAMPLE][0])
    return 16  # PNG, and PPM, which Pillow scales to them


def _shifted(values: NDArray[Any], by: int, name: str) -> Image.Image:
    made = (values >> by).astype(np.uint8)
    if made.min() == made.max() and values.min() != values.max():
        least = 2**by
        raise DataError(
            f"data: {name} has values from {values.min()} to {values.max()}, which are one of 8 bits; allowed: values "
            f"that differ by {least} and more, so scale them to the full range"
        )
    return Image.fromarray(np.repeat(made[..., None], 3, axis=2))


def _on_white(rgba: NDArray[np.uint8], name: str) -> Image.Image:
    colour, opacity = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    made = ((colour * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    if (made == 255).all() and opacity.any() and opacity.min() != opacity.max():
        raise DataError(
            f"data: {name} is white after its transparent pixels were laid on white; allowed: a drawing that differs "
            "from white, or no transparency"
        )
    return Image.fromarray(made)
