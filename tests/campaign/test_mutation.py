"""What mutmut is given means the same as the source, and every module and test that it is told of is there."""

from collections import Counter
from pathlib import Path

import pytest

from campaign import mutation
from campaign.mutation import GROUPS, ROOT, undecorated
from campaign.plan import Plan

SOURCE = """
from functools import cached_property, lru_cache


class Pair:
    def __init__(self, one, two):
        self.one, self.two = one, two

    @property
    def total(self):
        return self.one + self.two

    @cached_property
    def product(self):
        if not self.one:
            return 0

        return self.one * self.two

    @lru_cache
    def kept(self):
        return 1


@property
def alone(self):
    return self
"""


def test_decorators_become_assignments() -> None:
    found = undecorated(SOURCE)
    assert "@property" not in found and "@cached_property" not in found and "@lru_cache" in found
    names: dict = {}
    exec(found, names)
    pair = names["Pair"](2, 3)
    assert (pair.total, pair.product, pair.kept()) == (5, 6, 1)
    assert vars(pair)["product"] == 6 and isinstance(names["alone"], property)


@pytest.mark.parametrize("module", sorted({module for group in GROUPS.values() for module in group.modules}))
def test_every_module_is_a_program_without_its_decorators(module: str) -> None:
    compile(undecorated((ROOT / module).read_text(encoding="utf-8")), module, "exec")


def test_every_test_is_there() -> None:
    for test in {test for group in GROUPS.values() for test in group.tests} | set(mutation._SLOW):
        path, _, function = test.partition("::")
        assert (not function) or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), test
        assert (ROOT / path).exists(), test


def test_figures_by_module_and_in_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def examine(name: str, group: mutation.Group, plan: Plan) -> dict[str, Counter[str]]:
        return {module: Counter(mutants=50, run=10, survived=2, timed_out=1) for module in group.modules[:1]}

    monkeypatch.setattr(mutation, "examine", examine)
    outcome = mutation.run(Plan(0.2, 60, 0, tmp_path))
    assert not outcome.failures
    assert outcome.figures["export/round/quantize.py"] == "10 of 50 mutants run: 7 killed, 1 timed out, 2 survived"
    assert str(outcome.figures["all"]).startswith(f"{10 * len(GROUPS)} of {50 * len(GROUPS)} mutants run")
