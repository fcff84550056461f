"""``import nqlava``: five names, imported when they are used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nqlava
from nqlava.testing.networks import images_for, random_layer

ROOT = Path(__file__).resolve().parents[2]


def test_a_network_through_file_and_engine(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = nqlava.IntegerNetwork((1, 4, 4), (random_layer(rng, "out", (1, 4, 4), outputs=2, readout=True),))
    nqlava.write(network, tmp_path / "net.h5")
    again = nqlava.read(tmp_path / "net.h5")
    assert again.digest() == network.digest()
    assert nqlava.Engine(again).run(images_for(network, 2), 3).readout.shape == (2, 3, 2)
    with pytest.raises(nqlava.InputError, match="no such file"):
        nqlava.read(tmp_path / "gone.h5")
    with pytest.raises(AttributeError, match="module 'nqlava' has no attribute 'nothing'"):
        nqlava.nothing  # noqa: B018


def test_reading_needs_numpy_and_h5py_alone() -> None:
    code = (
        "import sys, nqlava\n"
        "assert not {'numpy', 'h5py', 'torch', 'numba'} & set(sys.modules), 'import nqlava imports more than itself'\n"
        "nqlava.read('tests/golden/version2.h5')\n"
        "foreign = {'torch', 'torchvision', 'numba', 'PIL', 'scipy', 'lava', 'tqdm', 'train', 'export', 'deploy'}\n"
        "print(sorted(foreign & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
