"""Training in several processes (torchrun): each takes its share of every batch and of the held-out images."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from nqlava.errors import InputError


@dataclass(frozen=True)
class Processes:
    """The processes that train one network together, and which of them this one is.

    Attributes:
        rank: of this process, 0 … count − 1. Only rank 0 prints and writes files.
        count: number of processes; 1 without torchrun.
    """

    rank: int = 0
    count: int = 1

    def share(self, order: Tensor, batch: int) -> tuple[Tensor, int]:
        """The part of a permutation that is this process's, and the size of its part of a batch.

        The processes' parts of a batch make up the batch that one process alone would take. InputError where the batch
        cannot be divided.
        """
        if batch % self.count:
            raise InputError(f"batch is {batch}; allowed: multiples of {self.count}, the number of processes")
        steps = len(order) // batch
        return order[: steps * batch].view(steps, self.count, -1)[:, self.rank].flatten(), batch // self.count

    def wrap(self, network: nn.Module) -> nn.Module:
        """A module that acts as the network, and averages its gradients over the processes."""
        return network if self.count == 1 else nn.parallel.DistributedDataParallel(network)

    def equalize(self, network: nn.Module) -> None:
        """Give every process the buffers (statistics of batch norm) of rank 0."""
        if self.count > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def mean(self, values: Sequence[float], weight: float, device: torch.device) -> list[float]:
        """Mean over the processes, weighted."""
        if self.count == 1:
            return list(values)
        total = torch.tensor([weight, *(weight * value for value in values)], dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return (total[1:] / total[0]).tolist()


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Joins the processes that torchrun started, through nccl on GPUs and gloo on CPUs, while it is active."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    # A process that waits for the others inside PyTorch runs no handler of a signal: torchrun's must end it by itself.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except ValueError as error:  # a variable that torchrun sets is missing, or is no number
        reason = " ".join(str(error).split())
        raise InputError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: {reason}; allowed: a start by torchrun") from None
    yield Processes(distributed.get_rank(), distributed.get_world_size())
    distributed.barrier()  # after an error, torchrun ends the processes that wait here
    # gloo's threads need the GIL to give up the tensors of what just ended. Destroying the group holds the GIL while it
    # joins these threads, so where one was late, both waited for ever (seen with PyTorch 2.3.1).
    time.sleep(0.2)
    distributed.destroy_process_group()


def own_device(name: str) -> str:
    """The device that a name stands for: "auto" a GPU where there is one; of several GPUs the one of this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name
