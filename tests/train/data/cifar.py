"""CIFAR's archives with few images, written as their author's and as Python 3 writes them."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np


def write_cifar(folder: Path, classes: int, images: int, protocol: int = 2, seed: int = 0) -> Path:
    """The archive, with ``images`` in every file, of labels 0, 1, …; its path."""
    fine = classes == 100
    top = f"cifar-{classes}-{'python' if fine else 'batches-py'}"
    parts = ("train", "test") if fine else (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
    random = np.random.default_rng(seed)
    files: dict[str, Any] = {}
    for name in parts:
        pixels = random.integers(0, 256, (images, 3072), dtype=np.uint8)
        labels = [index % classes for index in range(images)]
        files[name] = {b"data": pixels, b"fine_labels" if fine else b"labels": labels, b"batch_label": name.encode()}
    key = b"fine_label_names" if fine else b"label_names"
    files["meta" if fine else "batches.meta"] = {key: [b"class%03d" % number for number in range(classes)]}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"cifar-{classes}-python.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            data = pickle.dumps(content, protocol)
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def unpacked(archive: Path) -> Path:
    """The folder in an archive of ``write_cifar``, beside it."""
    with tarfile.open(archive) as file:
        file.extractall(archive.parent)
        return archive.parent / file.getnames()[0].partition("/")[0]
