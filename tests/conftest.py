"""Fixtures of all tests."""

import signal
from pathlib import Path

import pytest

# Shells and nohup have programs in the background ignore these, and what the tests start would ignore them too.
HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
for number, handler in HANDLERS.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose name has a space and letters outside ASCII: whatever the tests try works with such paths."""
    folder = tmp_path / "größe 1"
    folder.mkdir()
    return folder
