"""deploy.api: what the commands do, on arrays."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy import api
from nqlava import netx
from nqlava.testing.engines import judged, saturations
from tests.test_run_lava import small_network
from tests.tiny import image_set, write_folder
from train.data.images import load
from train.data.sized import load_sized


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.h5"
    netx.write(small_network({"T": 3}), path)
    return path


def test_images_are_those_of_the_commands() -> None:
    expected = load(["sample"], "test").sample(7, 2)
    images, labels = api.images("sample", count=7, seed=2)
    assert images.dtype == np.uint8 and images.shape == (7, 3, 32, 32)
    assert np.array_equal(images.transpose(0, 2, 3, 1), expected.images.numpy())
    assert np.array_equal(labels, expected.labels.numpy())
    assert len(api.images(split="train")[0]) == 1000, "all of the sample without more"


def test_images_of_other_sizes_are_those_of_the_commands(tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "data", test=image_set(9)))
    expected = load_sized([folder], "test", (16, 16))
    images, labels = api.images(folder, size=16)
    assert images.shape == (9, 3, 16, 16) and labels.tolist() == sorted(labels)
    assert np.array_equal(images.transpose(0, 2, 3, 1), expected.whole().images.numpy())  # type: ignore[union-attr]
    drawn, _ = api.images(folder, size=16, count=4, seed=1)
    assert np.array_equal(drawn.transpose(0, 2, 3, 1), expected.sample(4, 1).images.numpy())


def test_sources_are_given_one_by_one_or_as_a_list(tmp_path: Path) -> None:
    parts = [write_folder(tmp_path / name, test=image_set(3, seed=index)) for index, name in enumerate("ab")]
    found = api.images(*map(str, parts))[0]
    assert len(found) == 6
    for sources in ([list(map(str, parts))], [parts], parts):
        assert np.array_equal(api.images(*sources)[0], found)
    assert len(api.images([])[0]) == 1000


def test_the_engine_gives_what_the_reference_gives(net: Path) -> None:
    network = api.read(net)
    images, labels = api.images(count=6)
    result = api.run(network, images, labels)
    assert result.classes.shape == (6, 3), "T is that of the file"
    expected = judged(network, images, 3)
    readout = np.stack([run.readout for run in expected])
    assert np.array_equal(result.trace.layer_spikes(0), np.stack([run.spikes[0] for run in expected]))
    assert np.array_equal(result.classes, readout.argmax(axis=2))
    rate = result.trace.layer_spikes(0).mean()
    assert result.spike_rates == {"first": pytest.approx(rate)} and 0 < rate < 1
    right = result.classes == labels[:, None]
    assert result.accuracy == pytest.approx(100 * right.mean(axis=0))
    assert result.saturations == dict(zip(["first", "readout"], saturations(expected), strict=True))
    assert api.run(network, images, steps=1).accuracy == ()


def test_lava_is_compared_with_the_engine(net: Path) -> None:
    images, labels = api.images(count=5)
    verdict = api.run_lava(net, images, labels.tolist(), steps=2, batch=2)
    result = api.run(api.read(net), images, labels, steps=2)
    assert verdict.exact and verdict.first is None and verdict.disagreement is None and verdict.samples == 5
    assert verdict.accuracy == pytest.approx(result.accuracy)
    assert dict(zip(verdict.layers, verdict.spike_rates, strict=False)) == pytest.approx(result.spike_rates)


def test_bad_arguments(net: Path) -> None:
    network = api.read(net)
    images, labels = api.images(count=3)
    with pytest.raises(ValueError, match=r"labels are int64 of shape \(2,\); allowed: integers of shape \(3,\)"):
        api.run(network, images, labels[:2])
    with pytest.raises(ValueError, match=r"labels are int64 of shape \(2,\); allowed: integers of shape \(3,\)"):
        api.run_lava(net, images, labels[:2])
    with pytest.raises(ValueError, match=r"images are float64 of shape \(3, 3, 32, 32\); allowed: uint8"):
        api.run(network, images / 255, labels)
    with pytest.raises(ValueError, match=r"T is 5000; allowed: 1\.\.4096"):
        api.run(network, images, labels, steps=5000)
    with pytest.raises(ValueError, match=r"T is 0; allowed: 1\.\.4096"):
        api.run_lava(net, images, labels, steps=0)
    for steps in (1.5, "2"):
        with pytest.raises(ValueError, match=rf"T is {steps!r}; allowed: 1\.\.4096"):
            api.run(network, images, labels, steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels are float64 of shape \(3,\); allowed: integers"):
        api.run(network, images, labels + 0.5)
    with pytest.raises(ValueError, match=r"labels are object of shape \(\); allowed: integers"):
        api.run_lava(net, images, None)  # type: ignore[arg-type]
    for nothing, found in ((images[:0], r"of shape \(0, 3, 32, 32\)"), (images.tolist(), "list")):
        with pytest.raises(ValueError, match=f"images are {found}; allowed: an array of at least one image"):
            api.run(network, nothing)
        with pytest.raises(ValueError, match=f"images are {found}; allowed: an array of at least one image"):
            api.run_lava(net, nothing, labels)
    with pytest.raises(ValueError, match="network is str; allowed: an IntegerNetwork"):
        api.run("net.h5", images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend is 'foo'; allowed: cpu, netx, stock, c, loihi2"):
        api.run_lava(net, images, labels, backend="foo")
    with pytest.raises(ValueError, match="split is 'tst'; allowed: train, test"):
        api.images(split="tst")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no such file"):
        api.run_lava(net.with_name("gone.h5"), images, labels)


@pytest.mark.slow
def test_it_needs_no_lava_before_lava_runs() -> None:
    code = "import sys\nfrom deploy import api\nprint('lava' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
