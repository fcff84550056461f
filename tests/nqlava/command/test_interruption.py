"""Signals end a command through its open contexts, with the status that shells expect; ignored ones stay ignored."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from nqlava.command.interruption import SIGNALS, Interruption
from nqlava.command.parser import Parser

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = {signal.SIGINT: 130, signal.SIGTERM: 143}
PARSER = Parser("some.command", "Does something.", [])


@pytest.mark.parametrize(("number", "status"), NUMBERS.items())
def test_a_signal_closes_what_is_open(number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    def work(_options: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            closed.append(True)

    before = [signal.getsignal(one) for one in SIGNALS]
    assert PARSER.run(work, [], interrupted="; go on") == status and closed
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert capsys.readouterr().err == f"\nsome.command: {said}; go on\n"
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_what_fails_because_of_a_signal_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as PyTorch's zip file, which cannot be ended after a KeyboardInterrupt inside."""

    def work(_options: object) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("unexpected pos 448 vs 342")

    assert PARSER.run(work, []) == 143
    assert capsys.readouterr().err == "\nsome.command: ended by SIGTERM\n"


def test_ignored_signals_stay_ignored() -> None:
    """As Ctrl-C in a shell's background job."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert PARSER.run(lambda _: signal.raise_signal(signal.SIGINT), []) == 0
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_forked_process_ends_at_once() -> None:
    with Interruption().caught():
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def test_in_a_thread_nothing_is_caught() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Interruption().caught():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_the_status_is_kept_where_an_exec_was_interrupted(tmp_path: Path) -> None:
    """Such as that of a dataclass in an import; Python would then end by SIGINT."""
    (tmp_path / "some_command.py").write_text(
        "import sys\nfrom nqlava.command.parser import Parser\n"
        "parser = Parser('some_command', '', [])\n"
        "sys.exit(parser.run(lambda _: exec('import signal; signal.raise_signal(signal.SIGTERM)'), []))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "some_command"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (143, "\nsome_command: ended by SIGTERM\n")
