"""The cache of decoded images goes into each test's own folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr("train.data.cache.user_cache_path", lambda _name: folder)
    return folder
