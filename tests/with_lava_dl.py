"""lava-dl needs Python 3.10: tests that use it are skipped on newer Pythons, by this mark, and no others are."""

import sys

import pytest

LAVA_DL = sys.version_info < (3, 11)

needs_lava_dl = pytest.mark.skipif(not LAVA_DL, reason="lava-dl needs Python 3.10")
