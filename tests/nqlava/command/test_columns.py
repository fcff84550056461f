"""Tables of many columns wrap, and those of many time steps thin out."""

from nqlava.command.columns import steps_shown, wrapped


def test_a_table_wraps_after_eight_columns() -> None:
    lines = wrapped(["step", "Lava"], [(f"{step:>3}", f"{10 * step:>3}") for step in range(1, 11)])
    assert lines == [
        "step  1  2  3  4  5  6  7  8",
        "Lava 10 20 30 40 50 60 70 80",
        "step  9 10",
        "Lava 90100",
    ]
    assert max(map(len, wrapped(["x" * 24] * 2, [(" 100.00 %",) * 2] * 4096))) < 100


def test_many_steps_thin_out() -> None:
    assert steps_shown(4) == [1, 2, 3, 4] and steps_shown(16) == list(range(1, 17))
    assert steps_shown(32) == [1, 2, 4, 8, 16, 32]
    assert steps_shown(100) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert len(steps_shown(4096)) == 13
