"""Make the embedded sample of CIFAR-10: 100 training and 100 test images of every class, in one zip archive.

Rule: within each split and class, images are ordered by the SHA-256 (hexadecimal) of their decoded pixels, which are
height x width x 3 bytes, RGB, row by row; the first ``--per-class`` are taken. Images with equal pixels count once (the
alphabetically first name stays). The rule depends on the images alone, neither on archive order nor on file names.

The files are copied as they are, in alphabetical order, stored without compression and with a fixed time stamp, so
the same input always gives the same bytes. The SHA-256 of the archive is printed; docs/data.md records it.
"""

import argparse
import hashlib
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

SPLITS = ("train", "test")
DEFAULT_OUT = Path("train/sample/cifar10-sample.zip")
TIME_STAMP = (1980, 1, 1, 0, 0, 0)


def pixel_digest(encoded: bytes) -> str:
    """SHA-256 of the decoded RGB pixels of one encoded image."""
    with Image.open(io.BytesIO(encoded)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def choose(archives: Iterable[Path], per_class: int) -> dict[str, bytes]:
    """Name to encoded image, for the images the rule takes from the union of the archives."""
    candidates: dict[tuple[str, str], dict[str, tuple[str, bytes]]] = defaultdict(dict)
    for archive in archives:
        with zipfile.ZipFile(archive) as source:
            for name in source.namelist():
                parts = name.split("/")
                if len(parts) != 3 or parts[0] not in SPLITS or not parts[2]:
                    continue
                encoded = source.read(name)
                group = candidates[parts[0], parts[1]]
                digest = pixel_digest(encoded)
                if digest not in group or name < group[digest][0]:
                    group[digest] = (name, encoded)
    chosen: dict[str, bytes] = {}
    for (split, label), group in candidates.items():
        if len(group) < per_class:
            raise SystemExit(f"{split}/{label}: {len(group)} different images, {per_class} are needed")
        chosen.update(group[digest] for digest in sorted(group)[:per_class])
    return chosen


def write(images: dict[str, bytes], out: Path) -> str:
    """Write the archive; returns its SHA-256."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(images):
            info = zipfile.ZipInfo(name, TIME_STAMP)
            info.create_system = 3  # the same bytes on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, images[name])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def main() -> None:
    """Command line: read the archives, choose, write, print the digest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="zip archives of the complete data set")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    parser.add_argument("--per-class", type=int, default=100, help="images per split and class (default: %(default)s)")
    args = parser.parse_args()
    images = choose(args.data, args.per_class)
    digest = write(images, args.out)
    print(f"{args.out}: {len(images)} images, {args.out.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
