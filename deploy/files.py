"""Files that the commands write."""

import json
from pathlib import Path
from typing import Any

from nqlava.command.files import replacing


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` to ``path`` all at once, in a new folder where it names one: a failure leaves what was there.

    Raises:
        FileError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
