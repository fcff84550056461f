"""Text in figures stays text, in every script."""

import numpy as np

from deploy.report import figures


def test_names_of_classes_are_text_that_the_browser_draws() -> None:
    names = ["猫", "<кот>", "قط", "_cat", "a" * 30]
    svg = figures.confusion(np.eye(5, dtype=np.int64), names)
    for text in ("猫", "&lt;кот&gt;", "قط", "_cat", f"{'a' * 17}…"):
        assert svg.count(f">{text}</text>") + svg.count(f"> {text}</text>") == 2, text
