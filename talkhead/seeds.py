"""Where a run's random numbers start."""

from __future__ import annotations

import hashlib
import os

import torch


def base_seed() -> int:
    """The seed given to ``seed_everything``, 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def reseed(seed: int, device: torch.device) -> None:
    """Seed torch's global generators that a computation on ``device`` draws from.

    ``torch.manual_seed`` prepares devices that may never be used, too, and notes the call stack for
    each: milliseconds that a small network's step on a CPU would notice.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def step_seed(seed: int, batches_seen: int, rank: int) -> int:
    """A 63-bit seed for one batch on one rank, unrelated between neighbours."""
    digest = hashlib.sha256(f"{seed}/{batches_seen}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
