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
HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
for number, handler in HANDLERS.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# What takes seconds in files that start processes, clusters or browsers for nearly all that they test; elsewhere the
# tests themselves are marked.
SLOW = (
    "tests/report/test_command.py",
    "tests/report/test_page.py",
    "tests/test_api.py::test_it_needs_no_lava_before_lava_runs",
    "tests/test_cluster.py",
    "tests/test_run_lava.py::test_a_missing_lava_is_named",
    "tests/test_run_lava.py::test_exact_run_reports_and_returns_0",
    "tests/test_run_lava.py::test_a_run_imports_no_signal_processing",
    "tests/test_run_lava.py::test_interrupt_ends_everything",
    "tests/test_run_lava.py::test_stock_synapses_take_weights_that_are_all_zero_or_negative",
    "tests/test_verify.py::test_lava_can_be_imported_where_a_start_method_was_chosen_before",
    "tests/test_workers.py",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.nodeid.startswith(SLOW):
        item.add_marker(pytest.mark.slow)


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
