"""Where compiled networks are kept; tests/compare/test_c_backend.py runs them."""

from pathlib import Path

import pytest

from nqlava.c import backend
from nqlava.errors import FileError
from tests.nqlava.c.networks import readout_alone


def test_no_home_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(backend, "user_cache_path", refuse)
    with pytest.raises(FileError) as caught:
        backend.cached(readout_alone(), ["true"])
    expected = "no folder for compiled networks (Could not determine home directory.); set XDG_CACHE_HOME to one"
    assert str(caught.value) == expected


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(backend, "user_cache_path", lambda _name: tmp_path / "file")
    with pytest.raises(FileError) as caught:
        backend.cached(readout_alone(), ["true"])
    assert str(caught.value) == f"{tmp_path}/file/c: cannot be written: Not a directory"
