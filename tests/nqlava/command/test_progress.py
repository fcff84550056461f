"""A bar on a terminal; plain lines, and few, elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from nqlava.command import progress as module
from nqlava.command.progress import progress

WORK = "from nqlava.command.progress import progress\nwith progress(4, 'images', 'Lava') as bar:\n"
WORK += "    for _ in range(4):\n        bar.set_postfix(accuracy='50.00 %')\n        bar.update(1)"


def test_lines_come_at_most_every_interval(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(1000, "images", "Lava") as bar:
        for seconds, count in ((10, 100), (25, 100), (5, 100), (40, 300), (60, 400)):
            now[0] += seconds
            bar.set_postfix(refresh=False, accuracy="90.00 %")
            bar.update(count)
    assert capsys.readouterr().err.splitlines() == [
        "Lava: 200/1000 images, 35 s, about 140 s left, accuracy 90.00 %",
        "Lava: 600/1000 images, 80 s, about 53 s left, accuracy 90.00 %",
    ]


def test_other_processes_show_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    with progress(2, "steps", "epoch 1", shown=False) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}])
def test_a_pipe_gets_no_control_characters(no_color: dict[str, str]) -> None:
    code = "import nqlava.command.progress\nnqlava.command.progress.INTERVAL = 0.0\n" + WORK
    environment = os.environ | {"PYTHONPATH": "."} | no_color
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 3
    assert not any(byte < 32 for byte in done.stderr.replace(b"\n", b""))


def test_a_terminal_gets_a_bar_without_colours_that_leaves_nothing() -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = os.environ | {"PYTHONPATH": ".", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", WORK], env=environment, stderr=child, stdout=child) as process:
        os.close(child)
        shown = b""
        try:
            while part := os.read(parent, 4096):
                shown += part
        except OSError:  # Linux ends the reading of a terminal whose other end is closed with EIO
            pass
        assert process.wait(timeout=60) == 0
    os.close(parent)
    assert b"Lava:" in shown and b"/4 [" in shown
    assert b"\x1b[3" not in shown and b"\x1b[1;3" not in shown, "no colours"
    assert shown.endswith(b"\r") and not shown.rsplit(b"\r", 2)[1].strip(), "the bar is erased"
