"""Run a function in several CPU processes joined by gloo."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def run_ranks(work: Callable[[int, int], Any], folder: Path, ranks: int = 2) -> list[Any]:
    """Results of ``work(rank, ranks)`` of every rank, in order; ``work`` is a module-level function."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_rank, args=(ranks, port, work, folder), nprocs=ranks)
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(ranks)]


def _rank(rank: int, ranks: int, port: int, work: Callable[[int, int], Any], folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    try:
        torch.save(work(rank, ranks), folder / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()
