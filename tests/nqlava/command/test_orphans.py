"""A process ends with the one that started it, whatever ends that one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import alive, wait_until

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import os, signal, time
from nqlava.command.orphans import die_with_parent
parent = os.getpid()
child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, lambda *_: (print("tidy", flush=True), os._exit(0)))
    die_with_parent(parent{argument})
    print(os.getpid(), flush=True)
while True:
    time.sleep(0.05)  # a signal just before the call would wait for its end
"""


@pytest.mark.parametrize(("argument", "said"), [("", ""), (", signal.SIGTERM", "tidy\n")])
def test_a_child_ends_with_its_parent(argument: str, said: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format(argument=argument)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        try:
            wait_until(lambda: not alive(child), "the child lives on")
            assert process.communicate()[0] == said
        finally:
            if alive(child):
                os.kill(child, signal.SIGKILL)
