"""Files are replaced all at once, where they are what can be replaced."""

import os
import stat
import threading
from pathlib import Path

import pytest

from train.files import replacing


def write(path: Path, content: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(content)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half")
        _ = 1 / 0
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_new_folder_is_made(tmp_path: Path) -> None:
    write(tmp_path / "new" / "folder" / "file")
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == b"new"


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "target", tmp_path / "link", tmp_path / "dangling"
    target.write_bytes(b"old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "later")
    write(link)
    write(dangling)
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert dangling.is_symlink() and (tmp_path / "later").read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join(10)
    assert found == [b"new"] and stat.S_ISFIFO(path.stat().st_mode)


def test_modes_are_those_of_other_programs(tmp_path: Path) -> None:
    """What the umask leaves for a new file; its own for one that is replaced."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    old.chmod(0o600)
    before = os.umask(0o027)
    try:
        write(old)
        write(new)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (old, new)] == [0o600, 0o640]
