"""What is collected: a file that cannot be imported without lava-dl is left out on newer Pythons."""

from tests.with_lava_dl import LAVA_DL

collect_ignore = [] if LAVA_DL else ["test_lava_dl_network.py"]
