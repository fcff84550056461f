"""Options come from flags, else from a TOML file, else are the defaults; what is wrong with them is one line."""

import argparse
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import LavaRunError
from export.fold.folded import ExportError
from export.nir.values import GraphError
from nqlava.command.parser import Parser
from nqlava.errors import FileError, InputError, MissingFileError
from nqlava.network import NetworkError
from nqlava.netx import NetxError
from train.data.image_set import DataError
from train.loop.checkpoint import CheckpointError

DEFAULTS = {"net": "n", "T": 4, "data": ["sample"], "rate": 0.5, "chip": "one", "resume": False, "fold": None}
DEFAULTS |= {"require": [], "init": None, "pretrained": None}


def parser() -> Parser:
    """One option of every kind that the commands have."""
    made = Parser("train.example", "Shows options.", ["train.example net.h5"], "exit status: 0 good")
    made.add_argument("net")
    made.add_argument("--T", type=int, default=4)
    made.add_argument("--data", nargs="+", default=["sample"])
    made.add_argument("--learning-rate", type=float, default=0.5, dest="rate")
    made.add_argument("--chip", choices=["one", "two"], default="one")
    made.add_argument("--require", nargs="+", choices=["one", "two"], action="extend", default=[])
    made.add_argument("--resume", action="store_true")
    made.add_argument("--fold", action=argparse.BooleanOptionalAction)
    either = made.add_mutually_exclusive_group()
    either.add_argument("--init", type=Path)
    either.add_argument("--pretrained", choices=["a", "b"])
    return made


def read(folder: Path, content: str, *flags: str) -> dict[str, Any]:
    """Options given by a file and flags, but --config itself."""
    file = folder / "x.toml"
    file.write_text(content, encoding="utf-8")
    options = vars(parser().parse_args(["n", "--config", str(file), *flags]))
    return {key: value for key, value in options.items() if key != "config"}


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    content = 'T = 8\ndata = ["a", "b"]\nlearning-rate = 1\nresume = true\nfold = false\nrequire = ["two"]'
    from_file = DEFAULTS | {"T": 8, "data": ["a", "b"], "rate": 1.0, "resume": True, "fold": False, "require": ["two"]}
    assert read(tmp_path, content) == from_file
    flags = ["--T", "4", "--data", "c", "--fold", "--require", "one", "--require", "two"]
    assert read(tmp_path, content, *flags) == from_file | {
        "T": 4,
        "data": ["c"],
        "fold": True,
        "require": ["one", "two"],
    }
    assert vars(parser().parse_args(["n"])) == DEFAULTS | {"config": None}
    assert read(tmp_path, 'learning_rate = "2"\ndata = "one"') == DEFAULTS | {"rate": 2.0, "data": ["one"]}


@pytest.mark.slow
@given(
    st.integers(-10, 10),
    st.lists(st.from_regex(r"[a-z ü]{1,5}", fullmatch=True), min_size=1, max_size=3),
    st.floats(allow_nan=False),
)
def test_a_file_gives_what_flags_give(
    tmp_path_factory: pytest.TempPathFactory, T: int, data: list, rate: float
) -> None:
    number = repr(rate)  # TOML's form too: inf, 1e-05, 3.0
    folder = tmp_path_factory.mktemp("toml")
    found = read(folder, f"T = {T}\ndata = {json.dumps(data)}\nlearning_rate = {number}")
    flags = ["--T", str(T), f"--learning-rate={number}", "--data", *data]
    assert found == read(folder, "", *flags)


def test_of_options_that_exclude_each_other_the_flag_counts(tmp_path: Path) -> None:
    assert read(tmp_path, 'init = "m.pt"')["init"] == Path("m.pt")
    found = read(tmp_path, 'init = "m.pt"', "--pretrained", "a")
    assert (found["init"], found["pretrained"]) == (None, "a")


def test_a_required_option_may_come_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_text('data = "imagenet"')
    made = Parser("train.example", "Shows options.", [])
    made.add_argument("--data", required=True)
    assert made.parse_args(["--config", str(tmp_path / "x.toml")]).data == "imagenet"
    other = Parser("train.example", "Shows options.", [])
    other.add_argument("--data", required=True)
    with pytest.raises(SystemExit):
        other.parse_args([])
    assert "the following arguments are required: --data" in capsys.readouterr().err


BAD_FILES = {
    "unknown": ("modle = 1", "unrecognized arguments: --modle=1"),
    "positional": ('net = "n"', "unrecognized arguments: --net=n"),
    "config": ('config = "y.toml"', "not a TOML file of options: config is given twice; remove one"),
    "table": (
        "[train]\nT = 4",
        "not a TOML file of options: train is {'T': 4}; allowed: strings, numbers, true and false",
    ),
    "type": ("T = 1.5", "--T: invalid int value: '1.5'"),
    "boolean for a number": ("T = true", "--T: invalid int value: 'true'"),
    "number for a boolean": ("resume = 7", "Unexpected value for resume: '7'. Expecting 'true', 'false', "),
    "several": ("T = [1, 2]", "T can't be set to a list '['1', '2']' unless"),
    "none": ("data = []", "--data: expected at least one argument"),
    "choice": ('chip = "three"', "--chip: invalid choice: 'three' (choose from "),
    "choice in a list": ('require = ["one", "x"]', "--require: invalid choice: 'x' (choose from "),
    "twice": ("learning_rate = 1\nlearning-rate = 2", "not a TOML file of options: learning-rate is given twice"),
    "both": ('init = "m"\npretrained = "a"', "--pretrained: not allowed with argument --init"),
    "not TOML": ("T 4", "not a TOML file of options: "),
    "deep": (f"T = {'[' * 20_000}", "not a TOML file of options: "),
    "long": (f"T = 0x{'f' * 6000}", "not a TOML file of options: "),
    "control characters": ('"a\\u001b[31m" = 1', "unrecognized arguments: --a\\x1b[31m=1"),
    "null character": ('init = "a\\u0000b"', "not a TOML file of options: init is a\\x00b; allowed: "),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    content, message = BAD_FILES[case]
    with pytest.raises(SystemExit) as caught:
        read(tmp_path, content)
    assert caught.value.code == 2
    written = capsys.readouterr().err
    assert written.startswith(f"train.example: with {tmp_path}/x.toml: {message}") and written.count("\n") == 1


def test_a_large_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(tmp_path, f"# {'x' * 2**20}")
    assert "x.toml. Error: [Errno 22] 1048578 bytes; allowed: 1048576" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("n --T x", "--T: invalid int value: 'x'"),
        ("n --chip three", "--chip: invalid choice: 'three' (choose from "),
        ("n --data", "--data: expected at least one argument"),
        ("n --config", "--config: expected one argument"),
        ("n --config gone.toml", "Unable to open config file: gone.toml. Error: [Errno 2] No such file or directory"),
        ("n --config .", "Unable to open config file: .. Error: [Errno 22] Is a directory"),
        ("", "the following arguments are required: net, before options that take several values such as --data"),
        ("--data sample n", "the following arguments are required: net, before options that take several values"),
        ("n --chi two", "unrecognized arguments: --chi two"),
        ("n --init m --pretrained a", "--pretrained: not allowed with argument --init"),
    ],
)
def test_bad_flags_are_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(arguments.split())
    assert caught.value.code == 2
    written = capsys.readouterr().err
    assert written.startswith(f"train.example: {message}") and written.count("\n") == 1


def test_line_breaks_in_values_stay_within_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["n", "--bad\noption"])
    assert capsys.readouterr().err.count("\n") == 1


def test_help_ends_with_notes_and_examples() -> None:
    assert parser().format_help().endswith("exit status: 0 good\n\nexamples:\n  python -m train.example net.h5\n")


def test_output_that_nobody_reads_any_more_ends_a_command_quietly() -> None:
    """As with ``| head -1``: the status is that of a process that SIGPIPE ended, and nothing is said."""
    script = (
        "import sys; from nqlava.command.parser import Parser\n"
        "parser = Parser('some.command', 'Prints.', [])\n"
        "sys.exit(parser.run(lambda options: [print('line') for _ in range(100_000)] and None, []))"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1; echo ${PIPESTATUS[0]}', sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["line", "141"] and done.stderr == ""


def test_a_current_folder_that_was_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert parser().run(lambda options: pytest.fail("it ran"), ["n"]) == 2
    line = "train.example: the current folder was removed; allowed: to start in another one\n"
    assert capsys.readouterr().err == line


def failing(error: BaseException, *args: str, failures: dict[type[Exception], int] | None = None) -> int:
    """Exit status of a command whose work raises the error; it takes a file, and --data."""

    def work(_options: object) -> None:
        raise error

    made = Parser("some.command", "Fails.", [])
    made.add_argument("--net", type=Path)
    made.add_argument("--data", nargs="+", default=["sample"])
    return made.run(work, args, failures)


def test_failures_have_the_status_that_the_command_gives_them(capsys: pytest.CaptureFixture[str]) -> None:
    for error, status in ((InputError("a"), 2), (LookupError("c"), 3), (KeyError("d"), 3)):
        assert failing(error, failures={LookupError: 3}) == status
        assert capsys.readouterr().err == f"some.command: {error}\n"
    assert Parser("some.command", "Fails.", []).run(interrupt, [], interrupted="; go on") == 130
    assert capsys.readouterr().err == "\nsome.command: interrupted; go on\n"


def interrupt(_options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "error",
    [
        InputError("net.h5: a\nb"),
        FileError("net.h5: cannot be read: Input/output error"),
        MissingFileError("net.h5: no such file"),
        DataError("data: no images"),
        CheckpointError("m.pt: no such file"),
        NetxError("net.h5: not a file"),
        NetworkError("layer a: bias is 0"),
        ExportError("layer a: cannot be exported"),
        GraphError("node a: type is x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_bad_input_is_one_line_and_status_2(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error) == 2
    assert capsys.readouterr().err == f"some.command: {error}\n" and "\n" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together"),
        IndexError("list index out of range"),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/of/ours"),
        RuntimeError("a defect\x1b[31m"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_internal_error_is_a_traceback_and_status_70(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error, "--net", "net.h5", failures={LavaRunError: 3}) == 70
    first, *_, what, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert what.startswith(type(error).__name__) and what.isprintable()
    assert last == "some.command: internal error; please report it with the traceback above"


def test_the_systems_errors_about_files_that_the_options_name_are_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so are those of files in a folder that they name, and a full disk, wherever it is."""
    monkeypatch.chdir(tmp_path)
    denied = (errno.EACCES, os.strerror(errno.EACCES))
    for path, status in (
        (str(tmp_path / "net.h5"), 2),
        (Path("net.h5"), 2),
        (b"net.h5", 70),
        (7, 70),
        (str(tmp_path / "images" / "a.zip"), 2),
        (str(tmp_path / "other.h5"), 70),
        (str(tmp_path), 70),
    ):
        error = PermissionError(*denied, path)
        assert failing(error, "--net", "net.h5", "--data", str(tmp_path / "images"), "more") == status
        lines = capsys.readouterr().err.splitlines()
        assert (lines == [f"some.command: {error}"]) == (status == 2)
    assert failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == 2
    assert capsys.readouterr().err == "some.command: [Errno 28] No space left on device\n"


def test_a_full_standard_output_is_one_line() -> None:
    script = (
        "import sys; from nqlava.command.parser import Parser\n"
        "sys.exit(Parser('some.command', 'Prints.', []).run(lambda _: print('line'), []))"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr.startswith("some.command: [Errno 28] No space left on device\n")
    assert "Traceback" not in done.stderr


def test_an_exit_passes() -> None:
    with pytest.raises(SystemExit):
        failing(SystemExit(5))


def test_what_failed_may_have_several_lines_but_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the traceback of a process of Lava, with a layer's name from a file."""

    def work(_options: object) -> None:
        raise RuntimeError("process x\x1b[31m failed\nTraceback:\n  line 1")

    assert Parser("some.command", "Does something.", []).run(work, [], {RuntimeError: 3}) == 3
    assert capsys.readouterr().err == "some.command: process x\\x1b[31m failed\nTraceback:\n  line 1\n"
