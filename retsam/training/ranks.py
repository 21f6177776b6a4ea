"""The processes of one run, as torchrun starts them: one a GPU, or one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

# The first process builds the cache while the others wait; torchrun itself ends them where one dies.
_PATIENCE = timedelta(days=1)


def rank() -> int:
    """Number of this process."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def together() -> Iterator[None]:
    """A block in which the processes know of each other; in a block inside they do already. They leave it together."""
    if world() == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    yield
    distributed.barrier()
    distributed.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[None]:
    """A block that the first process goes through before the others do: what it builds they find."""
    if world() > 1 and rank() > 0:
        distributed.barrier()
    yield
    if world() > 1 and rank() == 0:
        distributed.barrier()


def agreed(stop: bool, device: torch.device) -> bool:
    """What the first process says: clocks differ, and one that stops by itself leaves the others waiting for its gradients."""
    if world() == 1:
        return stop
    answer = torch.tensor([stop], dtype=torch.uint8, device=device)
    distributed.broadcast(answer, 0)
    return bool(answer.item())
