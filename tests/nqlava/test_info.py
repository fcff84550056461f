"""The entries of a network's info that deployment uses."""

import re

import pytest

from nqlava.errors import InputError
from nqlava.info import Info

WHOLE = Info(2, ("a", "b"), "../model.pt", "0" * 64, 99.5)


@pytest.mark.parametrize("info", [WHOLE, Info(), Info(steps=4096), Info(classes=("ä",))])
def test_round_trip(info: Info) -> None:
    assert Info.of(info.entries()) == info
    assert Info.of({**info.entries(), "note": 3.5}) == info, "other entries are for people"


def test_steps_come_from_the_option_then_the_file_then_4() -> None:
    assert (WHOLE.steps_or(3), WHOLE.steps_or(None), Info().steps_or(None)) == (3, 2, 4)


@pytest.mark.parametrize("steps", [0, -1, 4097, 2.0, "4"])
def test_steps_are_checked(steps: int | float | str) -> None:
    with pytest.raises(InputError, match=rf"^info: T is {re.escape(repr(steps))}; allowed: 1\.\.4096$"):
        Info.of({"T": steps})
    with pytest.raises(InputError, match=rf"^T is {re.escape(repr(steps))}; allowed: 1\.\.4096$"):
        WHOLE.steps_or(steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", ["[", "3", "[1, 2]", "[" * 100_000, 4.0])
def test_classes_are_a_list_of_names(classes: str | float) -> None:
    with pytest.raises(InputError, match=r"^info: classes is no list of names; export the network again$"):
        Info.of({"classes": classes})
