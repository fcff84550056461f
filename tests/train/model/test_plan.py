"""Plans come back from a file, and nothing else does."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nqlava.errors import InputError
from tests.train.model.test_lowered import PLANS
from train.model.plan import entries, plans_from


def test_plans_come_back() -> None:
    assert plans_from(entries(PLANS)) == PLANS


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_subnormal=False),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_anything_else_is_refused_in_one_line(data: st.DataObject) -> None:
    found: Any = copy.deepcopy(entries(PLANS))
    place = data.draw(st.sampled_from(found))
    if data.draw(st.booleans()):
        place = data.draw(st.sampled_from(place["maps"]))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JUNK)
    try:
        plans_from(found)
    except InputError as error:
        assert "\n" not in str(error)
