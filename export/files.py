"""Files that the exporters write."""

import os
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` all at once: a failure leaves what was there before.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
