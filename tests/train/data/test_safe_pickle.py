"""Plain values come out of a pickle as they went in, and nothing that it names can run."""

import os
import pickle
import pickletools
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.safe_pickle import parsed

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.binary() | st.integers(), inner)
    ),
    max_leaves=12,
)


@given(PLAIN, st.integers(3, 5))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert parsed(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_bytes_come_back(protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    found = parsed(pickle.dumps({"data": array}, protocol))["data"].values
    assert found.dtype == np.uint8 and np.array_equal(found, array)


def test_texts_of_python_2() -> None:
    """As CIFAR's author wrote them: {'labels': [6, 9], 'data': 'aÿ'} in protocol 2."""
    assert parsed(b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\teU\x04dataq\x04U\x02a\xffu.") == {
        "labels": [6, 9],
        "data": "aÿ",
    }


class Evil:
    """Unpickled, it makes the file that it is given."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_names_can_run(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"data": Evil(tmp_path / "made")}, protocol)
    with pytest.raises(ValueError, match=r"it calls (posix|os) mkdir, which builds no plain value"):
        parsed(content)
    assert not (tmp_path / "made").exists()
    pickle.loads(content)  # the test itself
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "pickle exhausted before seeing STOP"),
        (b"(lp0\nS'x'\na.trailing", ""),
        (b"cos\nsystem\n(S'true'\ntR.", "it calls os system"),
        (b"(S'true'\nios\nsystem\n.", "it has the instruction INST"),
        (b"\x80\x02]q\x00(h\x00h\x00e0.", "it has the instruction POP"),
        (b"\x80\x04N.0", ""),
        (b"e.", "damaged: IndexError"),
        (b"0.", "it has the instruction POP"),
        (b"K\x01K\x02s.", "damaged"),
        (b"Vx\nb.", "damaged: IndexError"),
        (b"h\x07.", "damaged: KeyError"),
        (b"cnumpy\ndtype\n(I1000000000000\ntR.", "damaged: TypeError"),
    ],
)
def test_damaged_and_odd_pickles(content: bytes, message: str) -> None:
    if not message:
        parsed(content)
        return
    with pytest.raises(ValueError, match=message):
        parsed(content)


def test_a_small_file_cannot_take_for_ever() -> None:
    """Tuples of two that are the same one, forty deep: to hash or to print them would take 2⁴⁰ steps."""
    nested = b")" + b"".join(b"p%d\ng%d\n\x86" % (depth, depth) for depth in range(40))
    parsed(nested + b".")
    for use in (b"}" + nested + b"K\x01s.", b"cnumpy\ndtype\n(" + nested + b"tR."):
        with pytest.raises(ValueError, match=r"damaged: TypeError"):
            parsed(use)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_value_error(content: bytes) -> None:
    with suppress(ValueError):
        parsed(content)


@given(st.data())
def test_a_changed_byte_gives_a_value_or_a_value_error(data: st.DataObject) -> None:
    value = {b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}
    content = bytearray(pickle.dumps(value, data.draw(st.integers(0, 5))))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        parsed(bytes(content))


def test_every_instruction_is_known_to_pickletools() -> None:
    """The names in the reader are those that genops gives."""
    from train.data import safe_pickle

    followed = {*safe_pickle._VALUES, *safe_pickle._TUPLES, *safe_pickle._EMPTY, *safe_pickle._CONSTANTS}
    assert followed <= {code.name for code in pickletools.opcodes}
