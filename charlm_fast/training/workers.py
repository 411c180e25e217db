"""The processes that torchrun starts: which one this is, and what they say to each other."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workers:
    """One of ``count`` processes that train the same model, each on its columns of a batch."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this one writes the files and talks to the user."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This worker's columns of (T, B) or (L, B, H)."""
        width = batch.shape[1] // self.count
        return batch.narrow(1, self.rank * width, width)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the workers."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.count
        return value

    def gather(self, value: Tensor) -> list[Tensor]:
        """The tensors of all workers, of one shape, in their order; on every worker."""
        if self.count == 1:
            return [value]
        value = value.to(self.device).contiguous()
        parts = [torch.empty_like(value) for _ in range(self.count)]
        dist.all_gather(parts, value)
        return parts

    def tell(self, value: float) -> float:
        """The first worker's number, for all."""
        if self.count == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(number, 0)
        return float(number)

    def tell_text(self, text: str) -> str:
        """The first worker's text, for all."""
        if self.count == 1:
            return text
        size = int(self.tell(len(text.encode())))
        data = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if self.first:
            data.copy_(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
        dist.broadcast(data, 0)
        return bytes(data.tolist()).decode()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set for one of the workers."""
        if self.count == 1:
            return flag
        number = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return bool(number)

    def wait(self) -> None:
        """Until all workers have come here."""
        if self.count > 1:
            dist.barrier()

    def wrap(self, module: nn.Module, *example: Any) -> nn.Module:
        """The module with its gradients averaged over the workers as they are found.

        DistributedDataParallel arranges the gradients anew after its first step, and thereby the
        order of their sums. That step is taken here, on an example, so that a resumed run sums as
        one that never stopped.
        """
        ids = [self.device.index] if self.device.type == "cuda" else None
        wrapped = nn.parallel.DistributedDataParallel(module, ids, gradient_as_bucket_view=True)
        with torch.random.fork_rng(ids or []):
            wrapped(*example)[0].backward()
        for parameter in module.parameters():
            parameter.grad = None
        return wrapped


@contextmanager
def join(device: torch.device) -> Iterator[Workers]:
    """The workers of this run: torchrun's, over NCCL on GPUs and else gloo, or one."""
    if not dist.is_torchelastic_launched():
        yield Workers(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    # Gloo's threads live on. One that gives up the tensor of its last message waits for the lock
    # of Python, and if that shuts down meanwhile, aborts the process: let it have it. At the very
    # end, since torchrun may end a process that has yet to tell its error within 0.1 s.
    atexit.register(time.sleep, 0.05)
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
