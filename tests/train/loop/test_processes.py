"""Two processes train as one does, and a training that is killed continues as if nothing had happened."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.tiny import write_folder
from tests.train.loop import shares
from train.cifar import main
from train.data.images import load as load_images
from train.loop.checkpoint import load, read_model
from train.loop.processes import Processes, own_device
from train.model.models import MODELS

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few real images; 32 pixels high, as the commands' own networks want them."""
    splits = {split: load_images(["sample"], split) for split in ("train", "test")}
    step = {"train": 5, "test": 50}
    few = {name: images.subset(torch.arange(0, 1000, step[name])) for name, images in splits.items()}
    return write_folder(tmp_path / "data", **few)


def command(data: Path, out: Path, *more: str) -> list[str]:
    options = "--model vgg_tiny --batch 40 --epochs 3 --precision float32 --device cpu --induction-steps 3"
    return ["-m", "train.cifar", "--data", str(data), "--out", str(out), *options.split(), *more]


@contextmanager
def one_thread() -> Iterator[None]:
    """What runs here takes the steps of the programs that ``run`` starts, with their number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run(*arguments: str) -> str:
    return subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=300).stdout


def test_shares_make_up_the_batches() -> None:
    """Seven images in batches of four: three are left over, and each of two processes has half a batch."""
    order = torch.tensor([5, 3, 0, 6, 1, 2, 4, 8, 7])
    shares = [Processes(rank, 2).share(order, 4) for rank in (0, 1)]
    assert [share.tolist() for share, _ in shares] == [[5, 3, 1, 2], [0, 6, 4, 8]] and shares[0][1] == 2
    with pytest.raises(ValueError, match="batch is 5; allowed: multiples of 2, the number of processes"):
        Processes(0, 2).share(order, 5)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights after three steps, but for rounding, and the same accuracy of the held-out images."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    monkeypatch.setitem(MODELS, "plain", shares.plain)
    shares.main(alone)
    run(*TORCHRUN, "tests/train/loop/shares.py", str(together))
    expected = torch.load(alone / "0.pt", weights_only=True)
    for rank in (0, 1):
        found = torch.load(together / f"{rank}.pt", weights_only=True)
        assert found["ann"] == pytest.approx(expected["ann"])
        for key, value in expected["state"].items():
            torch.testing.assert_close(found["state"][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_processes_write_one_model_and_one_continues_it(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "m.pt"
    printed = run(*TORCHRUN, *command(data, out)).splitlines()
    assert printed[0].endswith("3 epochs on cpu in 2 processes, float32, seed 0")
    assert [re.match(r"epoch +(\d)/3", line)[1] for line in printed[2:5]] == ["1", "2", "3"]
    assert printed[6] == f"{out}: accuracy on 20 test images" and len(printed) == 9
    first = read_model(out).network.state_dict()
    out.unlink()
    with one_thread():
        assert main(command(data, out, "--resume")[2:]) == 0
    assert all(torch.equal(value, first[key]) for key, value in read_model(out).network.state_dict().items())


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_ends_with_torchrun() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = (
        "import torch\nfrom nqlava.command.interruption import Interruption\n"
        "from train.loop.processes import processes\n"
        "print('waiting', flush=True)\n"
        "with Interruption().caught(), processes(torch.device('cpu')):\n    pass\n"
    )
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT | place, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "waiting\n"
        time.sleep(1)
        child.terminate()
        try:
            assert child.wait(10) == -signal.SIGTERM
        finally:
            child.kill()


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, data: Path) -> None:
    """SIGKILL in the middle of the second epoch."""
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    with one_thread():
        assert main(command(data, whole)[2:]) == 0
    child = subprocess.Popen(
        [sys.executable, *command(data, parts)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        while not child.stdout.readline().startswith("epoch   1/3"):
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL and not parts.exists()
    run(sys.executable, *command(data, parts, "--resume"))
    content = {name: load(tmp_path / f"{name}.pt.checkpoint") for name in ("whole", "parts")}
    assert content["whole"]["history"] == content["parts"]["history"] and len(content["parts"]["history"]) == 3
    states = [read_model(path).network.state_dict() for path in (whole, parts)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_every_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [own_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:3", "cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device("auto") == "cpu"
