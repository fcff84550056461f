"""Messages of bad input are one line that does nothing to a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from nqlava.errors import InputError, shown


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
