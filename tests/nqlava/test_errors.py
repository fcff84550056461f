"""Messages of bad input are one line that does nothing to a terminal."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nqlava.errors import FileError, InputError, MissingFileError, shown


@given(st.text(max_size=200), st.integers(1, 100))
def test_shown_is_one_short_printable_line(text: str, most: int) -> None:
    line = shown(text, most)
    assert line.isprintable()
    assert len(text) <= most or line.endswith("…")
    if text.isprintable() and len(text) <= most:
        assert line == text


def test_control_characters_are_escaped() -> None:
    assert shown("a\nb\x1b[2J\ud800") == "a b\\x1b[2J\\ud800"
    assert shown("x" * 100, 10) == "x" * 10 + "…"


def test_errors_quote_what_they_found_on_one_line() -> None:
    assert str(InputError("net.h5: type is conv\n\x07; allowed: dense")) == "net.h5: type is conv \\x07; allowed: dense"


@pytest.mark.parametrize("kind", [InputError, FileError, MissingFileError])
def test_errors_keep_type_and_message_between_processes(kind: type[InputError]) -> None:
    error = pickle.loads(pickle.dumps(kind("net.h5: no\nsuch file")))
    assert type(error) is kind and str(error) == "net.h5: no such file"


def test_errors_of_files_are_bad_input_and_the_errors_that_they_are_in_python() -> None:
    assert issubclass(FileError, InputError) and issubclass(FileError, OSError)
    assert issubclass(MissingFileError, FileError) and issubclass(MissingFileError, FileNotFoundError)
