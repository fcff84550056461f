"""Fixtures of all tests."""

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose name has a space and letters outside ASCII: whatever the tests try works with such paths."""
    folder = tmp_path / "größe 1"
    folder.mkdir()
    return folder
