"""Files are replaced all at once, where they are what can be replaced."""

import errno
import gc
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from nqlava.command.files import check_output, open_regular, replacing, write_npz
from nqlava.errors import FileError


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


@pytest.mark.parametrize("unnamed", [True, False])
def test_what_is_not_complete_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool) -> None:
    """So that a process that is killed leaves nothing; file systems that cannot do that have a temporary name."""
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert len(list(tmp_path.iterdir())) == (1 if unnamed else 2) and path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"new"


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=f"^{path}: cannot be written: No space left on device$"):
        write(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"


def test_arrays_that_do_not_fit_are_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    """NumPy's own function leaves an archive whose destructor complains."""
    full = Path("/dev/full")
    with pytest.raises(OSError, match=r"^/dev/full: cannot be written: No space"), replacing(full) as file:
        write_npz(file, {"a": np.zeros(100_000)})
    gc.collect()
    assert capsys.readouterr().err == ""


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe would wait for ever, and a device may have no end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b"12345")
    for name, what in {"pipe": "not a regular file", "zero": "not a regular file", ".": "Is a directory"}.items():
        with pytest.raises(OSError, match=what):
            open_regular(tmp_path / name)
    with open_regular(tmp_path / "file", 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(OSError, match="5 bytes; allowed: 4"):
        open_regular(tmp_path / "file", 4)


def test_a_loop_of_links_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    with pytest.raises(OSError, match=f"^{path}: cannot be written: a loop of links$"):
        write(path)
    with pytest.raises(FileError, match=f"^{path} cannot be written; choose "):
        check_output(path)


def test_places_that_cannot_be_written_are_found_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "model.pt"):
        with pytest.raises(FileError, match="cannot be written"):
            check_output(path)
    check_output(tmp_path / "new" / "folder" / "model.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
