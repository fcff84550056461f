"""Fixtures of all tests."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Of several processes that run tests each has a core; before PyTorch is imported, and for what the tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No example fails because the machine is busy. All else as it was: in CI, Hypothesis has a profile of its own.
settings.register_profile("tests", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Shells and nohup have programs in the background ignore these, and what the tests start would ignore them too.
HANDLERS = {signal.SIGINT: signal.default_int_handler}
for number, handler in HANDLERS.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_finish() -> None:
    """What was imported stays, so the garbage collector need not look at it again and again: a full look took 0.4 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose name has a space and letters outside ASCII: whatever the tests try works with such paths."""
    folder = tmp_path / "größe 1"
    folder.mkdir()
    return folder
